"""Rows of a sweep's table, from the files of its runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from a2fjax.errors import InputError
from launch.jobs import progress, record
from launch.monitor import states


def collect(folder: Path) -> list[dict[str, Any]]:
    """Returns a row for each trial of a sweep, or one row for a single run.

    Keys: run, state, step, steps, seconds, overrides (values of the sweep by key), metrics (the
    last value of each of eval/* and train/loss).

    Raises:
      InputError, WorkFailed: as `states.query`.
    """
    runs = record.members(folder)
    current = states.query(runs)
    rows: list[dict[str, Any]] = []
    for run in runs:
        step, values = progress.last(run)
        try:
            spec = record.read(run)
        except InputError as error:
            print(f"{run.name}: damaged: {error}", file=sys.stderr)
            rows.append({"run": run.name, "state": current[run].name, "step": step})
            continue
        rows.append(
            {
                "run": run.name,
                "state": current[run].name,
                "step": step,
                "steps": spec.steps,
                "seconds": progress.seconds(run),
                "overrides": dict(spec.trial or {}),
                "metrics": progress.metrics(values),
            }
        )
    return rows
