"""Dependencies of a job: runs, sweeps, builds and caches that must end before it starts."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from a2fjax.errors import InputError, nearest
from launch import schedulers
from launch.jobs import folders, outcome, record
from launch.jobs.record import Submission
from launch.monitor import states
from launch.schedulers.base import Dependencies

CONDITIONS = ("ok", "any")
"""Whether the dependency must succeed, or only end."""


@dataclasses.dataclass(frozen=True)
class Dependency:
    """A run, or the last command of an array, that a job waits for.

    Attributes:
      name: name for messages.
      state: one of `outcome.STATES`.
      submitted: its last submission; None if it was never submitted.
    """

    name: str
    state: str
    submitted: Submission | None

    @property
    def active(self) -> bool:
        """True while it runs or waits."""
        return self.state in outcome.ACTIVE


def check(given: Sequence[str], root: str | Path) -> tuple[str, ...]:
    """Returns the `--after` values with names resolved to paths and explicit conditions.

    Args:
      given: RUN, SWEEP or SWEEP/TRIAL (names below ROOT or paths), or the output folder of a build
        or cache, or its `--record`; optionally followed by ":ok" or ":any".
      root: folder of all runs.

    Raises:
      InputError: nothing of that name was submitted, or the condition is unknown.
    """
    result = []
    for text in given:
        name, _, condition = text.rpartition(":")
        if not name or (condition not in CONDITIONS and _path(text, root)):
            name, condition = text, "ok"
        if condition not in CONDITIONS:
            raise InputError(f"--after {text}: {condition!r}{nearest(condition, CONDITIONS)}")
        path = _path(name, root)
        if path is None and Path(name).exists():
            raise InputError(
                f"--after {text}: nothing was submitted that fills this folder (give its --record "
                "where that is another)"
            )
        result.append(f"{path or folders.find(name, root)}:{condition}")
    return tuple(result)


def named(text: str) -> list[Dependency]:
    """Returns the dependencies for a text returned by `check`.

    Raises:
      InputError, WorkFailed: files are damaged, or the scheduler does not answer.
    """
    folder = Path(text.rpartition(":")[0])
    array = _array(folder)
    if array is not None:
        members, names = [record.finalize(array)], [folder.name]
    else:
        members = record.members(folder)
        names = [record.read(run).id for run in members]
    current, submitted = states.query(members), record.submissions(members)
    return [
        Dependency(name, current[member].name, submitted[member])
        for name, member in zip(names, members, strict=True)
    ]


def pending(after: Sequence[str]) -> list[tuple[str, Dependency]]:
    """Returns the unfinished dependencies, each with its condition.

    Raises:
      InputError: a dependency failed although it had to succeed.
    """
    result = []
    for text in after:
        folder, _, condition = text.rpartition(":")
        for dependency in named(text):
            if dependency.active:
                result.append((condition, dependency))
            elif condition == "ok" and dependency.state != outcome.DONE:
                name = Path(folder).name
                raise InputError(
                    f"--after {name}: {dependency.name} is {dependency.state}; mend it, or give "
                    f"--after {name}:any"
                )
    return result


def wait(after: Sequence[str], poll: float) -> None:
    """Waits for dependencies in this process, for schedulers that do not queue them.

    Raises:
      InputError: as `pending`.
    """
    shown = ""
    while unfinished := pending(after):
        line = ", ".join(dependency.name for _, dependency in unfinished)
        if line != shown:
            print(f"waits for {line}", flush=True)
            shown = line
        time.sleep(poll)


def resolve(after: Sequence[str], scheduler: str) -> Dependencies:
    """Returns dependencies in the form that schedulers accept.

    Raises:
      InputError: one failed, or runs on another scheduler than the one that queues.
    """
    queued: dict[str, list[Submission]] = {condition: [] for condition in CONDITIONS}
    unfinished = pending(after)
    if schedulers.get(scheduler).capabilities.queues_dependencies:
        for condition, dependency in unfinished:
            submitted = dependency.submitted
            if submitted is None or submitted.scheduler != scheduler or not submitted.job:
                other = "another machine" if submitted is None else submitted.scheduler
                raise InputError(
                    f"--after {dependency.name}: runs on {other}, for which {scheduler} cannot "
                    "wait; submit when it has ended"
                )
            queued[condition].append(submitted)
    return Dependencies(queued, ready=lambda: not pending(after))


def unfilled(after: Sequence[str]) -> frozenset[str]:
    """Returns real paths of the folders that pending builds and caches in `after` will fill."""
    result = []
    for text in after:
        array = _array(Path(text.rpartition(":")[0]))
        if array is not None and any(d.state != outcome.DONE for d in named(text)):
            output = record.read(array).output
            if output is not None:
                result.append(os.path.realpath(output))
    return frozenset(result)


def _path(name: str, root: str | Path) -> Path | None:
    folder = folders.lookup(name, root)
    if folder is not None:
        return folder
    return Path(name).absolute() if name and folders.lookup_array(name) is not None else None


def _array(folder: Path) -> Path | None:
    return folders.lookup_array(str(folder))
