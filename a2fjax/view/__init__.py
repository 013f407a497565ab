"""What people look at: sets of shards in words, takes as pictures and pages."""
