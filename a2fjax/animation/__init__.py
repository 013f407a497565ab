"""Curves in files: readers and writers that map by name, and resampling by time."""
