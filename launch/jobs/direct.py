"""Reads runs of `a2fjax train` without `submit.py`: folders with config.json but no record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import InputError
from launch.jobs import outcome, progress
from launch.jobs.outcome import State


def config(run: Path) -> dict[str, Any]:
    """Returns the content of config.json: "config", "sources", "fingerprint".

    Raises:
      InputError: the file is damaged.
    """
    path = run / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values["config"], dict):
            return dict(values)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: is not the configuration of a run")


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
