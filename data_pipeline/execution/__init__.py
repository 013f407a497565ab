"""Execution of a build: executors, process pools, locks, content keys."""
