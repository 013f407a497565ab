"""Runs jobs as processes on this machine, to test a job before submitting it or to train here."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launch.jobs import folders, outcome, processes, progress
from launch.jobs.outcome import State
from launch.jobs.record import Submission, launch
from launch.jobs.spec import Resources
from launch.schedulers import base
from launch.schedulers.base import Capabilities, Dependencies, Job, Submitted
from launch.schedulers.local import executor, gpu_locks


class Local(base.Scheduler):
    """See `base.Scheduler`."""

    capabilities = Capabilities(foreground=True)
    flags = (base.GPUS, base.PROCESSES, base.CPU_DEVICES, base.MAX_PARALLEL)
    python = sys.executable

    def options(
        self,
        given: Mapping[str, Any],
        profile: Mapping[str, Any],
        resources: Resources,
        *,
        array: int | None,
    ) -> dict[str, Any]:
        """See `base.Scheduler`."""
        if resources.gpus:
            gpu_locks.check(resources.gpus)
        return {"max_parallel": given.get("max_parallel")}

    def render(self, job: Job) -> str:
        """Returns the commands in shell syntax, one per line."""
        elements = [*job.chosen, *([job.finalize] if job.finalize else [])]
        return "\n".join(shlex.join(e.spec.command) for e in elements)

    def submit(self, job: Job, after: Dependencies, submitted: Submitted) -> Mapping[Path, int]:
        """Runs everything to its end.

        Raises:
          Preempted: on SIGTERM; the processes were stopped and saved their state.
          KeyboardInterrupt: on Ctrl-C; the same.
        """
        return executor.execute(job, submitted, ready=after.ready)

    def states(self, submitted: Mapping[Path, Submission]) -> dict[Path, State]:
        """See `base.Scheduler`."""
        return {folder: _state(folder, entry) for folder, entry in submitted.items()}

    def cancel(self, submitted: Mapping[Path, Submission]) -> str:
        """Lets the submitting process stop the workers; if it is gone, stops them itself."""
        for folder, entry in submitted.items():
            if executor.abandoned(entry.job):
                _stop_workers(folder, entry.attempt)
        return f"asked {len(submitted)} to stop"

    def logs(self, folder: Path, submitted: Submission) -> str:
        """See `base.Scheduler`."""
        return base.read_log(launch(folder) / "job.log")


def _state(folder: Path, submitted: Submission) -> State:
    if outcome.exit_code(folder) is not None:
        return outcome.recorded(folder, submitted)
    if not executor.running(folders.root(folder), submitted.job):
        return outcome.recorded(folder, submitted)
    started = outcome.started(folder, submitted)
    return State(outcome.RUNNING if started else outcome.WAITING)


def _stop_workers(folder: Path, attempt: int) -> None:
    events = [e for e in progress.events(folder) if e.get("attempt") == attempt]
    ended = [e.get("pid") for e in events if e["event"] == "ended"]
    for event in events:
        here = event["event"] == "started" and event.get("host") == progress.host()
        if here and event.get("pid") not in ended:
            processes.terminate(event.get("pid"), event.get("start"), "launch.jobs.worker")
