"""Finds the reason why a run or element failed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from a2fjax import budgets
from launch.jobs import outcome, progress, worker
from launch.jobs.record import launch


def why(run: Path) -> str:
    """Returns the last line that a run printed, and why it is not restarted."""
    if outcome.is_cancelled(run):
        return f"cancelled: {worker.tail(run)}"
    ends = [e for e in progress.events(run) if e["event"] == "end"]
    reason = f"{ends[-1].get('why')}: " if ends else ""
    return reason + worker.tail(run, first_failed_rank(run))


def first_failed_rank(run: Path) -> int:
    """Returns the rank of the first process that ended with a nonzero exit code, or 0."""
    failed = []
    for path in (launch(run) / "ranks").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = budgets.load_json(path)
            if values["exit_code"]:
                failed.append((float(values["unix"]), int(values["rank"])))
    return min(failed)[1] if failed else 0
