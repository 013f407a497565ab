"""How far a run is, from the files that it writes."""

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

from a2fjax.train.tracking import duration
from launch.jobs import run_spec

_TAIL = 1 << 18
SHOWN = ("eval/loss", "train/loss")


def last(run: Path) -> tuple[int | None, dict[str, float]]:
    """Returns the last step of metrics.jsonl and the last value of each of its keys.

    Only the end of the file is read; a line that is being written is left out.
    """
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None, {}
    step: int | None = None
    values: dict[str, float] = {}
    for text in lines:
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                step = line.pop("step")
                values |= {k: float(v) for k, v in line.items() if isinstance(v, (int, float))}
    return step, values


def checkpoint(run: Path) -> int:
    """Returns the newest step that was saved whole, 0 before the first."""
    try:
        names = [p.name for p in (run / "checkpoints").iterdir()]
    except OSError:
        return 0
    return max((int(n) for n in names if n.isdigit()), default=0)


def event(run: Path, what: str, **values: Any) -> None:
    """Appends a line to events.jsonl; several machines may do so at once."""
    line = {"time": now(), "event": what, **values}
    with contextlib.suppress(OSError), (run_spec.launch(run) / "events.jsonl").open("ab") as file:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        file.write((json.dumps(line) + "\n").encode())


def events(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of events.jsonl; a torn one is left out."""
    out = []
    try:
        text = (run_spec.launch(run) / "events.jsonl").read_text(errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                out.append(value)
    return out


def result(run: Path) -> dict[str, Any]:
    """Returns result.json of the last time that a run ended; {} before that."""
    try:
        values = json.loads((run_spec.launch(run) / "result.json").read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def seconds(run: Path) -> float:
    """Returns how long a run has been at work, over all its attempts."""
    begun: dict[Any, float] = {}
    total = 0.0
    for line in events(run):
        at = line.get("unix")
        if line.get("rank") != 0 or not isinstance(at, (int, float)):
            continue
        if line["event"] == "started":
            begun[line.get("pid")] = at
        elif line["event"] == "ended":
            total += max(0.0, at - begun.pop(line.get("pid"), at))
    return total


def line(run: Path, steps: int | None) -> str:
    """Returns how far a run is, in words: step, rate, what is left, held-out loss."""
    step, values = last(run)
    if step is None:
        return ""
    parts = [f"step {step}/{steps}" if steps else f"step {step}"]
    rate = values.get("perf/steps_per_s")
    if rate is not None:
        parts.append(f"{rate:.3g} steps/s")
    if steps and step < steps and "time/step_s" in values:
        parts.append(f"ETA {duration((steps - step) * values['time/step_s'])}")
    parts += [f"{key} {values[key]:.4g}" for key in SHOWN if key in values]
    return "  ".join(parts)


def now() -> str:
    """Returns the time in UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())


def host() -> str:
    """Returns the name of this machine, the scheduler's where there is one."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Returns those of a run's numbers that say how good it is."""
    return {k: v for k, v in values.items() if k.startswith("eval/") or k == "train/loss"}
