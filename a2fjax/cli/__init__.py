"""Command line: flags and messages only."""
