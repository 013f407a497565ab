"""Turns flags into a queued job: target, snapshot, preflight checks, dependencies."""
