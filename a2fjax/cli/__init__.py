"""The command line: flags and messages, nothing else."""
