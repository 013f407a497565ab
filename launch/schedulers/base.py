"""The protocol of a scheduler, and its inputs: `Job`, `Element`, `Dependencies`."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from a2fjax import budgets
from a2fjax.errors import InputError, WorkFailed
from launch.jobs.outcome import State
from launch.jobs.record import Submission
from launch.jobs.spec import JobSpec, Resources


class NotInstalled(InputError):
    """A program of the cluster is not installed on this machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Properties of a scheduler that the rest of `launch` depends on.

    Attributes:
      foreground: jobs run on this machine, and `submit` returns when all have ended.
      remote: paths are those of containers, which this machine cannot check.
      queues_dependencies: a submitted job waits for its dependencies; else `submit.py` waits.
      requeues: stopped and preempted elements restart without the user.
      starts_finalize: the last command of an array starts automatically when the elements have
        ended; else `submit.py wait` starts it.
      partial_arrays: an array can be submitted again with only some of its elements.
      several_nodes: an element may span several machines.
    """

    foreground: bool = False
    remote: bool = False
    queues_dependencies: bool = False
    requeues: bool = False
    starts_finalize: bool = True
    partial_arrays: bool = True
    several_nodes: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """A command-line option of a scheduler; `name` "array_limit" is the flag --array-limit.

    Attributes:
      name: key of the option.
      help: text of `--help`.
      kind: str, int, or bool for a flag without a value.
      least: smallest valid int.
      repeated: whether the flag may be repeated; its value is a list.
      metavar: as in argparse.
      runs: whether runs support it.
      arrays: whether builds and caches support it.
    """

    name: str
    help: str
    kind: type = str
    least: int = 1
    repeated: bool = False
    metavar: str | None = None
    runs: bool = True
    arrays: bool = True

    @property
    def flag(self) -> str:
        """The flag of the command line."""
        return f"--{self.name.replace('_', '-')}"


LOG_MB = 16.0
"""Most that is shown of a log."""

NODES = Option(name="nodes", help="machines of a run (default 1)", kind=int, arrays=False)
GPUS = Option(name="gpus", help="GPUs of each machine", kind=int, least=0, arrays=False)
PROCESSES = Option(name="processes", help="processes on each machine", kind=int, arrays=False)
CPU_DEVICES = Option(
    name="cpu_devices", help="JAX devices of each process without GPUs", kind=int, arrays=False
)
LAYOUT = Option(name="layout", help="processes: per-node (default) or per-gpu", arrays=False)
CPUS = Option(name="cpus", help="cores of each machine or element", kind=int)
MEM = Option(name="mem", help="memory of each machine or element, such as 64G")
TIME = Option(name="time", help="time limit, such as 24:00:00 or 24h")
MAX_PARALLEL = Option(
    name="max_parallel", help="runs of a sweep, or elements, at a time (local: 1)", kind=int
)
"""Options that several schedulers share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Element:
    """A unit of execution: a run, a trial, an element of an array or its last command.

    Attributes:
      folder: folder of its state; `python -m launch.jobs.worker FOLDER` runs it.
      spec: its specification.
      attempt: number of the submission, from 1.
      index: index in the array of its job, from 1; None for a separate job.
    """

    folder: Path
    spec: JobSpec
    attempt: int
    index: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Work that is submitted together: a run, trials of a sweep, or an array.

    Attributes:
      folder: folder of the run, sweep or array; `launch(folder)` holds the scheduler's files.
      root: folder of all runs; for an array, its own folder.
      name: name that is valid for queues and DNS.
      spec: specification shared by the elements; for an array, the specification of the array.
      elements: all elements, by index.
      chosen: elements to run this time.
      finalize: the last command of an array; it runs when the elements have ended, successfully
        or not.
    """

    folder: Path
    root: Path
    name: str
    spec: JobSpec
    elements: tuple[Element, ...]
    chosen: tuple[Element, ...]
    finalize: Element | None = None

    @property
    def indices(self) -> list[int]:
        """Indices of the chosen elements; [] for a single run."""
        return [e.index for e in self.chosen if e.index is not None]


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """Work that must have ended before a job starts.

    Attributes:
      queued: condition ("ok" or "any") -> submissions of the same scheduler; empty unless it
        queues dependencies.
      ready: returns whether everything has ended; raises if work failed that had to succeed. A
        foreground scheduler calls it before it starts anything.
    """

    queued: Mapping[str, Sequence[Submission]]
    ready: Callable[[], bool]


Submitted = Callable[[str, Sequence[Element]], None]
"""Records the scheduler's name of the job of some elements."""


