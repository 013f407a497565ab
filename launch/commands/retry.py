"""The command `retry`: reruns the unsuccessful parts of a run, sweep or array."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from a2fjax import configuration, errors
from launch import schedulers
from launch.commands import monitor
from launch.commands.arrays import check_idle
from launch.jobs import folders, outcome, record
from launch.jobs.spec import JobSpec
from launch.monitor import states
from launch.submission import preflight, target
from launch.submission import submit as submission

Release = Callable[[], None]


def retry(args: argparse.Namespace) -> int:
    """Runs `retry`; returns the exit code.

    Raises:
      InputError, WorkFailed: as `target.again` and the scheduler.
    """
    folder = monitor.find(args)
    if record.is_array(folder):
        with folders.exclusive(folder, "array", dry_run=args.dry_run) as release:
            return _array(args, folder, release)
    with folders.exclusive(*folders.named(folder), dry_run=args.dry_run) as release:
        return _runs(args, folder, release)


def _array(args: argparse.Namespace, folder: Path, release: Release) -> int:
    members = record.members(folder)
    current = states.query(members)
    indices = [i for i, m in enumerate(members[:-1], 1) if current[m].name != outcome.DONE]
    spec = record.read(folder)
    if not indices and current[members[-1]].name == outcome.DONE:
        print(f"{spec.id}: all is done")
        return errors.EXIT_OK
    check_idle(folder)
    again = target.again(args, spec, folder)
    if not schedulers.get(again.scheduler).capabilities.partial_arrays:
        indices = list(range(1, spec.elements + 1))  # finished elements end immediately
    job = submission.array_job(folder, again, indices)
    return submission.submit_with_flags(args, job, release)


def _runs(args: argparse.Namespace, folder: Path, release: Release) -> int:
    runs = record.members(folder)
    current = states.query(runs)
    bad = [run for run in runs if current[run].name in outcome.WRONG]
    if not bad:
        active = sum(s.active for s in current.values())
        print(f"{folder.name}: {f'{active} run or wait' if active else 'all is done'}")
        return errors.EXIT_OK
    entries: list[tuple[Path, JobSpec]] = []
    # The trials of one array share resources, options and code, but the parts of a sweep that grew
    # may have been submitted with different ones.
    alike: dict[str, list[int]] = {}
    for index, run in enumerate(runs, 1):
        spec = record.read(run)
        if run in bad:
            spec = target.again(args, spec, run)
            if spec.config is not None:
                pinned = configuration.from_json(json.dumps(spec.config))
                preflight.batch(pinned.config, spec.resources)
            shared = (
                *(spec.scheduler, spec.resources, spec.options, spec.directory),
                *(spec.python, spec.snapshot, spec.environment),
            )
            alike.setdefault(repr(shared), []).append(index)
        entries.append((run, spec))
    codes = []
    for indices in alike.values():
        trials = indices if record.is_sweep(folder) else None
        job = submission.run_job(folder, folders.root(runs[0]), entries, trials)
        codes.append(submission.submit_with_flags(args, job, release))
    return outcome.worst(codes)
