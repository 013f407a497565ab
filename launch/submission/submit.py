"""Hands runs over: everything is on disk before anything is queued."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from a2fjax import errors, files
from launch.jobs import progress, requeue
from launch.jobs import run_spec as spec
from launch.jobs.run_spec import RunSpec, Submission
from launch.monitor import status
from launch.schedulers.kubernetes import run as runs_kubernetes
from launch.schedulers.local import run as runs_local
from launch.schedulers.slurm import run as runs_slurm
from launch.submission import dependencies
from launch.submission.target import Place

Entries = Sequence[tuple[Path, RunSpec]]


def show(place: Place, folder: Path, entries: Entries, chosen: Sequence[int]) -> None:
    """Prints what would be submitted, and writes nothing."""
    picked = _picked(entries, chosen)
    values = dataclasses.asdict(picked[0][1])
    print(json.dumps(values, indent=1))
    if len(picked) > 1:
        print("# and the same for", ", ".join(run.name for run, _ in picked[1:]))
    if place.backend == "slurm":
        print(runs_slurm.render(folder, entries, chosen))
    elif place.backend == "kubernetes":
        for run, run_spec in picked:
            print(runs_kubernetes.render(run, run_spec, 1))


def start(
    place: Place,
    folder: Path,
    entries: Entries,
    chosen: Sequence[int],
    *,
    handed_over: Callable[[], None],
    wait: bool,
    poll: float,
) -> int:
    """Submits; returns the exit code, of the runs where they are waited for.

    Args:
      place: where they go.
      folder: of the run or the sweep.
      entries: the run, or all trials of the sweep in its order.
      chosen: places in `entries` of those to run, from 1; () for a run alone.
      handed_over: called once other commands can see that it is at work or waits.
      wait: whether to return only when all have ended; on this machine that is always so.
      poll: seconds between looks.
    """
    picked = _picked(entries, chosen)
    for name in place.passed:
        if name not in os.environ:
            print(f"{folder.name}: {name} is not set in this environment", flush=True)
    needs = dependencies.needs(place.after, place.backend)
    if place.backend == "slurm":
        # Before anything that says how the last attempt went is removed.
        runs_slurm.check(folder, entries, chosen)
    numbers = {run: index for index, (run, _) in enumerate(entries, 1)} if chosen else {}
    attempts = {}
    for run, run_spec in picked:
        before = spec.submission(run)
        attempts[run] = before.attempt + 1 if before else 1
        spec.write(run, run_spec)
        requeue.forget(run)
        files.make_folder(spec.launch(run) / "ranks")
    if chosen:
        files.make_folder(spec.launch(folder))
        names = {"trials": [run.name for run, _ in entries]}
        spec.write_json(spec.launch(folder) / "sweep.json", names)

    runs = [run for run, _ in picked]

    def submitted(name: str, those: Sequence[Path] = runs) -> None:
        for run in those:
            found = Submission(
                backend=place.backend,
                job=name,
                index=numbers.get(run) if place.backend == "slurm" else None,
                attempt=attempts[run],
                time=progress.now(),
            )
            spec.write_json(spec.launch(run) / "job.json", dataclasses.asdict(found))
        if name:
            handed_over()

    # Once without a name: a job may start before its number has come back.
    submitted("")
    if place.backend == "local":
        print(f"{folder.name}: runs here; `submit.py logs {folder.name} -f` shows it", flush=True)
        return _local(place, picked, submitted)
    if place.backend == "slurm":
        number = runs_slurm.submit(folder, entries, chosen, needs)
        submitted(number)
        print(f"{folder.name}: Slurm job {number}", flush=True)
    else:
        dependencies.wait(place.after, poll)
        for run, run_spec in picked:
            one = runs_kubernetes.submit(run, run_spec, attempts[run])
            submitted(one, [run])
            print(f"{run_spec.id}: JobSet {one}", flush=True)
    if not wait:
        print(f"`submit.py status {folder.name}` says how far it is", flush=True)
        return errors.EXIT_OK
    return status.wait(folder, runs, poll)


def _picked(entries: Entries, chosen: Sequence[int]) -> Entries:
    return [entries[i - 1] for i in chosen] if chosen else list(entries)


def _local(place: Place, picked: Entries, submitted: Callable[[str], None]) -> int:
    codes = runs_local.execute(
        place.root,
        picked,
        submitted,
        at_a_time=place.options.get("max_parallel") or 1,
        ready=lambda: not dependencies.pending(place.after),
    )
    for run, code in codes.items():
        if code:
            said = status.why(run)
            print(f"{spec.read(run).id}: {said}", flush=True)
    return runs_local.exit_code(list(codes.values()))
