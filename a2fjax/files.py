"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from a2fjax.errors import InputError, WorkFailed

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Errors that are the disk's and not the path's."""


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on leaving without error it becomes `path`.

    An error inside removes the temporary file and leaves an older `path` as it was.

    Raises:
      InputError: the folder does not exist or cannot be written to.
      WorkFailed: the disk is full or fails.
    """
    path = Path(path)
    check_writable(path)
    # Processes of several machines may write the same path on a shared disk.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        # Touched first, so that an unwritable folder is told before hours of work.
        temporary.touch()
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise WorkFailed(f"{path}: could not be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
      InputError, WorkFailed: as `whole`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_locked(path: Path) -> bool:
    """Returns whether a process of this or another machine holds the file's lock (`flock`)."""
    import fcntl

    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def make_folder(path: str | Path) -> None:
    """Makes a folder, and those above it, where they are missing.

    Raises:
      InputError: it cannot be made, or a file is in its place.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder ({error.strerror or error})") from None


def check_writable(path: Path) -> None:
    """Checks that `path` can be a file in its folder.

    Raises:
      InputError: the folder is missing, is a file, cannot be written to, or `path` is a folder.
    """
    folder = path.parent
    if not folder.exists():
        raise InputError(f"{path}: cannot be written (folder {folder} does not exist)")
    if not folder.is_dir():
        raise InputError(f"{path}: cannot be written ({folder} is not a folder)")
    if path.is_dir():
        raise InputError(f"{path}: cannot be written (it is a folder)")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{path}: cannot be written (no permission in folder {folder})")
