"""What must have ended before work starts: runs, sweeps, builds of shards, caches of encoders."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

from a2fjax.errors import InputError, nearest
from launch import schedulers
from launch.jobs import array_spec, run_spec
from launch.monitor import status
from launch.schedulers import Id

HOW = ("ok", "any")
"""Conditions: it ended well, or in whatever way."""


@dataclasses.dataclass(frozen=True)
class Work:
    """One thing that is waited for.

    Attributes:
      name: for messages.
      state: of `job.STATES`.
      backend: where it is.
      slurm: its job and place in the array there; None elsewhere.
    """

    name: str
    state: str
    backend: str
    slurm: Id | None

    @property
    def active(self) -> bool:
        """Whether it is at work or waits to be."""
        return self.state in array_spec.ACTIVE


def check(given: Sequence[str], root: str | Path) -> tuple[str, ...]:
    """Returns `--after` with paths in place of names and the condition spelt out.

    Args:
      given: RUN, SWEEP or SWEEP/TRIAL (names below ROOT or paths), or the folder that a build or a
        cache fills, or its `--record`; ":ok" or ":any" may follow.
      root: folder of all runs.

    Raises:
      InputError: nothing of that name was submitted, or no such condition.
    """
    out = []
    for text in given:
        name, _, how = text.rpartition(":")
        if not name or (how not in HOW and _place(text, root)):
            name, how = text, "ok"
        if how not in HOW:
            raise InputError(f"--after {text}: {how!r}{nearest(how, HOW)}")
        place = _place(name, root)
        if place is None and Path(name).exists():
            raise InputError(
                f"--after {text}: nothing was submitted that fills this folder (say its --record "
                "where that is another)"
            )
        out.append(f"{place or run_spec.find(name, root)}:{how}")
    return tuple(out)


def of(text: str) -> list[Work]:
    """Returns what one of `check`'s texts waits for.

    Raises:
      InputError, WorkFailed: files are damaged, or the scheduler does not answer.
    """
    folder = Path(text.rpartition(":")[0])
    base = _base(folder)
    if base is not None:
        record = array_spec.read(base)
        assert record is not None
        last = schedulers.get(record.backend).states(record, base)[array_spec.FINISH]
        number = record.jobs.get(array_spec.FINISH) if record.backend == "slurm" else None
        return [Work(folder.name, last, record.backend, (number, None) if number else None)]
    out = []
    for run, found in status.states(run_spec.runs(folder)).items():
        submitted = run_spec.submission(run)
        backend = submitted.backend if submitted else run_spec.read(run).backend
        at = (submitted.job, submitted.index) if submitted and backend == "slurm" else None
        out.append(Work(run_spec.read(run).id, found.name, backend, at))
    return out


def pending(after: Sequence[str]) -> list[tuple[str, Work]]:
    """Returns what has not ended yet, each with its condition.

    Raises:
      InputError: one has ended badly that should have ended well.
    """
    out = []
    for text in after:
        folder, _, how = text.rpartition(":")
        for work in of(text):
            if work.active:
                out.append((how, work))
            elif how == "ok" and work.state != array_spec.DONE:
                raise InputError(
                    f"--after {Path(folder).name}: {work.name} is {work.state}; mend it, or say "
                    f"--after {Path(folder).name}:any"
                )
    return out


def wait(after: Sequence[str], poll: float) -> None:
    """Waits at the desk, where the backend knows no "after that".

    Raises:
      InputError: as `pending`.
    """
    said = ""
    while found := pending(after):
        line = ", ".join(work.name for _, work in found)
        if line != said:
            print(f"waits for {line}", flush=True)
            said = line
        time.sleep(poll)


def in_vain(after: Sequence[str]) -> str:
    """Returns what has ended badly so that what waits for it never starts, or ""."""
    try:
        pending(after)
    except InputError as error:
        return str(error)
    return ""


def needs(after: Sequence[str], backend: str) -> dict[str, list[Id]]:
    """Returns Slurm's jobs that must have ended, by how.

    Raises:
      InputError: one has ended badly, or is none of Slurm's.
    """
    found = pending(after)
    out: dict[str, list[Id]] = {"ok": [], "any": []}
    for how, work in found if backend == "slurm" else ():
        if work.slurm is None:
            raise InputError(
                f"--after {work.name}: is at work on {work.backend}, for which Slurm cannot wait; "
                "submit when it has ended"
            )
        out[how].append(work.slurm)
    return out


def fills(after: Sequence[str]) -> frozenset[str]:
    """Returns the folders, as real paths, that builds and caches among `after` have yet to fill."""
    out = []
    for text in after:
        base = _base(Path(text.rpartition(":")[0]))
        if base is not None and any(work.state != array_spec.DONE for work in of(text)):
            record = array_spec.read(base)
            assert record is not None
            out.append(os.path.realpath(record.out))
    return frozenset(out)


def _place(name: str, root: str | Path) -> Path | None:
    found = run_spec.lookup(name, root)
    if found is not None:
        return found
    return Path(name).absolute() if name and _base(Path(name)) is not None else None


def _base(folder: Path) -> Path | None:
    """Returns the folder of the record of a build or cache, or None where there is none."""
    for base in (folder / ".build", folder):
        try:
            if array_spec.record_path(base).is_file():
                return base
        except (OSError, ValueError):
            return None
    return None
