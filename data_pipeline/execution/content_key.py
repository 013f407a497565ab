"""Names for work by what it is made from: contents of files, settings, and this code.

Names hold no absolute path and no time, so that work is found again after captures were moved or
copied, and on another machine. Contents are read once for each `stamp` of the files.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed

_DISK = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOMEM),
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENXIO),
)
"""Of a machine in trouble, whatever the take."""

_HERE = Path(__file__).parents[1]
_OURS = (_HERE, Path(files.__file__).parent)
_IMPORT = re.compile(r"^\s*from (data_pipeline[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


def digest(values: Any) -> str:
    """Returns a name of 32 hexadecimal digits for JSON values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class FilesStat:
    """Files as they are now.

    Attributes:
      stamp: name for their paths below a folder, sizes, permissions and times of change.
      size: bytes in all.
    """

    stamp: str
    size: int


def stat_files(paths: Sequence[Path], root: Path) -> FilesStat:
    """Returns what there is, reading nothing.

    Args:
      paths: files, and folders that stand for all files in them.
      root: paths below it are taken relative to it.

    Raises:
      InputError: one has gone.
    """
    found, size = [], 0
    try:
        for path in list_files(paths):
            now = path.stat()
            name = path.relative_to(root) if path.is_relative_to(root) else path
            # Permissions too: a file that could not be read may be readable now.
            found.append([str(name), now.st_size, now.st_mtime_ns, now.st_mode])
            size += now.st_size
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    return FilesStat(digest(found), size)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Returns the files, those of folders in order."""
    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = [Path(at) / name for at, _, names in os.walk(path) for name in names]
            out += sorted(inside)
        else:
            out.append(path)
    return out


@dataclasses.dataclass(frozen=True)
class ContentDigest:
    """What is in files.

    Attributes:
      named: digest of their names and bytes, in order.
      bytes: digest of their bytes alone, equal for copies under other names.
    """

    named: str
    bytes: str


def read_cached_digest(known: Path) -> ContentDigest | None:
    """Returns what was found before, kept in the file `known`."""
    try:
        named, alone = known.read_text(encoding="utf-8").split()
    except (FileNotFoundError, ValueError):
        return None
    return ContentDigest(named, alone)


def digest_contents(paths: Sequence[Path], known: Path) -> ContentDigest:
    """Returns the digests of files; reads the bytes only when `known` does not hold them.

    Raises:
      InputError: a file cannot be read.
      OSError: the disk fails.
    """
    found = read_cached_digest(known)
    if found is not None:
        return found
    names, alone = hashlib.blake2b(digest_size=16), []
    try:
        for path in list_files(paths):
            with path.open("rb") as file:
                each = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            names.update(f"{path.name}\0{each.hexdigest()}\n".encode())
            alone.append(each.hexdigest())
    except OSError as error:
        if error.errno in _DISK:
            raise
        raise InputError(f"{error.filename}: {error.strerror}") from None
    found = ContentDigest(names.hexdigest(), digest(sorted(alone)))
    files.write_text(known, f"{found.named} {found.bytes}\n")
    return found


def rejection_reason(error: Exception) -> tuple[str, bool]:
    """Returns in one line why a take is left out, and whether it may go well another time.

    Raises:
      Exception: `error`, when it says something of the machine and not of the take.
    """
    line = next(iter(str(error).splitlines()), "")
    if isinstance(error, InputError):
        return line, False
    if isinstance(error, (MemoryError, WorkFailed)):
        raise error
    if isinstance(error, OSError) and error.errno in _DISK:
        raise error
    if isinstance(error, PermissionError):
        return f"{error.filename}: {error.strerror}", True
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if any(p in Path(f.filename).parents for p in _OURS)] or frames
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    said = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return f"unexpected {said} (a defect of this program{place}; please report it)", True


@functools.lru_cache
def code_digest(module: str) -> str:
    """Returns a digest of the code that `data_pipeline.<module>` imports, and of all sources."""
    needed: dict[Path, bytes] = {}
    start = _HERE.joinpath(*module.split(".")).with_suffix(".py")
    if not start.is_file():
        raise ValueError(f"no module data_pipeline.{module}")
    todo = [start, *_HERE.glob("sources/*.py")]
    while todo:
        path = todo.pop()
        if path in needed or _HERE not in path.parents or not path.is_file():
            continue
        needed[path] = path.read_bytes()
        for module, names in _IMPORT.findall(needed[path].decode()):
            package = _HERE.parent.joinpath(*module.split("."))
            todo += [package.with_suffix(".py"), package / "__init__.py"]
            todo += [package / f"{name}.py" for name in re.findall(r"\w+", names)]
    digest = hashlib.sha256()
    for path in sorted(needed):
        digest.update(needed[path])
    return digest.hexdigest()
