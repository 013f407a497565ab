"""Small arrays that take long to compute, kept on this machine by what they were made of.

They lie in A2F_CACHE, else in a2fjax/ of XDG_CACHE_HOME or ~/.cache; an empty A2F_CACHE keeps
nothing. Nothing depends on them but time: a folder that cannot be read or written, and a file that
is damaged, are as none.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from a2fjax import files
from a2fjax.errors import InputError, WorkFailed


def folder() -> Path | None:
    """Returns where arrays are kept, None where they are not."""
    given = os.environ.get("A2F_CACHE")
    if given is not None:
        return Path(given) if given else None
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "a2fjax" if os.path.isabs(base) else None


def find(name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Returns a kept float32 array of a shape, or None."""
    place = folder()
    if place is None:
        return None
    with contextlib.suppress(OSError, ValueError, EOFError):
        array = np.load(place / f"{name}.npy", allow_pickle=False)
        if array.shape == shape and array.dtype == np.float32 and np.isfinite(array).all():
            return np.asarray(array)
    return None


def keep(name: str, array: np.ndarray) -> None:
    """Keeps an array, where that is possible; it appears whole or not at all."""
    place = folder()
    if place is None:
        return
    with contextlib.suppress(OSError, InputError, WorkFailed):
        place.mkdir(parents=True, exist_ok=True)
        with files.atomic_write(place / f"{name}.npy") as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)


@functools.cache
def code(modules: Sequence[ModuleType]) -> bytes:
    """Returns a digest of the text of modules, which changes when what they compute may."""
    digest = hashlib.sha256()
    for module in modules:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    return digest.digest()
