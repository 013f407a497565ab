"""Files and folders: atomic writes, locks, and checks before long work."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from a2fjax.errors import InputError, WorkFailed

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Error numbers caused by the disk rather than by the path."""


@contextlib.contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends without an error.

    Readers see the old file or the new one, never a part. An error in the block removes the
    temporary file and leaves an existing `path` unchanged.

    Raises:
      InputError: the folder does not exist or cannot be written to.
      WorkFailed: the disk is full or fails.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "report.txt"
        ...     with atomic_write(path) as temporary:
        ...         _ = temporary.write_text("done")
        ...     path.read_text()
        'done'
    """
    path = Path(path)
    check_writable(path)
    # Processes of several machines may write the same path on a shared disk.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        # Created first, so that an unwritable folder is reported before hours of work.
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
    """Writes a UTF-8 text file atomically.

    Raises:
      InputError, WorkFailed: as `atomic_write`.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def is_locked(path: Path) -> bool:
    """Returns whether a process on this or another machine holds the file's lock (`flock`)."""
    import fcntl

    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def drop_output() -> None:
    """Sends what is printed from now on nowhere, after the reader closed the pipe.

    `a2fjax inspect RUN | head` is no error; the interpreter would report one when it exits.
    """
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def path_error(error: OSError) -> InputError:
    """Returns the error for a path that cannot be used, such as a name that is too long.

    Raises:
      OSError: the error names no path, so that it is a defect of this program.
    """
    if error.filename is None:
        raise error
    name = str(error.filename)
    shown = name if len(name) < 300 else f"{name[:200]}..."
    return InputError(f"{shown}: cannot be used ({error.strerror or error})")


def make_folder(path: str | Path) -> None:
    """Makes a folder and its parents; existing ones stay.

    Raises:
      InputError: the folder cannot be made, or a file has its name.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made a folder ({error.strerror or error})") from None


def check_writable(path: Path) -> None:
    """Checks that a file can be written at `path`; changes nothing.

    Raises:
      InputError: the folder is missing, is a file or cannot be written to, or `path` is a folder.
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
