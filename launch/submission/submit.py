"""Submits jobs; all files are written before anything is queued."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from a2fjax import errors
from launch import schedulers
from launch.jobs import formats, outcome, progress, record, requeue
from launch.jobs.record import Submission
from launch.jobs.spec import JobSpec
from launch.monitor import causes
from launch.monitor.wait import wait as wait_for
from launch.schedulers.base import Element, Job
from launch.submission import dependencies, paths, secrecy

Entries = Sequence[tuple[Path, JobSpec]]


def run_job(folder: Path, root: Path, entries: Entries, indices: Sequence[int] | None) -> Job:
    """Returns the job of a run or of trials of a sweep.

    Args:
      folder: folder of the run or the sweep.
      root: folder of all runs.
      entries: the run, or all trials of the sweep in its order, with their specifications.
      indices: indices into `entries` to run, from 1; None for a single run.
    """
    submitted = record.submissions(path for path, _ in entries)
    picked = range(len(entries)) if indices is None else [i - 1 for i in indices]
    seen = paths.visible([entries[i][1] for i in picked], [str(root)])
    entries = list(entries)
    for i, spec in zip(picked, seen, strict=True):
        entries[i] = (entries[i][0], spec)
    elements = tuple(
        Element(
            folder=path,
            spec=spec,
            attempt=_attempt(submitted[path]),
            index=None if indices is None else index,
        )
        for index, (path, spec) in enumerate(entries, 1)
    )
    chosen = elements if indices is None else tuple(elements[i - 1] for i in indices)
    return Job(
        folder=folder,
        root=root,
        name=formats.slug(folder.name, str(folder)),
        spec=chosen[0].spec,
        elements=elements,
        chosen=chosen,
    )


def array_job(folder: Path, spec: JobSpec, indices: Sequence[int], *, again: bool = True) -> Job:
    """Returns the job of a build or cache.

    Args:
      folder: folder of its record.
      spec: specification of the array, with the options that make its paths visible.
      indices: elements to run, from 1.
      again: whether this is a new attempt rather than the last one.
    """
    before = record.submission(folder)
    attempt = _attempt(before) if again or before is None else before.attempt
    elements = tuple(
        Element(folder=record.element(folder, i), spec=spec.element(i), attempt=attempt, index=i)
        for i in range(1, spec.elements + 1)
    )
    return Job(
        folder=folder,
        root=folder,
        name=spec.name or formats.slug(folder.name, str(folder)),
        spec=spec,
        elements=elements,
        chosen=tuple(elements[i - 1] for i in indices),
        finalize=Element(folder=record.finalize(folder), spec=spec.last(), attempt=attempt),
    )


def _show(job: Job, *, as_json: bool) -> None:
    """Prints the submission and writes nothing; remarks go to standard error."""
    scheduler = schedulers.get(job.spec.scheduler)
    remarks = scheduler.remarks(job)
    if as_json:
        shown = [job.spec] if job.finalize else [e.spec for e in job.chosen]
        texts = [json.dumps(dataclasses.asdict(spec), indent=1) for spec in shown]
        print(texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
    else:
        print(scheduler.render(job).rstrip("\n"))
    if job.finalize is None and not scheduler.capabilities.foreground:
        folder = record.launch(job.chosen[0].folder)
        remarks.append(f"the job reads {folder}, which only a submission without --dry-run writes")
    for line in remarks:
        print(line, file=sys.stderr)


def submit_with_flags(args: argparse.Namespace, job: Job, release: Callable[[], None]) -> int:
    """Submits a job as the flags of a command say; see `submit`."""
    return submit(
        job,
        release=release,
        wait=args.wait,
        poll=args.poll,
        dry_run=args.dry_run,
        as_json=args.json,
    )


def submit(
    job: Job,
    *,
    release: Callable[[], None],
    wait: bool,
    poll: float,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Submits a job; returns the exit code, which is the job's if this waits for it.

    Args:
      job: job to submit.
      release: called once other commands can see that it runs or waits.
      wait: whether to wait for the end; foreground schedulers always do.
      poll: seconds between queries.
      dry_run: whether to show the job and write nothing.
      as_json: whether that shows the specification rather than scripts or manifests.

    Raises:
      InputError, WorkFailed: the scheduler refuses or does not answer, or a dependency failed.
    """
    for each in (job.spec, *(e.spec for e in job.chosen)):
        secrecy.check(each)
    if dry_run:
        _show(job, as_json=as_json)
        return errors.EXIT_OK
    spec, name = job.spec, job.folder.name if job.finalize is None else job.spec.id
    scheduler = schedulers.get(spec.scheduler)
    for variable in spec.passed:
        if variable not in os.environ and not scheduler.capabilities.remote:
            print(f"{name}: {variable} is not set in this environment", flush=True)
    after = dependencies.resolve(spec.after, spec.scheduler)
    capabilities = scheduler.capabilities
    if job.finalize is not None and not capabilities.foreground:
        _wait_for_dependencies(job, poll)
    scheduler.check(job)
    _write(job)
    submitted = _recorder(job, release)
    if capabilities.foreground:
        print(f"{name}: runs here; `submit.py logs {name} -f` shows it", flush=True)
    elif job.finalize is None:
        _wait_for_dependencies(job, poll)
    codes = scheduler.submit(job, after, submitted)
    if codes is not None:
        return _ended(job, codes)
    if not wait:
        print(f"`submit.py status {name}` shows the progress", flush=True)
        return errors.EXIT_OK
    members = [e.folder for e in job.chosen]
    if job.finalize is not None:
        members = [*(e.folder for e in job.elements), job.finalize.folder]
    return wait_for(job.folder, members, poll, finalize=lambda: scheduler.finalize(job))


