"""Caches small, expensive arrays in `a2fjax.user_cache` under names derived from their inputs.

An inaccessible folder or a damaged file counts as an empty cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from a2fjax import archives, files, user_cache
from a2fjax.errors import InputError, WorkFailed


def find(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns the stored float32 array with a given name and shape, or None."""
    folder = user_cache.folder()
    if folder is None:
        return None
    with contextlib.suppress(OSError, ValueError, KeyError):
        with archives.load_npz(folder / f"{name}.npz") as data:
            array = data["array"]
        if array.shape == shape and array.dtype == np.float32 and np.isfinite(array).all():
            return np.asarray(array)
    return None


def store(name: str, array: np.ndarray) -> None:
    """Stores an array atomically; does nothing if the folder cannot be written."""
    folder = user_cache.folder()
    if folder is None:
        return
    with contextlib.suppress(OSError, InputError, WorkFailed):
        folder.mkdir(parents=True, exist_ok=True)
        # An .npz has a checksum, an .npy has none.
        with files.atomic_write(folder / f"{name}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, array=array)


@functools.cache
def code_digest(modules: Sequence[ModuleType]) -> bytes:
    """Returns a digest of the source text of modules."""
    digest = hashlib.sha256()
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.digest()
