"""What is to run and what became of it, as plain data: `Spec` (frozen) and `Record` (a file).

A job is N parts that know nothing of each other, and one last command that runs when all parts
have ended, however they ended; it is up to that command to refuse when something is missing. All
commands are idempotent: a part that is run twice, or killed and run again, leaves the same files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PREEMPTED, InputError

VERSION = 1
FINISH = "finish"

WAITING, RUNNING, DONE = "waiting", "running", "done"
FAILED, BAD_INPUT, STOPPED, LOST = "failed", "bad input", "stopped", "lost"
ACTIVE = (WAITING, RUNNING)
STOP_CODES = (EXIT_PREEMPTED, 128 + signal.SIGTERM)
"""Exit codes of a command that was told to stop; the second is that of one that does not listen."""

STATES = (WAITING, RUNNING, DONE, STOPPED, FAILED, BAD_INPUT, LOST)
"""Of a part. "stopped" can go on (exit code 75); "lost" ended without leaving an exit code."""
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """Commands of a job; words are data and never pass through a shell as anything else.

    Attributes:
      name: for people and queues: lower-case letters, digits and "-", at most 40 characters.
      command: of a part; `--part I/N` is added, I from 1.
      finish: run once, after all parts.
      parts: N, 1 or more.
      directory: where both run.
      environment: set in both.
      retries: how often a part that failed is started again; what was told to stop and bad input
        are no failures.
    """

    name: str
    command: tuple[str, ...]
    finish: tuple[str, ...]
    parts: int
    directory: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    retries: int = 2

    def part(self, index: int) -> list[str]:
        """Returns the command of part `index` of 1 .. `parts`."""
        if not 1 <= index <= self.parts:
            raise InputError(f"part {index}: expected 1 to {self.parts}")
        return [*self.command, "--part", f"{index}/{self.parts}"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What was submitted, kept as BASE/launch.json; logs and exit codes lie in BASE/launch/.

    Attributes:
      backend: of `schedulers.NAMES`.
      out: the folder that the job fills, as given to its commands.
      spec: what runs.
      options: of the backend, as JSON.
      attempt: counts submissions for `out`, from 1.
      parts: those submitted this time; others had been done.
      jobs: the backend's names of what it runs ("parts" and "finish").
      submitted: time in UTC, ISO 8601.
      after: what must have ended before, as `launch.submission.dependencies.check` returns it.
    """

    backend: str
    out: str
    spec: Spec
    options: Mapping[str, Any]
    attempt: int
    parts: tuple[int, ...]
    jobs: Mapping[str, str]
    submitted: str
    after: tuple[str, ...] = ()


def record_path(base: Path) -> Path:
    """Returns the file of the record."""
    return base / "launch.json"


def folder(base: Path) -> Path:
    """Returns the folder of scripts, logs and exit codes."""
    return base / "launch"


def write(base: Path, record: Record) -> None:
    """Writes the record whole or not at all.

    Raises:
      InputError, WorkFailed: as `files.write_text`.
    """
    text = json.dumps({"version": VERSION, **dataclasses.asdict(record)}, indent=1)
    files.write_text(record_path(base), text + "\n")


def read(base: Path) -> Record | None:
    """Returns what was submitted last, or None.

    Raises:
      InputError: the file is damaged or of another version.
    """
    path = record_path(base)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("version")
        if version != VERSION:
            raise InputError(f"{path}: version {version}: expected {VERSION}; submit again")
        spec = values.pop("spec")
        for key in ("command", "finish"):
            spec[key] = tuple(spec[key])
        for key in ("parts", "after"):
            values[key] = tuple(values.get(key, ()))
        return Record(spec=Spec(**spec), **values)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged ({error}); delete it and submit again") from None


def state_of(code: int) -> str:
    """Returns what an exit code says of a part."""
    known = {EXIT_OK: DONE, EXIT_BAD_INPUT: BAD_INPUT, **dict.fromkeys(STOP_CODES, STOPPED)}
    return known.get(code, FAILED)


def exit_path(base: Path, which: int | str) -> Path:
    """Returns the file that holds the exit code of a part (by number) or of the last command."""
    return folder(base) / (f"part-{which}.exit" if isinstance(which, int) else f"{which}.exit")


def log_path(base: Path, which: int | str) -> Path:
    """Returns the log of a part (by number) or of the last command."""
    return exit_path(base, which).with_suffix(".log")


def exit_state(base: Path, which: int | str) -> str | None:
    """Returns what the exit code on disk says, or None where there is none."""
    try:
        return state_of(int(exit_path(base, which).read_text()))
    except (OSError, ValueError):
        return None


def clear(base: Path, parts: Sequence[int]) -> None:
    """Forgets the exit codes of `parts` and of the last command, before they run again."""
    these: list[int | str] = [*parts, FINISH]
    for which in these:
        exit_path(base, which).unlink(missing_ok=True)
        exit_path(base, which).with_suffix(".failures").unlink(missing_ok=True)
    (folder(base) / "cancelled").unlink(missing_ok=True)


def slug(text: str, path: str) -> str:
    """Returns a name that queues and DNS take: words of `text`, and a mark of `path`."""
    return f"{slug_words(text)}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def slug_words(text: str) -> str:
    """Returns the words of a text in lower case, joined by "-", at most 28 characters."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:28].strip("-") or "job"


def utf8(text: str, what: str) -> str:
    """Returns `text` when scripts and manifests can hold it.

    Raises:
      InputError: it is not UTF-8 or holds a NUL.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape")
        raise InputError(f"{what} {shown!r}: is not UTF-8; rename it") from None
    if "\0" in text:
        raise InputError(f"{what} {text!r}: holds a NUL")
    return text


def memory_mib(text: str) -> int:
    """Returns MiB of "8G", "8Gi", "500M".

    Raises:
      InputError: of another form.
    """
    found = re.fullmatch(r"([1-9]\d*)([MGT])(i?B?)", text)
    if not found:
        raise InputError(f"--mem {text}: expected a number and a unit, such as 8G or 500M")
    return int(found[1]) * {"M": 1, "G": 1024, "T": 1024**2}[found[2]]


def minutes(text: str) -> float:
    """Returns the minutes of Slurm's forms: m, m:s, h:m:s, d-h, d-h:m, d-h:m:s.

    Raises:
      InputError: of another form.
    """
    found = _TIME.fullmatch(text)
    if not found:
        raise InputError(f"--time {text}: expected minutes, hours:minutes:seconds or days-hours")
    days, *rest = found.groups()
    numbers = [int(n) for n in rest if n is not None]
    if days is not None:
        hours, minutes, seconds = (numbers + [0, 0])[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, minutes, seconds = (0, *(numbers + [0])[:2])
    return int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60


def as_json(values: Mapping[str, Any]) -> str:
    """Returns the text of a small file of values."""
    return json.dumps(values, indent=1) + "\n"
