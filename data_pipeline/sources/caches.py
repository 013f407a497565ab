"""Reads vertex caches (NumPy, PC2, Maya) in blocks of frames."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line
from data_pipeline.mesh.geometry import Vertices
from data_pipeline.sources import maya

SUFFIXES = (".npy", ".pc2", *maya.SUFFIXES)
"""Suffixes of caches in one file, best first; a Maya cache of many files is named by its .xml."""

_PC2 = struct.Struct("<12siiffi")
_PC2_SIGNATURE = b"POINTCACHE2\0"


def find_cache(folder: Path, shot: str) -> Path | None:
    """Returns a shot's cache, in a separate folder or not, or None."""
    for parent in (folder / shot, folder):
        for suffix in SUFFIXES:
            path = parent / f"{shot}{suffix}"
            if path.is_file():
                return path
        path = parent / f"{shot}.xml"
        if path.is_file() and maya.frame_files(path):
            return path
    return None


def cache_files(cache: Path) -> list[Path]:
    """Returns all files of a cache found by `find_cache`, with the cache itself first."""
    if cache.suffix == ".xml":
        return [cache, *maya.frame_files(cache)]
    description = cache.with_suffix(".xml")
    if cache.suffix in maya.SUFFIXES and description.is_file():
        return [cache, description]
    return [cache]


def list_caches(folder: Path) -> list[str]:
    """Returns the names of the shots in a cache folder, sorted."""
    if not folder.is_dir():
        return []
    names = set()
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if find_cache(folder, path.name):
                names.add(path.name)
        elif path.suffix == ".xml" or not maya.is_frame_file(path):
            if path.suffix in SUFFIXES or (path.suffix == ".xml" and maya.frame_files(path)):
                names.add(path.stem)
    return sorted(names)


def read_cache(
    path: Path, vertices: int | None = None, channel: str = ""
) -> tuple[Vertices, np.ndarray | None]:
    """Opens a cache; returns (vertices [F, V, 3], times [F] in s or None if it has none).

    Args:
      path: result of `find_cache`.
      vertices: number of vertices of the mesh, to select a channel of a Maya cache.
      channel: name of the channel to read where several could be the mesh, or "".

    Raises:
      InputError: missing, truncated, of another kind or shape, no frames.
    """
    readers = {".npy": _read_npy, ".pc2": _read_pc2}
    try:
        if path.suffix in readers:
            return readers[path.suffix](path)
        if path.suffix in (*maya.SUFFIXES, ".xml"):
            return maya.read_cache(path, vertices, channel)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"{path}: truncated or damaged ({one_line(error)})") from None
    raise InputError(f"{path}: expected a cache of type {', '.join(SUFFIXES)}")


def _read_npy(path: Path) -> tuple[Vertices, None]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise InputError(f"{path}: an archive, expected one array [frames, vertices, 3]")
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f" or not array.size:
        raise InputError(
            f"{path}: {array.dtype} of shape {array.shape}, expected floats [frames, vertices, 3]"
        )
    return array, None


def _read_pc2(path: Path) -> tuple[Vertices, np.ndarray | None]:
    """Reads PC2: header `<12s version vertices start rate frames`, then little-endian float32.

    `rate` is defined as scene frames per sample and `start` as the first frame. In practice writers
    store frames per second or 1.0 there, so it is used only if it is a plausible frame rate.
    """
    with path.open("rb") as file:
        head = file.read(_PC2.size)
    signature, version, count, _start, rate, frames = _PC2.unpack(head)
    if signature != _PC2_SIGNATURE or version != 1:
        raise InputError(f"{path}: not a PC2 cache of version 1")
    if count <= 0 or frames <= 0:
        raise InputError(f"{path}: says {count} vertices and {frames} frames")
    expected = _PC2.size + frames * count * 12
    size = path.stat().st_size
    if size < expected:
        raise InputError(f"{path}: truncated: {size} bytes of {expected}")
    if size > expected:
        raise InputError(
            f"{path}: {size - expected} bytes more than its {frames} frames of {count} vertices: "
            "its header is not the data's"
        )
    data = np.memmap(path, "<f4", "r", _PC2.size, (frames, count, 3))
    times = np.arange(frames) / float(rate) if 10 <= rate <= 1000 else None
    return data, times
