"""Runs jobs on Slurm."""
