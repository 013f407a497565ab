"""Reads Maya geometry caches: .mc and .mcx with an .xml description, one file per shot or frame.

A file is a tree of big-endian blocks (tag, size, content): FOR4 CACH with VRSN, STIM and ETIM, then
one FOR4 MYCH per frame with TIME and, for each channel, CHNM (its name), SIZE (of its array) and
FVCA or DVCA (vectors of floats or doubles). FOR8 blocks have 64-bit sizes. Times are in ticks of
1/6000 s. The description states how frames are distributed over files (OneFile or
OneFilePerFrame), the ticks per frame and the meaning of channels; see Autodesk's "Geometry cache
XML description file".
"""

from __future__ import annotations

import dataclasses
import re
import struct
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from a2fjax import budgets
from a2fjax.errors import InputError
from data_pipeline.mesh.geometry import Vertices

SUFFIXES = (".mc", ".mcx")
TICKS_PER_SECOND = 6000
"""Time unit of Maya caches; 200 ticks are a frame at 30 a second."""

_FRAME = re.compile(r"(?P<shot>.+)Frame(?P<frame>-?\d+)(?:Tick(?P<tick>-?\d+))?", re.DOTALL)
_VECTORS: dict[bytes, np.dtype[Any]] = {b"FVCA": np.dtype(">f4"), b"DVCA": np.dtype(">f8")}
_GROUPS = (b"FOR4", b"FOR8")


@dataclasses.dataclass(frozen=True)
class Description:
    """The contents of an .xml description.

    Attributes:
      per_frame: whether every frame is a separate file.
      ticks: ticks per frame, 0 if not given.
      positions: names of channels that are interpreted as positions.
    """

    per_frame: bool = False
    ticks: float = 0.0
    positions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Block:
    """Location of the values of a channel in a frame."""

    file: int
    offset: int
    count: int
    kind: bytes


