"""From flags to a queued job: target, snapshot, preflight checks, dependencies."""
