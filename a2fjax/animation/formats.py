"""Reads and writes animation files by file name ending; `registry.writers` holds the formats.

A format is a class registered under the ending of its files:

    from a2fjax import registry

    @registry.writers.register(".txt")
    class TextFormat:
        def __init__(self, path, header): ...      # header: a2fjax.animation.formats.Header
        def write(self, motion): ...               # [N, 72] in rig units, as it comes
        def close(self): ...                       # all frames are written
        def abandon(self): ...                     # after an error: the file will be removed

        @staticmethod
        def read(path): ...                        # returns a tracks.Track; left out by formats
                                                   # that are only written
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax import budgets, files, registry, rig
from a2fjax.animation import tracks
from a2fjax.errors import InputError, nearest

CSV_ENDINGS = (".csv", ".channels.csv")


@dataclasses.dataclass(frozen=True)
class Header:
    """Properties of a motion that a writer needs before the first frame.

    Attributes:
      fps: frame rate of the motion to come, in frames per second.
      frames: number of frames to come.
      start: timecode HH:MM:SS:FF.fff of the first frame.
      metadata: small values for the formats that store metadata.
    """

    fps: Fraction
    frames: int
    start: str
    metadata: dict[str, Any]


class Writer(Protocol):
    """Writes motion to an open file block by block."""

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units at the header's frame rate."""

    def close(self) -> None:
        """Completes the file after the last frame."""

    def abandon(self) -> None:
        """Closes an incomplete file, which the caller then removes."""


def ending(path: str | Path) -> str:
    """Returns the registered ending of a file name, in lower case.

    Example:
        >>> ending("out/line1.channels.csv")
        '.channels.csv'

    Raises:
      InputError: no format has that ending; the message names the nearest one.
    """
    name = Path(path).name.lower()
    endings = registry.writers.names()
    for known in sorted(endings, key=len, reverse=True):
        if name.endswith(known):
            return known
    suffix = Path(path).suffix
    problem = f"unknown ending {suffix!r}" if suffix else "no ending"
    raise InputError(f"{path}: {problem} of an output file{nearest(suffix or '?', endings)}")


@contextlib.contextmanager
def writer(
    path: str | Path,
    *,
    fps: float | Fraction = rig.FPS,
    frames: int,
    start: str = "00:00:00:00.000",
    metadata: dict[str, Any] | None = None,
) -> Iterator[Writer]:
    """Opens a file for writing motion block by block; an error inside leaves no file.

    Args:
      path: output file; its ending selects the format.
      fps: frame rate of the motion, in frames per second.
      frames: number of frames to write.
      start: timecode of the first frame, for Live Link Face files.
      metadata: small values for the formats that store metadata (JSON, npz).

    Raises:
      InputError: unknown ending, unwritable file, or invalid start timecode.
    """
    format_class = registry.writers.get(ending(path)).load()
    header = Header(tracks.rate(fps), frames, start, dict(metadata or {}))
    with files.atomic_write(path) as temporary:
        file = format_class(temporary, header)
        try:
            yield file
        except BaseException:
            file.abandon()
            raise
        file.close()


def write(
    path: str | Path,
    motion: np.ndarray,
    *,
    fps: float | Fraction = rig.FPS,
    start: str = "00:00:00:00.000",
    metadata: dict[str, Any] | None = None,
) -> None:
    """Writes motion [T, 72] with frame rate `fps` to a file; see `writer`.

    Raises:
      InputError: as for `writer`.
    """
    with writer(path, fps=fps, frames=len(motion), start=start, metadata=metadata) as out:
        out.write(motion)


def read(path: str | Path) -> tracks.Track:
    """Reads a file of any registered format; a CSV's header selects one of the two CSV formats.

    Raises:
      InputError: unknown ending, a write-only format, or an error of the format's reader.
    """
    path = Path(path)
    kind = ending(path)
    entry = registry.writers.get(_csv_kind(path) if kind in CSV_ENDINGS else kind)
    reader = getattr(entry.load(), "read", None)
    if reader is None:
        raise InputError(f"{path}: files ending in {entry.name} are written, not read")
    return reader(path)


def _csv_kind(path: Path) -> str:
    with budgets.regular_file(path).open("rb") as file:
        head = file.readline(200).decode("utf-8", "replace").lstrip("\ufeff").lower()
    return ".csv" if head.startswith("timecode,blendshapecount") else ".channels.csv"
