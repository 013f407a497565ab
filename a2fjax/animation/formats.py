"""Animation files by ending, for reading and for writing; `registry.writers` holds the formats.

A format is a class that is registered under the ending of its files:

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

from a2fjax import files, registry, rig
from a2fjax.animation import tracks
from a2fjax.errors import InputError, nearest

CSV_ENDINGS = (".csv", ".channels.csv")


@dataclasses.dataclass(frozen=True)
class Header:
    """What is known of a motion before its first frame is written.

    Attributes:
      fps: frames a second of the motion to come.
      frames: number of frames to come.
      start: timecode HH:MM:SS:FF.fff of the first frame.
      metadata: small values for formats that keep some.
    """

    fps: Fraction
    frames: int
    start: str
    metadata: dict[str, Any]


class Writer(Protocol):
    """Writes motion to an open file as it comes."""

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units at the header's frame rate."""

    def close(self) -> None:
        """Ends the file after the last frame."""

    def abandon(self) -> None:
        """Closes a file that will not be completed and is removed."""


def ending(path: str | Path) -> str:
    """Returns the registered ending of a file name, in lower case.

    Example:
        >>> ending("out/line1.channels.csv")
        '.channels.csv'

    Raises:
      InputError: no format has that ending; names the nearest.
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
    """Opens a file to write motion to as it comes; an error inside leaves no file.

    Args:
      path: file; its ending selects the format.
      fps: frames a second of the motion that will be written.
      frames: number of frames that will be written.
      start: timecode of the first frame, for Live Link Face files.
      metadata: small values kept by the formats that can (JSON, npz).

    Raises:
      InputError: unknown ending, the file cannot be written, or a wrong start timecode.
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
    """Writes motion [T, 72], whose frames are at `fps`; see `writer`.

    Raises:
      InputError: as `writer`.
    """
    with writer(path, fps=fps, frames=len(motion), start=start, metadata=metadata) as out:
        out.write(motion)


def read(path: str | Path) -> tracks.Track:
    """Reads a file of any format; the header of a CSV shows which of the two it is.

    Raises:
      InputError: unknown ending, a format that is only written, or what its reader raises.
    """
    path = Path(path)
    kind = ending(path)
    entry = registry.writers.get(_csv_kind(path) if kind in CSV_ENDINGS else kind)
    reader = getattr(entry.load(), "read", None)
    if reader is None:
        raise InputError(f"{path}: files ending in {entry.name} are written, not read")
    return reader(path)


def _csv_kind(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:
        head = file.readline(200).decode("utf-8", "replace").lstrip("\ufeff").lower()
    return ".csv" if head.startswith("timecode,blendshapecount") else ".channels.csv"
