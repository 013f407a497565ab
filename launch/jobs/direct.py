"""Reads runs of `a2fjax train` without `submit.py`: folders with config.json but no record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from a2fjax import budgets, configuration, files
from a2fjax.errors import InputError
from launch.jobs import outcome, progress
from launch.jobs.outcome import State


def config(run: Path) -> dict[str, Any]:
    """Returns the content of config.json: "config", "sources", "fingerprint".

    Raises:
      InputError: the file is damaged, or was changed after it was written.
    """
    path = run / "config.json"
    values = budgets.load_json(path)
    configuration.check_sealed(values, name=str(path))
    if not isinstance(values.get("config"), dict):
        raise InputError(f"{path}: is not the configuration of a run")
    return dict(values)


def steps(run: Path) -> int | None:
    """Returns the total number of updates; None if config.json does not state it."""
    try:
        value = config(run)["config"].get("steps")
    except InputError:
        return None
    return value if isinstance(value, int) else None


def state(run: Path) -> State:
    """Returns whether a run is training, complete or stopped; there is no stored exit code."""
    if files.is_locked(run / "lock"):
        return State(outcome.RUNNING)
    total = steps(run)
    complete = total is not None and progress.checkpoint(run) >= total
    return State(outcome.DONE if complete else outcome.STOPPED)
