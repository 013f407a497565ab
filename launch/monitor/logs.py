"""The command `logs`."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

from a2fjax import budgets
from a2fjax.errors import InputError, WorkFailed
from launch import schedulers
from launch.jobs import outcome, record, worker
from launch.monitor import causes, states
from launch.schedulers.base import read_log

_STATE_SECONDS = 2.0
_CHUNK = 1 << 20


def show(folder: Path, *, element: int | None, rank: int | None, follow: bool) -> None:
    """Prints a log.

    Args:
      folder: folder of a run, sweep or array.
      element: element of an array; None for the first that failed, or the last command.
      rank: process of a run; None for the one that failed first.
      follow: whether to keep printing new lines until the run has ended.

    Raises:
      InputError: no such element or process, or no log yet.
      WorkFailed: as `states.query`.
    """
    run = _choose(folder, element)
    path = worker.log_path(run, causes.first_failed_rank(run) if rank is None else rank)
    if follow:
        _follow(run, path)
        if path.exists():
            return
    if path.exists():
        print(f"== {record.read(run).id}: {path.name}", flush=True)
        sys.stdout.write(read_log(path))
        return
    ranks = sorted(p.stem.removeprefix("rank-") for p in path.parent.glob("rank-*.log"))
    if rank is not None and ranks:
        raise InputError(f"--rank {rank}: {run.name} has {', '.join(ranks)}")
    submitted = record.submission(run)
    if submitted is None:
        raise InputError(f"{path}: no log yet; `submit.py status` shows what runs")
    text = schedulers.get(submitted.scheduler).logs(run, submitted)
    print(f"== {record.read(run).id}: {submitted.scheduler}", flush=True)
    sys.stdout.write(text)


def _choose(folder: Path, element: int | None) -> Path:
    """Returns the run or element whose log to print."""
    if record.is_array(folder):
        if element is not None:
            record.read(folder).element(element)
            return record.element(folder, element)
        members = record.members(folder)
        current = states.query(members)
        return next((m for m in members if current[m].name in outcome.WRONG), members[-1])
    if element is not None:
        raise InputError(
            "--element: is for builds and caches; runs have --rank, sweeps SWEEP/TRIAL"
        )
    if record.is_sweep(folder):
        runs = record.trials(folder)
        current = states.query(runs)
        return next((run for run in runs if current[run].name in outcome.WRONG), runs[0])
    return folder


def _follow(run: Path, path: Path) -> None:
    position, asked, active = 0, 0.0, True
    while True:
        with contextlib.suppress(InputError), budgets.regular_file(path).open("rb") as file:
            file.seek(position)
            while text := file.read(_CHUNK):
                position += len(text)
                sys.stdout.write(text.decode(errors="replace"))
                sys.stdout.flush()
        if not active:
            return
        if time.monotonic() > asked + _STATE_SECONDS:
            with contextlib.suppress(WorkFailed):
                active = states.one(run).active
            asked = time.monotonic()
        time.sleep(0.2 if active else 0)
