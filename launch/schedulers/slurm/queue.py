"""Calls Slurm's programs: submission, queue states, and the meaning of failed calls."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from a2fjax.errors import InputError, WorkFailed
from launch.jobs import outcome
from launch.jobs.formats import last_line
from launch.jobs.outcome import State
from launch.jobs.record import Submission
from launch.schedulers.base import call

MISSING = "submit from a login node, or see the scripts with --dry-run"
_QUEUED = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "CONFIGURING", "SUSPENDED"}

Id = tuple[str, int | None]
"""A job's number, and the index of an element of its array."""


def states(jobs: Iterable[str]) -> dict[Id, State]:
    """Returns the states of queued and running jobs.

    Raises:
      WorkFailed: the scheduler does not answer.
    """
    numbers = sorted({number for number in jobs if number.isdigit()})
    if not numbers:
        return {}
    argv = ["squeue", "-h", "-r", "-o", "%F|%K|%T|%r", "-j", ",".join(numbers)]
    done = call(argv, missing=MISSING)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise WorkFailed(f"squeue: {last_line(done.stderr)}")
    result: dict[Id, State] = {}
    for line in done.stdout.splitlines():
        number, index, state, reason = line.split("|", 3)
        name = outcome.WAITING if state in _QUEUED else outcome.RUNNING
        waits = name == outcome.WAITING and reason not in ("", "None")
        result[number, int(index) if index.isdigit() else None] = State(
            name, reason if waits else "", blocked=reason == "DependencyNeverSatisfied"
        )
    return result


def cancel(jobs: Sequence[Id]) -> str:
    """Removes jobs from the queue and stops those that run; returns a message.

    Raises:
      WorkFailed: the scheduler does not answer.
    """
    # Cancel single jobs first: a last command would start once the array before it has ended.
    ids = [job_id(*job) for job in sorted(jobs, key=lambda job: (job[1] or 0, job[0]))]
    done = call(["scancel", *ids], missing=MISSING)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise WorkFailed(f"scancel: {last_line(done.stderr)}")
    return f"cancelled Slurm jobs {', '.join(ids)}"


def sbatch(folder: Path, script: Path, arguments: Sequence[str]) -> str:
    """Submits a script that runs in `folder`; returns the job's number.

    Raises:
      InputError, WorkFailed: as `judge`.
    """
    # Use output files relative to the folder, because Slurm would replace "%j" in its path.
    done = call(
        ["sbatch", "--parsable", f"--chdir={folder}", *arguments, str(script)], missing=MISSING
    )
    judge(done)
    number = last_line(done.stdout).split(";")[0]
    if not number.isdigit():
        raise WorkFailed(f"sbatch answered {last_line(done.stdout)!r} instead of a job's number")
    return number


def test_only(script: str, arguments: Sequence[str]) -> str:
    """Has Slurm check a script without submitting it; returns its answer.

    Raises:
      InputError, WorkFailed: as `judge`.
    """
    done = call(["sbatch", "--test-only", *arguments], stdin=script, missing=MISSING)
    judge(done)
    return last_line(done.stderr)


def largest_array(limit: int | None) -> tuple[int | None, str]:
    """Returns the largest array that the site accepts, None where unknown, and its source.

    Args:
      limit: value of --array-limit.
    """
    if limit is not None:
        return limit, "--array-limit"
    done = call(["scontrol", "show", "config"], missing=MISSING)
    judge(done)
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    if match is None:
        return None, ""
    # Slurm's largest index is one less than its limit, and elements count from 1.
    return int(match[1]) - 1, f"this cluster's MaxArraySize={match[1]}"


def job_id(number: str, index: int | None) -> str:
    """Returns Slurm's id of a job or an element of an array."""
    return number if index is None else f"{number}_{index}"


def dependency(queued: dict[str, list[Submission]]) -> list[str]:
    """Returns sbatch's option for dependencies by condition, or []."""
    words = [
        f"after{condition}:{':'.join(job_id(s.job, s.index) for s in jobs)}"
        for condition, jobs in queued.items()
        if jobs
    ]
    return [f"--dependency={','.join(words)}"] if words else []


def judge(done: subprocess.CompletedProcess[str]) -> None:
    """Raises the error for a failed call.

    Raises:
      InputError: the scheduler refuses.
      WorkFailed: it does not answer.
    """
    if not done.returncode:
        return
    name = Path(done.args[0]).name
    if re.search(
        "contact slurm controller|timed out|Connection refused|configuration source",
        done.stderr,
        re.I,
    ):
        raise WorkFailed(f"{name}: {last_line(done.stderr)}")
    raise InputError(f"{name} refuses: {last_line(done.stderr)}")
