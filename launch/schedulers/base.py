"""The protocol of a scheduler, and what it is given: `Job`, `Element`, `Dependencies`."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from a2fjax.errors import InputError, WorkFailed
from launch.jobs.outcome import State
from launch.jobs.record import Submission
from launch.jobs.spec import JobSpec, Resources


class NotInstalled(InputError):
    """A program of the cluster is not on this machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capabilities:
    """Properties of a scheduler that the rest of `launch` depends on.

    Attributes:
      foreground: jobs run on this machine, and `submit` returns when all have ended.
      remote: paths are those of containers, which this machine cannot check.
      queues_dependencies: a submitted job waits for its dependencies; else `submit.py` waits.
      requeues: stopped and preempted elements start again without the user.
      starts_finalize: the last command of an array starts by itself when the elements have ended;
        else `submit.py wait` starts it.
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
      name: key among the options given.
      help: text of `--help`.
      kind: str or int.
      least: smallest valid int.
      repeated: whether the flag may be repeated; its value is a list.
      metavar: as of argparse.
      runs: whether runs have it.
      arrays: whether builds and caches have it.
    """

    name: str
    help: str
    kind: type = str
    least: int = 1
    repeated: bool = False
    metavar: str | None = None
    runs: bool = True
    arrays: bool = True


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
    """One thing that runs: a run, a trial, an element of an array or its last command.

    Attributes:
      folder: its state: `python -m launch.jobs.worker FOLDER` runs it.
      spec: its specification.
      attempt: counts its submissions from 1.
      index: place in the array of its job, from 1; None for a job of its own.
    """

    folder: Path
    spec: JobSpec
    attempt: int
    index: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """Work that is submitted at once: a run, trials of a sweep, or an array.

    Attributes:
      folder: of the run, sweep or array; files of the scheduler belong into `launch(folder)`.
      root: folder of all runs; of an array its own folder.
      name: valid for queues and DNS.
      spec: what its elements have in common; of an array the array's own specification.
      elements: all elements, by index.
      chosen: those to run this time.
      finalize: the last command of an array; it runs when the elements have ended, whatever
        became of them.
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
        """Indices of the chosen elements; [] for a run alone."""
        return [e.index for e in self.chosen if e.index is not None]


@dataclasses.dataclass(frozen=True)
class Dependencies:
    """Work that must have ended before a job starts.

    Attributes:
      queued: condition ("ok" or "any") -> submissions of the same scheduler; empty unless it
        queues dependencies.
      ready: whether everything has ended; raises where something ended badly that must not. A
        scheduler that runs in the foreground asks before it starts anything.
    """

    queued: Mapping[str, Sequence[Submission]]
    ready: Callable[[], bool]


Submitted = Callable[[str, Sequence[Element]], None]
"""Records the scheduler's name of the job of some elements."""


class Scheduler(Protocol):
    """Runs jobs somewhere. `launch.schedulers.local` is the shortest implementation to read.

    Attributes:
      capabilities: see `Capabilities`.
      flags: its command-line options.
      python: interpreter of the jobs unless one is given.
    """

    capabilities: Capabilities
    flags: Sequence[Option]
    python: str

    def profile(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the defaults that a site's profile holds for this scheduler, by option name."""
        return {}

    def options(
        self,
        given: Mapping[str, Any],
        profile: Mapping[str, Any],
        resources: Resources,
        *,
        array: int | None,
    ) -> dict[str, Any]:
        """Checks options and returns all that the scheduler needs later, as JSON.

        Args:
          given: options of the command line by name.
          profile: defaults, as `profile` returned them, or the options of an earlier submission.
          resources: of one element.
          array: elements of an array; None for runs.

        Raises:
          InputError: one is missing, has the wrong form, or fits no machine.
        """
        ...

    def check_paths(
        self, options: Mapping[str, Any], reads: Sequence[str], writes: Sequence[str]
    ) -> None:
        """Checks that jobs can see paths.

        Raises:
          InputError: one cannot be seen or written.
        """

    def check(self, job: Job) -> None:
        """Checks a job before anything of its last attempt is removed.

        Raises:
          InputError, WorkFailed: the scheduler refuses or does not answer.
        """

    def render(self, job: Job) -> str:
        """Returns what would be submitted, as text; has it checked where that is possible."""
        ...

    def submit(
        self, job: Job, after: Dependencies, submitted: Submitted
    ) -> Mapping[Path, int] | None:
        """Submits a job.

        Args:
          job: what to submit.
          after: its dependencies.
          submitted: to be called with the name of the job as soon as it can be cancelled.

        Returns:
          Exit codes by folder where the job runs in the foreground, else None.

        Raises:
          InputError, WorkFailed: the scheduler refuses or does not answer.
        """
        ...

    def finalize(self, job: Job) -> None:
        """Starts the last command of an array once; nothing where it starts by itself."""

    def states(self, submitted: Mapping[Path, Submission]) -> dict[Path, State]:
        """Returns the states of runs and elements by folder.

        Raises:
          InputError: the scheduler's programs are not on this machine.
          WorkFailed: the scheduler does not answer.
        """
        ...

    def cancel(self, submitted: Mapping[Path, Submission]) -> str:
        """Stops runs and elements; their files `launch/cancelled` exist. Returns a message."""
        ...

    def logs(self, folder: Path, submitted: Submission) -> str:
        """Returns what the scheduler kept of a run or element, for one without a log of its own.

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
      WorkFailed: it did not answer; clients hang for long when their server is down.
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
    """Returns the text of a log.

    Raises:
      InputError: it does not exist.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path}: no log yet; `submit.py status` shows what runs") from None
