"""Runs jobs on Slurm: a run is a job, a sweep or build an array, a last command a dependent job.

submitit is not used: see docs/architecture.md. Exit codes are stored in files, because `sacct`
needs a database that many sites do not run. Jobs that were asked to stop (exit code 75, preemption,
the notice before the time limit) return to the queue automatically; cancelled jobs do not.
`launch.jobs.requeue` decides.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed
from launch.jobs import outcome
from launch.jobs.outcome import State
from launch.jobs.record import Submission, launch
from launch.jobs.spec import Resources
from launch.schedulers import base
from launch.schedulers.base import Capabilities, Dependencies, Job, NotInstalled, Option, Submitted
from launch.schedulers.slurm import containers, queue, script

_TOKENS = ("partition", "account", "qos", "constraint")
_TOKEN = re.compile(r"[^\s\0'\"\\]+")
_SBATCH = "sbatch"


class Slurm(base.Scheduler):
    """See `base.Scheduler`."""

    capabilities = Capabilities(queues_dependencies=True, requeues=True, several_nodes=True)
    flags = (
        base.NODES,
        base.GPUS,
        base.PROCESSES,
        base.CPU_DEVICES,
        base.LAYOUT,
        base.CPUS,
        base.MEM,
        base.TIME,
        base.MAX_PARALLEL,
        *(Option(name=name, help="as of sbatch") for name in _TOKENS),
        *containers.FLAGS,
        Option(name="array_limit", help="largest array, instead of asking Slurm", kind=int),
        Option(name=_SBATCH, help="further option of sbatch", repeated=True, metavar="OPTION"),
    )
    python = sys.executable

    def profile(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """See `base.Scheduler`; the top level of a profile holds Slurm's options."""
        return {k: v for k, v in values.items() if not isinstance(v, dict)}

    def options(
        self,
        given: Mapping[str, Any],
        profile: Mapping[str, Any],
        resources: Resources,
        *,
        array: int | None,
    ) -> dict[str, Any]:
        """See `base.Scheduler`."""
        values = {name: given.get(name, profile.get(name)) for name in (*_TOKENS, "array_limit")}
        for name in _TOKENS:
            if values[name] is not None and not _TOKEN.fullmatch(values[name]):
                raise InputError(
                    f"--{name} {values[name]!r}: expected a name without spaces or quotes"
                )
        values["max_parallel"] = given.get("max_parallel")
        values["sbatch"] = [*profile.get("sbatch", []), *(given.get("sbatch") or [])]
        for extra in values["sbatch"]:
            if not extra.startswith("--") or extra.startswith(("--array", "--output", "--chdir")):
                raise InputError(
                    f"--sbatch={extra}: expected an option of sbatch, such as --exclusive"
                )
        values["srun"] = profile.get("srun", [])
        values |= containers.options({**profile, **given})
        values["setup"] = profile.get("setup", [])
        values["gpu_option"] = profile.get("gpu_option", "gpus-per-node")
        values["gpu_type"] = profile.get("gpu_type")
        values["notice_seconds"] = profile.get("notice_seconds", script.NOTICE_SECONDS)
        return values

    def contained(self, options: Mapping[str, Any]) -> bool:
        """See `base.Scheduler`."""
        return bool(options.get("container_image"))

    def with_paths(
        self, options: Mapping[str, Any], reads: Sequence[str], writes: Sequence[str]
    ) -> dict[str, Any]:
        """See `base.Scheduler`; a container gets a mount for each path."""
        if not self.contained(options):
            return dict(options)
        return {**options, "container_paths": containers.mounted([*reads, *writes])}

    def check(self, job: Job) -> None:
        """See `base.Scheduler`."""
        _check(job)

    def render(self, job: Job) -> str:
        """Returns the script of the elements, and behind it that of an array's last command."""
        scripts = [script.of_elements(job)] if job.chosen else []
        if job.finalize is not None:
            scripts.append(script.of_finalize(job))
        return "\n".join(scripts)

    def remarks(self, job: Job) -> list[str]:
        """Returns Slurm's check of the first script if Slurm is installed."""
        lines = []
        if job.finalize is not None and job.chosen:
            lines.append("the second script is submitted with --dependency=afterany:ARRAY")
        try:
            return [*lines, _check(job)]
        except (NotInstalled, WorkFailed) as error:
            return [*lines, f"sbatch --test-only was not run: {error}"]

    def submit(self, job: Job, after: Dependencies, submitted: Submitted) -> None:
        """See `base.Scheduler`."""
        folder, number = launch(job.folder), ""
        queued = {how: list(jobs) for how, jobs in after.queued.items()}
        extra = (job.chosen or job.elements)[0].spec.options["sbatch"]
        if job.chosen:
            files.write_text(folder / "job.sh", script.of_elements(job), mode=files.PRIVATE)
            output = f"--output={'job-%a.log' if job.indices else 'job.log'}"
            arguments = [output, *queue.dependency(queued), *extra]
            number = queue.sbatch(folder, folder / "job.sh", arguments)
            submitted(number, job.chosen)
        if job.finalize is None:
            return
        if number:
            array = Submission(scheduler="slurm", job=number, index=None, attempt=1, time="")
            queued = {"any": [array]}
        try:
            files.write_text(folder / "finalize.sh", script.of_finalize(job), mode=files.PRIVATE)
            arguments = ["--output=finalize.log", *queue.dependency(queued), *extra]
            last = queue.sbatch(folder, folder / "finalize.sh", arguments)
        except (InputError, WorkFailed):
            if number:
                queue.cancel([(number, None)])
            raise
        submitted(last, [job.finalize])

    def states(self, submitted: Mapping[Path, Submission]) -> dict[Path, State]:
        """See `base.Scheduler`."""
        queued = queue.states(entry.job for entry in submitted.values())
        return {
            folder: queued.get((entry.job, entry.index)) or outcome.recorded(folder, entry)
            for folder, entry in submitted.items()
        }

    def cancel(self, submitted: Mapping[Path, Submission]) -> str:
        """See `base.Scheduler`."""
        return queue.cancel([(entry.job, entry.index) for entry in submitted.values()])

    def logs(self, folder: Path, submitted: Submission) -> str:
        """Returns the output of the job's script."""
        if submitted.index is not None:
            jobs = folder.parent.parent if folder.parent.name == "elements" else folder.parent
            return base.read_log(launch(jobs) / f"job-{submitted.index}.log")
        if folder.name == "finalize":
            return base.read_log(launch(folder.parent) / "finalize.log")
        return base.read_log(launch(folder) / "job.log")


def _check(job: Job) -> str:
    lead = (job.chosen or job.elements)[0].spec
    if job.indices:
        limit, source = queue.largest_array(lead.options["array_limit"])
        if limit is not None and len(job.elements) > limit:
            many = f"--elements {len(job.elements)}: {source} takes at most {limit}"
            if job.finalize is None:
                many = f"--sweep: {len(job.elements)} runs: {source} takes at most {limit}"
            else:
                many += f"; use --elements {limit}"
            raise InputError(many)
    text = script.of_elements(job) if job.chosen else script.of_finalize(job)
    return queue.test_only(text, lead.options["sbatch"])