class MayaCache:
    """Frames of a Maya cache: blocks are located once and read on demand.

    Attributes:
      shape: (frames, vertices, 3).
    """

    def __init__(self, files: Sequence[Path], blocks: Sequence[_Block]):
        """Stores the location of each frame's values."""
        self.files = tuple(files)
        self.blocks = tuple(blocks)
        self.shape = (len(blocks), blocks[0].count, 3)

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Returns vertices [n, V, 3] float32."""
        chosen = self.blocks[frames]
        out = np.empty((len(chosen), *self.shape[1:]), np.float32)
        opened: tuple[int, BinaryIO] | None = None
        try:
            for row, block in enumerate(chosen):
                if opened is None or opened[0] != block.file:
                    if opened is not None:
                        opened[1].close()
                    opened = block.file, self.files[block.file].open("rb")
                opened[1].seek(block.offset)
                values = np.fromfile(opened[1], _VECTORS[block.kind], block.count * 3)
                out[row] = values.reshape(self.shape[1:])
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.files[block.file]}: changed while it was read ({error})"
            ) from None
        finally:
            if opened is not None:
                opened[1].close()
        return out


def frame_files(description: Path) -> list[Path]:
    """Returns the files of a one-file-per-frame cache, in order of time, from its .xml."""
    numbered = []
    for path in description.parent.iterdir():
        match = _FRAME.fullmatch(path.stem)
        if match and match["shot"] == description.stem and path.suffix.lower() in SUFFIXES:
            numbered.append((int(match["frame"]), int(match["tick"] or 0), path))
    return [path for _, _, path in sorted(numbered)]


def is_frame_file(path: Path) -> bool:
    """Returns whether a file is one frame of a cache whose .xml is beside it."""
    match = _FRAME.fullmatch(path.stem)
    return match is not None and path.with_name(f"{match['shot']}.xml").is_file()


def read_description(path: Path) -> Description:
    """Reads an .xml description; an empty one where there is no file.

    Raises:
      InputError: not XML, or not of a cache.
    """
    if not path.is_file():
        return Description()
    try:
        # The parser itself limits what entities expand to.
        root = ElementTree.fromstring(budgets.read_bytes(path))
        kind = root.find("cacheType")
        frame = root.find("cacheTimePerFrame")
        ticks = 0.0 if frame is None else float(frame.get("TimePerFrame", "0"))
        channels = root.find("Channels")
        positions = tuple(
            each.get("ChannelName", "")
            for each in ([] if channels is None else channels)
            if each.get("ChannelInterpretation") == "positions"
        )
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not a description of a Maya cache ({error})") from None
    cache_type = "OneFile" if kind is None else kind.get("Type", "OneFile")
    if cache_type not in ("OneFile", "OneFilePerFrame"):
        raise InputError(f"{path}: cache of type {cache_type}, expected OneFile or OneFilePerFrame")
    return Description(
        cache_type == "OneFilePerFrame", ticks if np.isfinite(ticks) else 0.0, positions
    )


def read_cache(path: Path, vertices: int | None, channel: str = "") -> tuple[Vertices, np.ndarray]:
    """Opens a cache; returns (vertices [F, V, 3], times [F] in s from the first frame).

    Args:
      path: path of the .mc or .mcx, or of the .xml of a one-file-per-frame cache.
      vertices: number of vertices of the mesh, to select a channel. None accepts any.
      channel: name of the channel to read where several could be the mesh, or "".

    Raises:
      InputError: missing, truncated, of another kind, or not exactly one matching channel.
    """
    description = read_description(path.with_suffix(".xml"))
    files = [path]
    if path.suffix.lower() == ".xml":
        files = frame_files(path)
        if not files:
            raise InputError(f"{path}: no {path.stem}Frame<number>.mc beside it")
    elif description.per_frame:
        raise InputError(
            f"{path.with_suffix('.xml')}: cache of type OneFilePerFrame, expected OneFile for "
            f"{path.name}, or {path.stem}Frame<number>.mc in its place"
        )
    times: list[float] = []
    frames: list[dict[str, _Block]] = []
    for number, file in enumerate(files):
        for ticks, channels in _frames(file, number):
            if ticks is None:
                match = _FRAME.fullmatch(file.stem)
                if match is None or not description.ticks:
                    raise InputError(f"{file}: frame {len(frames)} has no time")
                ticks = int(match["frame"]) * description.ticks + int(match["tick"] or 0)
            times.append(ticks)
            frames.append(channels)
            budgets.check("frames_millions", len(frames) / 1e6, file)
    if not frames:
        raise InputError(f"{path}: has no frames")
    name = _choose(path, frames, description, vertices, channel)
    blocks = []
    for n, channels in enumerate(frames):
        block = channels.get(name)
        if block is None:
            raise InputError(f"{path}: frame {n} has no channel {name!r}")
        if (block.count, block.kind) != (frames[0][name].count, frames[0][name].kind):
            raise InputError(f"{path}: the number of vertices changes between frames (frame {n})")
        blocks.append(block)
    ticks_at = np.array(times, np.float64)
    if not (np.diff(ticks_at) > 0).all():
        raise InputError(f"{path}: frame times do not increase")
    return MayaCache(files, blocks), (ticks_at - ticks_at[0]) / TICKS_PER_SECOND


def _choose(
    path: Path,
    frames: Sequence[dict[str, _Block]],
    description: Description,
    vertices: int | None,
    channel: str,
) -> str:
    """Returns the name of the mesh's channel."""
    first = frames[0]
    if not first:
        raise InputError(f"{path}: frame 0 has no channel of vectors")
    fits = [n for n, b in first.items() if b.count and vertices in (None, b.count)]
    meant = [
        n
        for n in fits
        if n in description.positions or n.lower().endswith(("positions", "position"))
    ]
    asked = [n for n in fits if n.lower() == channel.lower()]
    if asked:
        return asked[0]
    if len(fits) == 1 or len(meant) == 1:
        return (meant or fits)[0]
    listed = ", ".join(f"{n} ({b.count} vertices)" for n, b in list(first.items())[:8])
    if not fits:
        if len(first) == 1:
            return next(iter(first))  # The caller checks its number of vertices.
        raise InputError(f"{path}: no channel has the mesh's {vertices} vertices; it has {listed}")
    raise InputError(
        f"{path}: several channels could be the mesh: {listed}; --config.animation=NAME chooses one"
    )


