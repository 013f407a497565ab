"""The command `list`: all runs and sweeps, including runs made by `a2fjax train` directly."""

from __future__ import annotations

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
      InputError: no such state, or a file is damaged.
    """
    if state is not None and state not in outcome.STATES:
        raise InputError(f"--state {state}{nearest(state, outcome.STATES)}")
    entries = {path: record.members(path) for path in folders.everything(root.absolute())}
    # Without access to the scheduler, use the files alone.
    current = states.query([run for runs in entries.values() for run in runs], lenient=True)
    if not any(state in (None, one.name) for one in current.values()):
        print(f"{root}: no runs{f' are {state}' if state and current else ''}")
    for path, members in entries.items():
        runs = [run for run in members if state in (None, current[run].name)]
        if not runs:
            continue
        if record.is_sweep(path):
            text = states.counts(current[run] for run in runs)
            print(f"{path.name}: {len(runs)} runs: {text}")
        else:
            steps = record.read(path).steps if record.is_job(path) else direct.steps(path)
            print(f"{path.name}: {current[path].name}  {progress.line(path, steps)}".rstrip())
