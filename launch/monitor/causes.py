"""Why a run or element ended badly."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from launch.jobs import progress, worker
from launch.jobs.record import launch


def why(run: Path) -> str:
    """Returns the last line that a run printed, and why it is not started again."""
    if (launch(run) / "cancelled").exists():
        return f"cancelled: {worker.tail(run)}"
    ends = [e for e in progress.events(run) if e["event"] == "end"]
    reason = f"{ends[-1].get('why')}: " if ends else ""
    return reason + worker.tail(run, first_failed_rank(run))


def first_failed_rank(run: Path) -> int:
    """Returns the process that ended first with another exit code than 0, or 0."""
    failed = []
    for path in (launch(run) / "ranks").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_text())
            if values["exit_code"]:
                failed.append((float(values["unix"]), int(values["rank"])))
    return min(failed)[1] if failed else 0
