"""How a build runs: executors, process pools, locks, content keys."""
