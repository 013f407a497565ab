"""Progress of a run, from the files that it writes."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from a2fjax import budgets, files
from a2fjax.errors import InputError
from a2fjax.training.tracking import duration
from launch.jobs.record import launch

_TAIL = 1 << 18
SHOWN = ("eval/loss", "train/loss")


def last(run: Path) -> tuple[int | None, dict[str, float]]:
    """Returns the last step of metrics.jsonl and the last value of each of its keys.

    Reads only the end of the file; ignores a line that is still being written.
    """
    try:
        data = budgets.read_tail(run / "metrics.jsonl", _TAIL)
    except InputError:
        return None, {}
    step: int | None = None
    values: dict[str, float] = {}
    for text in data.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError, OverflowError):
            line = budgets.parse_json(text, name="metrics.jsonl")
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                step = line.pop("step")
                values |= {k: float(v) for k, v in line.items() if isinstance(v, (int, float))}
    return step, values


def checkpoint(run: Path) -> int:
    """Returns the step of the newest complete checkpoint, 0 before the first."""
    try:
        names = [p.name for p in (run / "checkpoints").iterdir()]
    except OSError:
        return 0
    return max((int(n) for n in names if n.isdigit()), default=0)


def event(run: Path, what: str, **values: Any) -> None:
    """Appends a line to events.jsonl; safe from several machines at once."""
    line = {"time": now(), "event": what, **values}
    path = launch(run) / "events.jsonl"
    with contextlib.suppress(OSError), files.open_private(path) as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write((json.dumps(line) + "\n").encode())


def events(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of events.jsonl, ignoring torn ones."""
    entries = []
    try:
        data = budgets.read_bytes(launch(run) / "events.jsonl")
    except InputError:
        return []
    for line in data.decode(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            value = budgets.parse_json(line, name="events.jsonl")
            if isinstance(value, dict) and "event" in value:
                entries.append(value)
    return entries


def result(run: Path) -> dict[str, Any]:
    """Returns result.json of the last attempt that ended; {} before that."""
    try:
        values = budgets.load_json(launch(run) / "result.json")
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def seconds(run: Path) -> float:
    """Returns the total running time of a run in seconds, over all attempts."""
    begun: dict[int, float] = {}
    total = 0.0
    for line in events(run):
        unix, pid = line.get("unix"), line.get("pid")
        if line.get("rank") != 0 or not isinstance(unix, float) or not isinstance(pid, int):
            continue
        if line["event"] == "started":
            begun[pid] = unix
        elif line["event"] == "ended":
            total += max(0.0, unix - begun.pop(pid, unix))
    return total


def line(run: Path, steps: int | None) -> str:
    """Returns the progress of a run as text: step, rate, ETA, held-out loss."""
    step, values = last(run)
    if step is None:
        return ""
    words = [f"step {step}/{steps}" if steps else f"step {step}"]
    rate = values.get("perf/steps_per_s")
    if rate is not None:
        words.append(f"{rate:.3g} steps/s")
    if steps and step < steps and "time/step_s" in values:
        words.append(f"ETA {duration((steps - step) * values['time/step_s'])}")
    words += [f"{key} {values[key]:.4g}" for key in SHOWN if key in values]
    return "  ".join(words)


def now() -> str:
    """Returns the current UTC time, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def host() -> str:
    """Returns the name of this machine; Slurm's node name if there is one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the quality metrics among a run's values."""
    return {k: v for k, v in values.items() if k.startswith("eval/") or k == "train/loss"}
