"""Files and folders: atomic writes, locks, and checks before long work."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from a2fjax.errors import InputError, WorkFailed

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
"""Error numbers caused by the disk rather than by the path."""


PRIVATE = 0o600
"""Mode of files that only their owner may read."""

_LONGEST_NAME = 255
"""Bytes of a file's name, on common file systems."""

_LONGEST_PATH = 4096


def inside(folder: str | Path, name: object, *, where: str, plain: bool = False) -> Path:
    """Returns the path of a file that other data name, such as a manifest, an index or a sweep.

    Every name that comes from a file must pass through this function before it is opened or
    written, because it could name any file of the machine otherwise. Links inside the folder are
    followed: they belong to whoever made the folder.

    Args:
      folder: folder that the name must stay in.
      name: the name as read, of any type.
      where: what names it, for the message, such as "manifest.json: shards[0].file".
      plain: whether it must be a name without folders.

    Raises:
      InputError: not a relative path below the folder.

    Example:
        >>> inside("shards", "subjects/a.npz", where="manifest.json: mesh")
        PosixPath('shards/subjects/a.npz')
        >>> inside("shards", "../a.npz", where="manifest.json: mesh")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: manifest.json: mesh: '../a.npz': expected a path inside shards
    """
    expected = f"expected a {'file name' if plain else 'path'} inside {folder}"
    if not isinstance(name, str):
        raise InputError(f"{where}: {_shown(name)}: {expected}")
    parts = name.split("/")
    wrong = any(part in ("", ".", "..") or "\0" in part for part in parts)
    wrong = wrong or any(len(os.fsencode(_encodable(part))) > _LONGEST_NAME for part in parts)
    if wrong or (plain and len(parts) > 1) or len(name) > _LONGEST_PATH:
        raise InputError(f"{where}: {_shown(name)}: {expected}")
    return Path(folder, name)


def _encodable(text: str) -> str:
    return text.encode(errors="surrogatepass").decode(errors="replace")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


@contextlib.contextmanager
def atomic_write(path: str | Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yields a temporary path that replaces `path` when the block ends without an error.

    Readers see the old file or the new one, never a part. An error in the block removes the
    temporary file and leaves an existing `path` unchanged.

    Args:
      path: the file to write.
      mode: permissions, from which the process's mask is subtracted; `PRIVATE` for the owner only.

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
    # Made first, so that an unwritable folder is reported before hours of work. Processes of
    # several machines may write the same path on a shared disk.
    temporary = make_temporary(path, mode=mode)
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


def make_temporary(path: Path, *, mode: int = 0o666) -> Path:
    """Makes an empty file beside `path`, named .NAME.RANDOM.partial, and returns its path.

    Its name cannot be guessed and no link is followed. In a shared folder, a file that somebody
    else had put there would be written through with this user's permissions otherwise.

    Raises:
      InputError: the folder cannot be written to.
      WorkFailed: the disk is full or fails.
    """
    stem = os.fsencode(path.name)[: _LONGEST_NAME - 48]
    temporary = path.with_name(f".{os.fsdecode(stem)}.{secrets.token_hex(16)}.partial")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, mode))
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise WorkFailed(f"{path}: could not be written ({error.strerror})") from None
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    return temporary


def write_text(path: str | Path, text: str, *, mode: int = 0o666) -> None:
    """Writes a UTF-8 text file atomically; `mode` as in `atomic_write`.

    Raises:
      InputError, WorkFailed: as `atomic_write`.
    """
    with atomic_write(path, mode=mode) as temporary:
        temporary.write_text(text, encoding="utf-8")


def open_append(path: str | Path, *, mode: int = 0o666, flags: int = 0) -> IO[bytes]:
    """Opens a file for appending and locks, without a buffer; makes it if it does not exist.

    Opening a pipe would wait for its other end, and writing to a device could do anything.

    Args:
      path: the file.
      mode: permissions of a new file.
      flags: further flags of `os.open`.

    Raises:
      OSError: it cannot be opened, or is not a file.
    """
    flags |= os.O_CREAT | os.O_APPEND | os.O_RDWR | os.O_NONBLOCK
    handle = os.open(path, flags, mode)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is not a file", str(path))
    return open(handle, "ab", buffering=0)


def open_private(path: str | Path) -> IO[bytes]:
    """Opens a file for appending; only its owner may read it.

    An existing file loses the permissions of others.

    Raises:
      OSError: it cannot be opened, is a link, or is not a file.
    """
    file = open_append(path, mode=PRIVATE, flags=os.O_NOFOLLOW)
    with contextlib.suppress(OSError):  # A file of another user.
        os.fchmod(file.fileno(), PRIVATE)
    return file


def is_locked(path: Path) -> bool:
    """Returns whether a process on this or another machine holds the file's lock (`flock`)."""
    import fcntl

    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
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
