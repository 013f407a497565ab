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

A format may also state, as attributes of its class:

        takes = ("order", "names_map", "mouth_close", "head")   # options that it honours
        order = "arkit52"                                       # its columns, by default rig72
        companion = (".tongue.channels.csv", names)             # channels that it has no place for
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax import files, registry, rig
from a2fjax.animation import file_columns, tracks
from a2fjax.animation.file_columns import FileColumns
from a2fjax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of written files, beside the frame rate.

    Attributes:
      order: columns, one of `channel_orders.ORDERS`; None for the format's own.
      names_map: file of a map of names, see `file_columns`.
      mouth_close: convention of mouthClose, "arkit" or "nvidia"; None for ARKit's.
      head: of scenes: a file of shapes (`head_shapes`) or a name of `registry.heads`; None for the
        demo's.
      sound: file of the sound, which scenes refer to.
    """

    order: str | None = None
    names_map: str | Path | None = None
    mouth_close: str | None = None
    head: str | Path | None = None
    sound: Path | None = None


FLAGS = {
    "order": "--order",
    "names_map": "--names-map",
    "mouth_close": "--mouth-close",
    "head": "--head",
}
"""Options that a format may take, with their flags."""


@dataclasses.dataclass(frozen=True)
class Header:
    """Properties of a motion that a writer needs before the first frame.

    Attributes:
      fps: frame rate of the motion to come, in frames per second.
      frames: number of frames to come.
      start: timecode HH:MM:SS:FF.fff of the first frame.
      metadata: small values for the formats that store metadata.
      columns: columns of the formats whose columns are chosen.
      head: file or name of the head that scenes show; None for the demo's.
      sound: file of the sound, or None.
      path: of the file when it is complete; scenes refer to other files relative to it.
    """

    fps: Fraction
    frames: int
    start: str
    metadata: dict[str, Any]
    columns: FileColumns = dataclasses.field(default_factory=file_columns.choose)
    head: str | Path | None = None
    sound: Path | None = None
    path: Path = Path("animation")


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


def check_options(paths: Sequence[str | Path], options: Options) -> None:
    """Checks that files can honour what is asked of them.

    Raises:
      InputError: no file takes an option, a file cannot hold the convention of mouthClose that is
        asked for, or an order, map or convention that is not there.
    """
    taking = {path: _takes(path) for path in paths}
    for name, flag in FLAGS.items():
        value = getattr(options, name)
        if value is None or (name == "mouth_close" and value == "arkit"):
            continue
        able = [e.name for e in registry.writers if name in getattr(e.load(), "takes", ())]
        # Values of another convention in a file that does not say so would be read wrongly.
        wrong = [p for p in paths if name not in taking[p]]
        if wrong and (name == "mouth_close" or len(wrong) == len(paths)):
            raise InputError(f"{wrong[0]}: takes no {flag}; files that do: {', '.join(able)}")
    for path in paths:
        _columns(path, options)


def _takes(path: str | Path) -> tuple[str, ...]:
    return tuple(getattr(registry.writers.get(ending(path)).load(), "takes", ()))


def _columns(path: str | Path, options: Options) -> FileColumns:
    takes = _takes(path)
    default = str(getattr(registry.writers.get(ending(path)).load(), "order", "rig72"))
    return file_columns.choose(
        (options.order if "order" in takes else None) or default,
        options.names_map if "names_map" in takes else None,
        (options.mouth_close if "mouth_close" in takes else None) or "arkit",
    )


def with_companion(path: str | Path) -> list[tuple[Path, FileColumns | None]]:
    """Returns a file, and the file beside it for the channels that its format has no place for.

    Each comes with its columns, None for those that are asked for.

    Example:
        >>> [each.name for each, _ in with_companion("out/line1.csv")]
        ['line1.csv', 'line1.tongue_eyes.channels.csv']
        >>> [each.name for each, _ in with_companion("out/line1.npz")]
        ['line1.npz']
    """
    path, end = Path(path), ending(path)
    stated = getattr(registry.writers.get(end).load(), "companion", None)
    if stated is None:
        return [(path, None)]
    suffix, names = stated
    beside = path.with_name(path.name[: -len(end)] + suffix)
    return [(path, None), (beside, file_columns.of_channels(names))]


def is_companion(path: Path) -> bool:
    """Returns whether a file is the companion of one that is beside it."""
    for entry in registry.writers:
        suffix = getattr(entry.load(), "companion", ("",))[0]
        if suffix and path.name.endswith(suffix):
            if path.with_name(path.name[: -len(suffix)] + entry.name).exists():
                return True
    return False


@contextlib.contextmanager
def writer(
    path: str | Path,
    *,
    fps: float | Fraction = rig.FPS,
    frames: int,
    start: str = "00:00:00:00.000",
    metadata: dict[str, Any] | None = None,
    options: Options | None = None,
    columns: FileColumns | None = None,
) -> Iterator[Writer]:
    """Opens a file for writing motion block by block; an error inside leaves no file.

    Args:
      path: output file; its ending selects the format.
      fps: frame rate of the motion, in frames per second.
      frames: number of frames to write.
      start: timecode of the first frame, for Live Link Face files.
      metadata: small values for the formats that store metadata (JSON, npz, scenes).
      options: what else is asked for; see `check_options`.
      columns: columns to write; None for those of the options.

    Raises:
      InputError: unknown ending, unwritable file, or invalid start timecode; as `check_options`.
    """
    options = options or Options()
    check_options([path], options)
    format_class = registry.writers.get(ending(path)).load()
    header = Header(
        fps=tracks.rate(fps),
        frames=frames,
        start=start,
        metadata=dict(metadata or {}),
        columns=columns or _columns(path, options),
        head=options.head,
        sound=options.sound,
        path=Path(path),
    )
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
    options: Options | None = None,
    columns: FileColumns | None = None,
) -> None:
    """Writes motion [T, 72] with frame rate `fps` to a file; see `writer`.

    Raises:
      InputError: as for `writer`.
    """
    with writer(
        path,
        fps=fps,
        frames=len(motion),
        start=start,
        metadata=metadata,
        options=options,
        columns=columns,
    ) as out:
        out.write(motion)


def read(path: str | Path) -> tracks.Track:
    """Reads a file of any registered format.

    Raises:
      InputError: unknown ending, a write-only format, or an error of the format's reader.
    """
    path = Path(path)
    entry = registry.writers.get(ending(path))
    reader = getattr(entry.load(), "read", None)
    if reader is None:
        raise InputError(f"{path}: files ending in {entry.name} are written, not read")
    return reader(path)
