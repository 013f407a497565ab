"""Runs jobs as processes on this machine."""
