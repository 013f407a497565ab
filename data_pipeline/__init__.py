"""Converts raw captures to shards; contains no training code and is not imported by a2fjax."""