class Scheduler(Protocol):
    """Runs jobs. `launch.schedulers.local` is the shortest implementation.

    Attributes:
      capabilities: see `Capabilities`.
      flags: command-line options of the scheduler.
      python: default interpreter of the jobs.
    """

    capabilities: Capabilities
    flags: Sequence[Option]
    python: str

    def profile(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the defaults for this scheduler in a site's profile, by option name."""
        return {}

    def options(
        self,
        given: Mapping[str, Any],
        profile: Mapping[str, Any],
        resources: Resources,
        *,
        array: int | None,
    ) -> dict[str, Any]:
        """Checks options and returns everything that the scheduler needs later, as JSON.

        Args:
          given: options of the command line by name.
          profile: defaults as returned by `profile`, or the options of an earlier submission.
          resources: resources of one element.
          array: number of elements of an array; None for runs.

        Raises:
          InputError: one is missing, has the wrong form, or fits no machine.
        """
        ...

    def contained(self, options: Mapping[str, Any]) -> bool:
        """Returns whether jobs run in an image with its own interpreter and packages."""
        return self.capabilities.remote

    def with_paths(
        self, options: Mapping[str, Any], reads: Sequence[str], writes: Sequence[str]
    ) -> dict[str, Any]:
        """Checks that jobs can see paths; returns the options with what makes them visible.

        Args:
          options: as `options` returned them.
          reads: absolute paths that jobs read.
          writes: absolute paths that jobs write.

        Raises:
          InputError: one cannot be seen or written.
        """
        return dict(options)

    def check(self, job: Job) -> None:
        """Checks a job before anything of its last attempt is removed.

        Raises:
          InputError, WorkFailed: the scheduler refuses or does not answer.
        """

    def render(self, job: Job) -> str:
        """Returns the scripts or manifests of a job as text, and nothing else."""
        ...

    def remarks(self, job: Job) -> list[str]:
        """Returns what a person who reads `render`'s text should know, one line each.

        Raises:
          InputError: the scheduler was asked and refuses the job.
        """
        return []

    def submit(
        self, job: Job, after: Dependencies, submitted: Submitted
    ) -> Mapping[Path, int] | None:
        """Submits a job.

        Args:
          job: job to submit.
          after: dependencies of the job.
          submitted: called with the name of the job as soon as it can be cancelled.

        Returns:
          Exit codes by folder if the job runs in the foreground, else None.

        Raises:
          InputError, WorkFailed: the scheduler refuses or does not answer.
        """
        ...

    def finalize(self, job: Job) -> None:
        """Starts the last command of an array once; does nothing if it starts automatically."""

    def states(self, submitted: Mapping[Path, Submission]) -> dict[Path, State]:
        """Returns the states of runs and elements by folder.

        Raises:
          InputError: the scheduler's programs are not on this machine.
          WorkFailed: the scheduler does not answer.
        """
        ...

    def cancel(self, submitted: Mapping[Path, Submission]) -> str:
        """Stops runs and elements, whose `launch/cancelled` files exist; returns a message."""
        ...

    def logs(self, folder: Path, submitted: Submission) -> str:
        """Returns the scheduler's output of a run or element that has no log.

        Raises:
          InputError: nothing yet.
        """
        ...


def call(
    argv: Sequence[str], *, missing: str, stdin: str | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs a program of the cluster; the caller judges a non-zero exit code.

    Raises:
      NotInstalled: it is not installed; the message ends with `missing`.
      WorkFailed: it did not answer in time; clients hang when their server is down.
    """
    try:
        return subprocess.run(
            list(argv), input=stdin, capture_output=True, text=True, timeout=seconds, check=False
        )
    except FileNotFoundError:
        raise NotInstalled(f"{argv[0]} is not installed on this machine; {missing}") from None
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"{argv[0]} did not answer within {seconds:g} s; try again") from None


def read_log(path: Path) -> str:
    """Returns the text of a log; of one above `LOG_MB`, its end, with a line that says so.

    Raises:
      InputError: it does not exist.
    """
    if not path.exists():
        raise InputError(f"{path}: no log yet; `submit.py status` shows what runs")
    most = round(LOG_MB * 1e6)
    with budgets.regular_file(path).open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - most, 0))
        text = file.read(most).decode("utf-8", errors="replace")
    if size <= most:
        return text
    return f"(the last {LOG_MB:g} of {size / 1e6:.3g} MB of {path})\n{text}"
