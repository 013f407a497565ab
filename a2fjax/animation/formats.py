"""Which file ending is which format, for reading and for writing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax import files, rig
from a2fjax.animation import livelink, named_curves, tracks
from a2fjax.errors import InputError, nearest

ENDINGS = {
    ".csv": "Live Link Face CSV",
    ".channels.csv": "CSV of time and one column a channel",
    ".json": "JSON with names",
    ".npz": "NumPy archive",
}


class Writer(Protocol):
    """Takes motion as it comes."""

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units at the writer's frame rate."""


def ending(path: str | Path) -> str:
    """Returns which of `ENDINGS` a file name has, in lower case.

    Raises:
      InputError: none of them; names the nearest.
    """
    name = Path(path).name.lower()
    for known in sorted(ENDINGS, key=len, reverse=True):
        if name.endswith(known):
            return known
    suffix = Path(path).suffix
    what = f"unknown ending {suffix!r}" if suffix else "no ending"
    raise InputError(f"{path}: {what} of an output file{nearest(suffix or '?', ENDINGS)}")


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
      path: its ending names the format.
      fps: of the motion that will be written.
      frames: how many will be written.
      start: timecode of the first frame, Live Link only.
      metadata: small values kept by the formats that can (JSON, npz).

    Raises:
      InputError: unknown ending, the file cannot be written, or a wrong start timecode.
    """
    kind = ending(path)
    metadata = metadata or {}
    with files.atomic_write(path) as temporary:
        if kind == ".npz":
            with open(temporary, "wb") as file:
                archive = named_curves.NpzWriter(file, fps=fps, frames=frames, **metadata)
                try:
                    yield archive
                except BaseException:
                    archive.abandon()
                    raise
                archive.close()
            return
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            text: livelink.Writer | named_curves.ChannelsWriter | named_curves.JsonWriter
            if kind == ".csv":
                text = livelink.Writer(file, fps=fps, start=start)
            elif kind == ".channels.csv":
                text = named_curves.ChannelsWriter(file, fps=fps)
            else:
                text = named_curves.JsonWriter(file, fps=fps, **metadata)
            yield text
            text.close()


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
    """Reads any of the formats; a CSV tells by its header which one it is.

    Raises:
      InputError: unknown ending, or what the format's reader raises.
    """
    path = Path(path)
    kind = ending(path)
    if kind == ".npz":
        return named_curves.read_npz(path)
    if kind == ".json":
        return named_curves.read_json(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:
        head = file.readline(200).decode("utf-8", "replace").lstrip("\ufeff").lower()
    if head.startswith("timecode,blendshapecount"):
        return livelink.read(path).track()
    return named_curves.read_csv(path)
