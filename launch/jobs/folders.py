"""Finds folders of runs, sweeps and arrays by name, and locks names during submission.

ROOT/.names/ holds the locks: only one command at a time checks a name and submits under it.
"""

from __future__ import annotations

import contextlib
import fcntl
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from a2fjax import files
from a2fjax.errors import InputError, nearest
from launch.jobs import record

LOCKS = ".names"
_LOCK_SECONDS = 60.0
_NAME = re.compile(r"[A-Za-z0-9][\w.+=,@-]*")


def lookup(name: str, root: str | Path) -> Path | None:
    """Returns the folder of a run or sweep, by its name below ROOT or its path, or None."""
    try:
        for path in (Path(root) / name, Path(name)):
            if record.is_sweep(path) or (record.is_job(path) and not record.is_array(path)):
                return path.absolute()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
    return None


def lookup_array(name: str) -> Path | None:
    """Returns the record of the array that fills a folder, or the record in the folder, or None."""
    try:
        for path in (Path(name) / record.ARRAY, Path(name)):
            if record.is_array(path):
                return path.absolute()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
    return None


def find(name: str, root: str | Path) -> Path:
    """Returns the folder of a run or sweep.

    Raises:
      InputError: there is none; suggests the nearest name.
    """
    folder = lookup(name, root)
    if folder is None:
        names = [str(p.relative_to(root)) for p in everything(Path(root))]
        raise InputError(f"{name}: no run or sweep in {root}{nearest(name, names)}")
    return folder


def find_run(name: str, root: str | Path) -> Path:
    """Returns the folder of a run or sweep, or of a run made by `a2fjax train` alone.

    Raises:
      InputError: as `find`.
    """
    for path in (Path(root) / name, Path(name)):
        if is_training(path):
            return path.absolute()
    return find(name, root)


def is_training(folder: Path) -> bool:
    """Returns whether a folder is a run made by `a2fjax train` rather than by `submit.py`."""
    try:
        return (folder / "config.json").is_file() and not record.is_job(folder)
    except (OSError, ValueError):
        return False


def everything(root: Path) -> list[Path]:
    """Returns the folders of all runs and sweeps below ROOT, by name, without a sweep's trials."""
    if not root.is_dir():
        return []
    return [p for p in sorted(root.iterdir()) if _is_known(p)]


def _is_known(folder: Path) -> bool:
    try:
        return record.is_job(folder) or record.is_sweep(folder) or is_training(folder)
    except (OSError, ValueError):
        return False  # Nobody but its owner may look into it.


def new(root: Path, name: str) -> Path:
    """Returns the path for a new run or sweep without creating it.

    Raises:
      InputError: the path already exists.
    """
    folder = root / name
    if record.is_job(folder) or record.is_sweep(folder):
        raise InputError(f"{name}: exists already; `submit.py resume {name}` continues it")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already and was not made by submit.py; use --name")
    return folder


def root(folder: Path) -> Path:
    """Returns the folder of all runs that contains a run; for an array element, the array."""
    array = record.array_of(folder)
    if array is not None:
        return array
    return folder.parent.parent if record.is_sweep(folder.parent) else folder.parent


def named(folder: Path) -> tuple[Path, str]:
    """Returns the folder of all runs, and the name below it of a run, sweep or trial's sweep."""
    top = root(folder)
    return top, folder.relative_to(top).parts[0]


def check_name(name: str, flag: str = "--name") -> str:
    """Returns the name if it is a valid folder name.

    Raises:
      InputError: the name is not valid.
    """
    if not _NAME.fullmatch(name) or len(name) > 120:
        raise InputError(
            f"{flag} {name!r}: expected a name of at most 120 letters, digits and any of _ . + = "
            "@ , - that starts with a letter or digit"
        )
    return name


@contextlib.contextmanager
def exclusive(root: Path, name: str, *, dry_run: bool = False) -> Iterator[Callable[[], None]]:
    """Prevents other commands from submitting under a name; yields a function that releases it.

    If two commands submit the same name at once, the second sees the files of the first.

    Args:
      root: folder that will contain the name.
      name: name of a run or sweep.
      dry_run: takes no lock, because a dry run writes nothing.

    Raises:
      InputError: another command holds the name for a minute; the folder cannot be written to.
    """
    if dry_run:
        yield lambda: None
        return
    files.make_folder(root / LOCKS)
    end = time.monotonic() + _LOCK_SECONDS
    with files.open_append(root / LOCKS / name) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise InputError(
                        f"{name}: another command has been submitting it for a minute"
                    ) from None
                time.sleep(0.05)
            except OSError:
                break  # A file system without locks.
        yield file.close
