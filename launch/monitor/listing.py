"""The command `list`: all runs and sweeps, including runs made by `a2fjax train` directly."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from a2fjax.errors import InputError, nearest
from launch.jobs import direct, folders, outcome, progress, record
from launch.monitor import states


def show(root: Path, state: str | None) -> None:
    """Prints all runs and sweeps below ROOT.

    Args:
      root: folder of all runs.
      state: prints only those in this state; None prints all.

    Raises:
      InputError: no such state.
    """
    if state is not None and state not in outcome.STATES:
        raise InputError(f"--state {state}{nearest(state, outcome.STATES)}")
    entries, broken = {}, []
    for path in folders.everything(root.absolute()):
        try:
            entries[path] = _Entry(record.members(path), path)
        except Exception as error:  # noqa: BLE001 - damage shows as any error; others are listed
            broken.append(f"{path.name}: damaged: {_reason(error)}")
    # Without access to the scheduler, use the files alone.
    current = states.query([run for e in entries.values() for run in e.members], lenient=True)
    if not broken and not any(state in (None, one.name) for one in current.values()):
        print(f"{root}: no runs{f' are {state}' if state and current else ''}")
    for path, entry in entries.items():
        runs = [run for run in entry.members if state in (None, current[run].name)]
        if not runs:
            continue
        if record.is_sweep(path):
            text = states.counts(current[run] for run in runs)
            print(f"{path.name}: {len(runs)} runs: {text}")
        else:
            print(f"{path.name}: {current[path].name}  {entry.progress}".rstrip())
    for line in broken:
        print(line, file=sys.stderr)


class _Entry:
    """A line of the list; reads everything that may be damaged."""

    def __init__(self, members: Sequence[Path], path: Path) -> None:
        self.members, self.progress = members, ""
        # The submission of the only run must be readable; those of a sweep are judged one by one.
        record.submissions([] if record.is_sweep(path) else members)
        if not record.is_sweep(path):
            steps = record.read(path).steps if record.is_job(path) else direct.steps(path)
            self.progress = progress.line(path, steps)


def _reason(error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    return f"{type(error).__name__}: {error}"
