"""Moving vertices on disk: NumPy, PC2 and Maya caches, read a block of frames at a time."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.geometry import Vertices

SUFFIXES = (".npy", ".pc2", ".mc")
TICKS_PER_SECOND = 6000
"""Of Maya's time unit in caches; 200 ticks are a frame at 30 a second."""

_PC2 = struct.Struct("<12siiffi")
_PC2_SIGNATURE = b"POINTCACHE2\0"


def find_cache(folder: Path, shot: str) -> Path | None:
    """Returns a shot's cache, in a folder of its own or without one, or None."""
    for parent in (folder / shot, folder):
        for suffix in SUFFIXES:
            path = parent / f"{shot}{suffix}"
            if path.is_file():
                return path
    return None


def list_caches(folder: Path) -> list[str]:
    """Returns the names of the shots in a cache folder, sorted."""
    if not folder.is_dir():
        return []
    names = set()
    for path in folder.iterdir():
        if path.is_dir() and find_cache(folder, path.name):
            names.add(path.name)
        elif path.is_file() and path.suffix in SUFFIXES:
            names.add(path.stem)
    return sorted(names)


def read_cache(path: Path) -> tuple[Vertices, np.ndarray | None]:
    """Opens a cache; returns (vertices [F, V, 3], times [F] in s or None where it has none).

    Raises:
      InputError: missing, truncated, of another kind or shape.
    """
    readers = {".npy": _read_npy, ".pc2": _read_pc2, ".mc": _read_mc}
    if path.suffix not in readers:
        raise InputError(f"{path}: expected a cache of type {', '.join(SUFFIXES)}")
    try:
        return readers[path.suffix](path)
    except InputError:
        raise
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"{path}: truncated or damaged ({_one_line(error)})") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120]


def _read_npy(path: Path) -> tuple[Vertices, None]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
        raise InputError(
            f"{path}: {array.dtype} of shape {array.shape}, expected floats [frames, vertices, 3]"
        )
    return array, None


def _read_pc2(path: Path) -> tuple[Vertices, np.ndarray | None]:
    """Reads PC2: header `<12s version vertices start rate frames`, then little-endian float32.

    `rate` is frames of the scene a sample, start its first frame; in practice writers put frames
    a second or 1.0 there, so it counts as time only where it can be a rate.
    """
    with path.open("rb") as file:
        head = file.read(_PC2.size)
    signature, version, count, _start, rate, frames = _PC2.unpack(head)
    if signature != _PC2_SIGNATURE or version != 1:
        raise InputError(f"{path}: not a PC2 cache of version 1")
    if count <= 0 or frames <= 0:
        raise InputError(f"{path}: says {count} vertices and {frames} frames")
    expected = _PC2.size + frames * count * 12
    if path.stat().st_size < expected:
        raise InputError(f"{path}: truncated: {path.stat().st_size} bytes of {expected}")
    data = np.memmap(path, "<f4", "r", _PC2.size, (frames, count, 3))
    times = np.arange(frames) / float(rate) if rate >= 10 else None
    return data, times


class MayaCache:
    """Frames of a Maya one-file cache: big-endian blocks found once, read when asked for.

    Attributes:
      shape: (frames, vertices, 3).
    """

    def __init__(self, path: Path, offsets: np.ndarray, vertices: int, double: bool):
        """Keeps where each frame's numbers start (bytes)."""
        self.path = path
        self.offsets = offsets
        self.dtype = np.dtype(">f8" if double else ">f4")
        self.shape = (len(offsets), vertices, 3)

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Returns vertices [n, V, 3] float32."""
        count = self.shape[1] * 3
        with self.path.open("rb") as file:
            rows = []
            for offset in self.offsets[frames]:
                file.seek(int(offset))
                rows.append(np.fromfile(file, self.dtype, count))
        return np.array(rows, np.float32).reshape(len(rows), self.shape[1], 3)


def _read_mc(path: Path) -> tuple[MayaCache, np.ndarray]:
    """Reads a Maya cache (IFF): FOR4 CACH, then a FOR4 MYCH with TIME and one channel a frame."""
    description = path.with_suffix(".xml")
    if description.is_file():
        _check_description(description)
    size = path.stat().st_size
    offsets: list[int] = []
    times: list[int] = []
    counts: set[int] = set()
    kinds: set[bytes] = set()
    with path.open("rb") as file:
        tag, length = _chunk(file.read(8))
        if tag == b"FOR8":
            raise InputError(f"{path}: 64-bit Maya cache (.mcx); export it as .mc")
        if tag != b"FOR4" or file.read(4) != b"CACH":
            raise InputError(f"{path}: not a Maya cache")
        at = 8 + length
        while at < size:
            file.seek(at)
            tag, length = _chunk(file.read(8))
            if tag != b"FOR4" or at + 8 + length > size or file.read(4) != b"MYCH":
                raise InputError(f"{path}: truncated: frame {len(offsets)} is not whole")
            end, place, channels = at + 8 + length, at + 12, 0
            while place + 8 <= end:
                file.seek(place)
                kind, inner = _chunk(file.read(8))
                if kind == b"TIME":
                    times.append(struct.unpack(">i", file.read(4))[0])
                elif kind in (b"FVCA", b"DVCA"):
                    channels += 1
                    offsets.append(place + 8)
                    counts.add(inner // (12 if kind == b"FVCA" else 24))
                    kinds.add(kind)
                place += 8 + inner + (-inner) % 4
            if channels != 1:
                raise InputError(f"{path}: frame {len(times)} has {channels} channels, expected 1")
            at = end
    if not offsets or len(times) != len(offsets):
        raise InputError(f"{path}: {len(offsets)} frames with {len(times)} times")
    if len(counts) != 1 or len(kinds) != 1:
        raise InputError(f"{path}: the number of vertices changes between frames")
    cache = MayaCache(path, np.array(offsets), counts.pop(), kinds.pop() == b"DVCA")
    ticks = np.array(times, np.float64)
    if not (np.diff(ticks) > 0).all():
        raise InputError(f"{path}: frame times do not increase")
    return cache, (ticks - ticks[0]) / TICKS_PER_SECOND


def _chunk(head: bytes) -> tuple[bytes, int]:
    return struct.unpack(">4si", head)


def _check_description(path: Path) -> None:
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not readable as XML ({error})") from None
    kind = root.find("cacheType")
    if kind is not None and kind.get("Type", "OneFile") != "OneFile":
        raise InputError(f"{path}: cache of type {kind.get('Type')}, expected OneFile")
