"""Content keys: digests of file contents, settings and code that intermediate results depend on.

Keys contain no absolute path and no time, so results remain valid after captures are moved or
copied, and on another machine. File contents are read once for each `stamp` of the files.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import importlib.machinery
import importlib.util
import json
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import budgets, files, registry
from a2fjax.errors import InputError, WorkFailed

_MACHINE_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOMEM),
    *(errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ENXIO),
)
"""Errors of the machine, whatever the take."""

_HERE = Path(__file__).parents[1]
_OURS = (_HERE, Path(files.__file__).parent)
_IMPORT = re.compile(r"^\s*from (data_pipeline[\w.]*) import (\([^)]*\)|.*)", re.MULTILINE)


def digest(values: Any) -> str:
    """Returns 32 hexadecimal digits that identify JSON values.

    Example:
        >>> digest([1, "a"]) == digest([1, "a"]), len(digest(None))
        (True, 32)
    """
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class FilesStat:
    """The state of some files on disk.

    Attributes:
      stamp: digest of their relative paths, sizes, permissions and modification times.
      size: total bytes.
    """

    stamp: str
    size: int


def stat_files(paths: Sequence[Path], root: Path) -> FilesStat:
    """Returns the state of files without reading their contents.

    Args:
      paths: files, and folders that represent all files in them.
      root: paths below it are made relative to it.

    Raises:
      InputError: a file is missing.
    """
    rows, size = [], 0
    try:
        for path in list_files(paths):
            now = path.stat()
            name = path.relative_to(root) if path.is_relative_to(root) else path
            # Include permissions: a file that could not be read may be readable now.
            rows.append([str(name), now.st_size, now.st_mtime_ns, now.st_mode])
            size += now.st_size
    except OSError as error:
        raise InputError(f"{error.filename}: {error.strerror}") from None
    return FilesStat(digest(rows), size)


def list_files(paths: Sequence[Path]) -> list[Path]:
    """Returns the files among `paths` and, sorted, all files in its folders."""
    out: list[Path] = []
    for path in paths:
        if path.is_dir():
            out += sorted(Path(root) / n for root, _, names in os.walk(path) for n in names)
        else:
            out.append(path)
    return out


@dataclasses.dataclass(frozen=True)
class ContentDigest:
    """Digests of the contents of some files.

    Attributes:
      named: digest of their names and bytes, in order.
      bytes: digest of their bytes alone, the same for copies under other names.
    """

    named: str
    bytes: str


def read_cached_digest(cache: Path) -> ContentDigest | None:
    """Returns the digest that an earlier call stored in the file `cache`, or None."""
    try:
        named, alone = cache.read_text(encoding="utf-8").split()
    except (FileNotFoundError, ValueError):
        return None
    return ContentDigest(named, alone)


_TEXTS = (".csv", ".json", ".obj", ".ply", ".xml")
"""Files that are read as a whole; a size that no reader accepts need not be digested either."""


def digest_contents(paths: Sequence[Path], cache: Path) -> ContentDigest:
    """Returns the digests of files; reads the files only if `cache` does not hold the digests.

    Raises:
      InputError: a file cannot be read, or is larger than the budget `file_gb`.
      OSError: the disk fails.
    """
    cached = read_cached_digest(cache)
    if cached is not None:
        return cached
    names, alone = hashlib.blake2b(digest_size=16), []
    try:
        for path in list_files(paths):
            size = budgets.regular_file(path).stat().st_size
            budgets.check("file_gb", size / 1e9, path)
            if path.suffix.lower() in _TEXTS:
                budgets.check("text_mb", size / 1e6, path)
            with path.open("rb") as file:
                each = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16))
            names.update(f"{path.name}\0{each.hexdigest()}\n".encode())
            alone.append(each.hexdigest())
    except OSError as error:
        if error.errno in _MACHINE_ERRORS:
            raise
        raise InputError(f"{error.filename}: {error.strerror}") from None
    content = ContentDigest(names.hexdigest(), digest(sorted(alone)))
    files.write_text(cache, f"{content.named} {content.bytes}\n")
    return content


def rejection_reason(error: Exception) -> tuple[str, bool]:
    """Returns a one-line reason why a take is left out, and whether a retry may succeed.

    Raises:
      Exception: `error` itself, if the machine caused it and not the take.
    """
    line = next(iter(str(error).splitlines()), "")
    if isinstance(error, InputError):
        return line, False
    if isinstance(error, (MemoryError, WorkFailed)):
        raise error
    if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
        raise error
    if isinstance(error, PermissionError):
        return f"{error.filename}: {error.strerror}", True
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if any(p in Path(f.filename).parents for p in _OURS)] or frames
    location = f" at {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    message = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return f"unexpected {message} (a defect of this program{location}; please report it)", True


@functools.lru_cache
def code_digest(module: str) -> str:
    """Returns a digest of the local modules `data_pipeline.<module>` imports, and all sources."""
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


def layout_digest(layout: str) -> str:
    """Returns a digest of the package that registered a capture layout; "" for built-in layouts.

    `code_digest` covers the built-in layouts.
    """
    origin = registry.sources.get(layout).origin
    return "" if origin == _HERE.name else package_digest(origin)


def package_digest(package: str) -> str:
    """Returns a digest of the Python and extension modules of an importable package or module.

    Raises:
      InputError: its files cannot be found.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not (spec.submodule_search_locations or spec.has_location):
        raise InputError(f"plugin {package}: its files cannot be found")
    suffixes = (".py", *importlib.machinery.EXTENSION_SUFFIXES)
    modules: dict[str, Path] = {}
    if not spec.submodule_search_locations:
        modules[package] = Path(str(spec.origin))
    for folder in map(Path, spec.submodule_search_locations or ()):
        for path in folder.rglob("*"):
            if path.name.endswith(suffixes) and path.is_file():
                modules[path.relative_to(folder).as_posix()] = path
    return digest(
        [[n, hashlib.sha256(modules[n].read_bytes()).hexdigest()] for n in sorted(modules)]
    )