def _frames(path: Path, number: int) -> Iterator[tuple[float | None, dict[str, _Block]]]:
    """Yields (time in ticks or None, channels of vectors) of each frame of a file."""
    size = path.stat().st_size
    start: float | None = None
    with path.open("rb") as file:
        at = frame = 0
        while at < size:
            tag, content, end = _group(path, file, at, size, frame)
            wide = tag == b"FOR8"
            file.seek(content)
            form = file.read(4)
            inside = _blocks(path, file, content + 4, end, wide, frame)
            if form == b"CACH":
                for kind, offset, length in inside:
                    if kind == b"STIM":
                        start = _integer(file, offset, length)
            elif form == b"MYCH":
                yield _channels(path, file, inside, number, frame, start)
                frame += 1
            else:
                raise InputError(f"{path}: truncated or damaged at byte {at} (frame {frame})")
            at = end


def _group(
    path: Path, file: BinaryIO, offset: int, size: int, frame: int
) -> tuple[bytes, int, int]:
    """Returns (tag, start and end of the content) of the block at `at`, padding included."""
    file.seek(offset)
    head = file.read(16)
    tag = head[:4]
    if tag not in _GROUPS:
        if not offset:
            raise InputError(f"{path}: not a Maya cache")
        raise InputError(f"{path}: truncated or damaged at byte {offset} (frame {frame})")
    wide = tag == b"FOR8"
    if len(head) < (16 if wide else 8):
        raise InputError(f"{path}: truncated: frame {frame} is incomplete")
    length = struct.unpack(">q", head[8:16])[0] if wide else struct.unpack(">I", head[4:8])[0]
    content = offset + (16 if wide else 8)
    if length < 4 or content + length > size:
        raise InputError(f"{path}: truncated: frame {frame} is incomplete")
    end = content + length
    # Sizes exclude padding, and two alignments are in use for the next block.
    for padded in (end, end + -length % 4, end + -length % 8):
        file.seek(padded)
        if padded >= size or file.read(4) in _GROUPS:
            return tag, content, padded
    return tag, content, end


def _blocks(
    path: Path, file: BinaryIO, offset: int, end: int, wide: bool, frame: int
) -> list[tuple[bytes, int, int]]:
    """Returns (tag, start, length) of the blocks between two offsets."""
    header, blocks = (16 if wide else 8), []
    while offset + header <= end:
        file.seek(offset)
        head = file.read(header)
        if wide and head[:4] == b"\0\0\0\0":
            offset += 4
            continue
        length = struct.unpack(">q" if wide else ">I", head[-8:] if wide else head[4:])[0]
        if not head[:4].isalnum() or length < 0 or offset + header + length > end:
            raise InputError(f"{path}: damaged at byte {offset} (frame {frame})")
        blocks.append((head[:4], offset + header, length))
        offset += header + length
        offset += -length % (8 if wide else 4)
    return blocks


def _channels(
    path: Path,
    file: BinaryIO,
    inside: Sequence[tuple[bytes, int, int]],
    number: int,
    frame: int,
    start: float | None,
) -> tuple[float | None, dict[str, _Block]]:
    ticks, name, size = start, "", -1
    channels: dict[str, _Block] = {}
    for kind, offset, length in inside:
        if kind == b"TIME":
            ticks = _integer(file, offset, length)
        elif kind == b"CHNM":
            file.seek(offset)
            name = file.read(length).rstrip(b"\0").decode("utf-8", "replace")
        elif kind == b"SIZE":
            size = int(_integer(file, offset, length))
        elif kind in _VECTORS:
            each = 3 * _VECTORS[kind].itemsize
            count = length // each
            if length % each or size not in (-1, count):
                raise InputError(
                    f"{path}: frame {frame}: {name} has {length} bytes for {size} vertices"
                )
            if name in channels:
                raise InputError(f"{path}: frame {frame}: channel {name!r} appears twice")
            channels[name] = _Block(number, offset, count, kind)
            name, size = "", -1
    return ticks, channels


def _integer(file: BinaryIO, offset: int, length: int) -> float:
    file.seek(offset)
    body = file.read(8 if length >= 8 else 4)
    return float(struct.unpack(">q" if len(body) == 8 else ">i", body)[0])
