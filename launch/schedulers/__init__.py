"""Where jobs run: a module a place, each with the functions of `Backend`."""

from __future__ import annotations

import importlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from a2fjax.errors import InputError, WorkFailed, nearest
from launch.jobs.array_spec import Record, Spec

NAMES = ("local", "slurm", "kubernetes")
Id = tuple[str, int | None]
"""A job of Slurm: its number, and its place in an array."""

After = Mapping[str, Sequence[Id]]
"""Condition ("ok" or "any") -> jobs that must have ended so."""


class NotInstalled(InputError):
    """A program of the cluster is not on this machine."""


class Backend(Protocol):
    """What a backend module offers. `base` is the folder of the record.

    See `launch.jobs.array_spec`.
    """

    OPTIONS: frozenset[str]
    """The command line's options that it understands."""

    PYTHON: str
    """The interpreter that runs there, unless one is given."""

    def options(self, given: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
        """Checks options and returns all of them, as JSON.

        Raises:
          InputError: one is missing or of the wrong form.
        """
        ...

    def render(self, record: Record, base: Path) -> str:
        """Returns what would be handed over, as text, and has it checked where that is possible."""
        ...

    def submit(self, record: Record, base: Path, after: After) -> Record:
        """Hands over; returns the record with the names of the jobs.

        The record is on disk as soon as there is something that could be cancelled. `after` is
        what the queue has to wait for; a backend that cannot is called when that has ended.
        """
        ...

    def states(self, record: Record, base: Path) -> dict[int | str, str]:
        """Returns the state of every part, and of "finish", of `launch.jobs.array_spec.STATES`."""
        ...

    def finish(self, record: Record, base: Path) -> Record:
        """Starts the last command where the backend does not do so by itself."""
        ...

    def cancel(self, record: Record, base: Path) -> str:
        """Ends what runs or waits; returns what was done, in words."""
        ...

    def log(self, record: Record, base: Path, which: int | str) -> str:
        """Returns the log of a part or of "finish"."""
        ...


def get(name: str) -> Backend:
    """Returns a backend.

    Raises:
      InputError: there is none of this name.
    """
    if name not in NAMES:
        raise InputError(f"--backend {name}{nearest(name, NAMES)}")
    return cast(Backend, importlib.import_module(f"launch.schedulers.{name}.array"))


def call(
    argv: Sequence[str], *, missing: str, stdin: str | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs a program of the cluster; a non-zero exit code is the caller's to judge.

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


def last_line(text: str) -> str:
    """Returns the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def read_log(path: Path) -> str:
    """Returns a log's text.

    Raises:
      InputError: it is not there.
    """
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path}: no log yet; `submit.py status` says what runs") from None
