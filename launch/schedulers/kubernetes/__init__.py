"""Kubernetes Jobs and JobSets."""
