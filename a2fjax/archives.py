"""NumPy arrays in files from outside: every size is checked before anything is allocated.

`load_npz` and `load_npy` replace `numpy.load`, which trusts what headers and archives state.
"""

from __future__ import annotations

import contextlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from a2fjax import budgets
from a2fjax.errors import InputError

PICKLED = (
    "holds pickled objects, which are refused because they can run code: save plain arrays with "
    "np.save(path, np.asarray(vertices, np.float32)) or np.savez"
)

_DAMAGE = (
    *(OSError, ValueError, EOFError, TypeError, SyntaxError, KeyError, OverflowError, MemoryError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error),
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ZIP = b"PK"
_ENDING = ".npy"


class Arrays(Mapping[str, np.ndarray]):
    """Arrays of an .npz by name, read on demand; a context manager.

    Attributes:
      path: of the file.
      files: names of the arrays, in the order of the file.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, files: list[str]):
        """Stores an open archive whose sizes were checked."""
        self.path, self.files, self._archive = path, files, archive

    def __getitem__(self, name: str) -> np.ndarray:
        """Returns an array.

        Raises:
          KeyError: there is none of this name.
          InputError: it is damaged, or its header states another size than the archive.
        """
        self.shape(name)  # Checks the header.
        with self._member(name) as (file, _):
            return np.lib.format.read_array(file, allow_pickle=False)

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns the shape of an array without reading it.

        Raises:
          KeyError, InputError: as for the array itself.
        """
        with self._member(name) as (file, size):
            return _check_header(file, size, f"{self.path}: {name}")

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], int]]:
        if name not in self.files:
            raise KeyError(f"{name} is not in {self.path}")
        try:
            info = self._archive.getinfo(name + _ENDING)
            with self._archive.open(info) as file:
                yield file, info.file_size
        except InputError:
            raise
        except _DAMAGE as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(f"{self.path}: {name}: truncated or damaged ({reason})") from None

    def __iter__(self) -> Iterator[str]:
        """Yields the names."""
        return iter(self.files)

    def __len__(self) -> int:
        """Returns the number of arrays."""
        return len(self.files)

    def __contains__(self, name: object) -> bool:
        """Returns whether there is an array of this name."""
        return name in self.files

    def close(self) -> None:
        """Closes the file."""
        self._archive.close()

    def __enter__(self) -> Self:
        """Returns the arrays."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes the file."""
        self.close()


def load_npz(path: str | Path) -> Arrays:
    """Opens an archive of arrays.

    Raises:
      InputError: no such file, not an archive of arrays, or one that unpacks to more than the
        budgets `unpacked_gb`, `unpacked_ratio` and `members` allow.
    """
    path = budgets.regular_file(path)
    with path.open("rb") as file:
        if file.read(len(_ZIP)) != _ZIP:
            file.seek(0)
            what = "is one array" if file.read(6) == b"\x93NUMPY" else "is another kind of file"
            if what != "is one array" and _is_pickle(path):
                raise InputError(f"{path}: {PICKLED}")
            raise InputError(f"{path}: {what}, expected a NumPy archive (.npz)")
    archive = open_zip(path)
    names = [n.removesuffix(_ENDING) for n in archive.namelist() if n.endswith(_ENDING)]
    if not names:
        held = ", ".join(archive.namelist()[:4]) or "nothing"
        archive.close()
        raise InputError(f"{path}: a zip archive that holds {held[:120]}, expected NumPy arrays")
    return Arrays(path, archive, names)


def open_zip(path: str | Path) -> zipfile.ZipFile:
    """Opens a zip archive after checking what it unpacks to.

    Raises:
      InputError: damaged, encrypted, another compression than deflate, or beyond the budgets.
    """
    path = budgets.regular_file(path)
    size = path.stat().st_size
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise InputError(f"{path}: not a zip archive, or damaged ({_reason(error)})") from None
    try:
        members = archive.infolist()
        budgets.check("members", len(members), path)
        budgets.check_unpacked(sum(m.file_size for m in members), size, path)
        for member in members:
            if member.flag_bits & 1 or member.compress_type not in _METHODS:
                raise InputError(f"{path}: {member.filename!r} is encrypted or not deflated")
            if member.header_offset < 0 or member.compress_size > size:
                raise InputError(f"{path}: {member.filename!r} is larger than its archive")
    except InputError:
        archive.close()
        raise
    return archive


def load_npy(path: str | Path, *, mmap: bool = False) -> np.ndarray:
    """Reads one array.

    Args:
      path: of the .npy file.
      mmap: returns a read-only map of the file in place of a copy in memory.

    Raises:
      InputError: no such file, not one array, damaged, or larger than the budget `unpacked_gb`
        (maps may be larger).
    """
    path = budgets.regular_file(path)
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                raise InputError(f"{path}: an archive, expected one array: name it .npz")
            file.seek(0)
            try:
                _check_header(file, size, str(path))
            except ValueError:
                if _is_pickle(path):
                    raise InputError(f"{path}: {PICKLED}") from None
                raise
            if not mmap:
                budgets.check("unpacked_gb", size / 1e9, path)
        found: np.ndarray = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
        return found
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"{path}: truncated or damaged ({_reason(error)})") from None


def _check_header(file: IO[bytes], size: int, where: str) -> tuple[int, ...]:
    """Returns the shape that a .npy header states, after checking it against the file's size."""
    version = np.lib.format.read_magic(file)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version[0]} of the format, expected 1 or 2")
    try:
        shape, _, dtype = readers[version](file)
    except (SyntaxError, tokenize.TokenError, TypeError, RecursionError, MemoryError) as error:
        # NumPy parses a header's text as Python.
        raise ValueError(f"its header cannot be parsed: {error}") from None
    if dtype.hasobject:
        raise InputError(f"{where}: {PICKLED}")
    count = math.prod(shape)
    stored = size - file.tell()
    # Values of no size would make any number of elements fit.
    if count * dtype.itemsize != stored or (count > 1 and not dtype.itemsize):
        raise ValueError(f"its header states {dtype} of shape {shape}, it holds {stored} bytes")
    return tuple(int(n) for n in shape)


def _is_pickle(path: Path) -> bool:
    """Returns whether a file begins as pickles of protocol 2 and later do."""
    with path.open("rb") as file:
        head = file.read(2)
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