def _wait_for_dependencies(job: Job, poll: float) -> None:
    if not schedulers.get(job.spec.scheduler).capabilities.queues_dependencies:
        dependencies.wait(job.spec.after, poll)


def _write(job: Job) -> None:
    """Writes specifications and removes the outcome of the last attempt."""
    if job.finalize is not None:
        record.write(job.folder, job.spec)
    for element in [*job.chosen, *([job.finalize] if job.finalize else [])]:
        if job.finalize is None:
            record.write(element.folder, element.spec)
        else:
            record.write_check(element.folder, element.spec)
        requeue.forget(element.folder)
    if job.finalize is None and job.indices:
        record.write_sweep(job.folder, [e.folder.name for e in job.elements])
    # Write it first without a name: a job may start before the scheduler has returned its name.
    time = progress.now()
    if job.finalize is not None:
        blank = _submission(job, job.finalize, "", time)
        record.write_submission(job.folder, dataclasses.replace(blank, finalize=""))
        return
    for element in job.chosen:
        record.write_submission(element.folder, _submission(job, element, "", time))


def _recorder(job: Job, release: Callable[[], None]) -> Callable[[str, Sequence[Element]], None]:
    """Returns a function for schedulers to report the job name of some elements."""
    time = progress.now()
    array = _submission(job, job.finalize, "", time) if job.finalize else None
    announced = not schedulers.get(job.spec.scheduler).capabilities.foreground

    def submitted(name: str, elements: Sequence[Element]) -> None:
        nonlocal array
        if array is None:
            for element in elements:
                entry = _submission(job, element, name, time)
                record.write_submission(element.folder, entry)
        else:
            if any(e.index is not None for e in elements):
                array = dataclasses.replace(array, job=name)
            if any(e.index is None for e in elements):
                array = dataclasses.replace(array, finalize=name)
            record.write_submission(job.folder, array)
        if announced:
            what = _described(job, elements)
            print(f"{what}: {job.spec.scheduler} job {name}", flush=True)
        release()

    return submitted


def _described(job: Job, elements: Sequence[Element]) -> str:
    if len(elements) > 1 or job.finalize is not None:
        what = "finalize" if elements[0].index is None else f"{len(elements)} elements"
        name = job.folder.name if job.finalize is None else job.spec.id
        return f"{name}: {what}"
    return elements[0].spec.id


def _submission(job: Job, element: Element, name: str, time: str) -> Submission:
    return Submission(
        scheduler=job.spec.scheduler,
        job=name,
        index=element.index,
        attempt=element.attempt,
        time=time,
    )


def _attempt(before: Submission | None) -> int:
    return before.attempt + 1 if before else 1


def _ended(job: Job, codes: Mapping[Path, int]) -> int:
    """Prints the failures of a job that ran on this machine; returns its exit code."""
    elements = [job.finalize] if job.finalize else list(job.chosen)
    for element in elements:
        if codes.get(element.folder):
            print(f"{element.spec.id}: {causes.why(element.folder)}", file=sys.stderr)
    return outcome.worst([codes[e.folder] for e in elements if e.folder in codes])
