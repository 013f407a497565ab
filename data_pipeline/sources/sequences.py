"""Reads moving vertices frame by frame: folders of OBJ or PLY files, and similar readers.

A few unusable frames (truncated, another topology) count as dropped out (NaN), because captures
occasionally lose a frame.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from a2fjax import channel_orders
from a2fjax.animation import mesh, mouth_close
from a2fjax.errors import InputError
from data_pipeline.mesh.geometry import Vertices
from data_pipeline.sources.frame_names import number_frames

MESHES = (".ply", ".obj")
MAX_DROPPED = 0.05
"""Share of a take's frames that may drop out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionFile:
    """The contents of an animation file or folder.

    Attributes:
      numbers: [F] frames since the first, increasing; a gap is a missing frame.
      times: [F] seconds if the file states them, else None.
      vertices: [F, V, 3], or None for curves.
      faces: [N, 3] int32; no rows if there are none.
      rest: [V, 3] mesh without animation, or None.
      curves: [F, 72] in rig units, or None.
      observed: [72] mask of the channels in `curves`, or None.
      millimetres: one unit of the vertices in mm if the file states it, else 0.
      axes: [3, 3] signed permutation of the vertices to right-handed axes if the file states them,
        else None.
      notes: decisions, as text.
      name: the file, for messages.
    """

    numbers: np.ndarray
    times: np.ndarray | None = None
    vertices: Vertices | None = None
    faces: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    rest: np.ndarray | None = None
    curves: np.ndarray | None = None
    observed: np.ndarray | None = None
    millimetres: float = 0.0
    axes: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    name: str = ""


def named_curves(
    weights: np.ndarray, names: Sequence[str], where: Path, *, convention: str = "arkit"
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns (curves [F, 72], observed [72]) from named weights, or None for other names.

    Unknown names are ignored if they never move. Text before a dot in a name is the node name
    that an exporter added.

    Args:
      weights: [F, N].
      names: [N].
      where: location for messages.
      convention: of mouthClose, as the file states it (`animation.mouth_close`).

    Raises:
      InputError: weights that are not finite, a duplicate name, or an unknown convention.
    """
    mouth_close.check(convention, f"{where}: {mouth_close.KEY}")
    if not np.isfinite(weights).all():
        raise InputError(f"{where}: has weights that are not finite")
    known = []
    for column, name in enumerate(names):
        plain = name.rpartition(".")[2]
        if _is_channel(plain):
            known.append((column, plain))
        elif np.abs(weights[:, column]).max(initial=0.0) > 0:
            return None
    if not known:
        return None
    try:
        columns = [column for column, _ in known]
        curves, observed = channel_orders.from_names(
            weights[:, columns], [name for _, name in known]
        )
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return mouth_close.to_rig(curves, convention), observed


def _is_channel(name: str) -> bool:
    try:
        channel_orders.from_names(np.zeros((1, 1)), [name])
    except InputError:
        return False
    return True


class FrameSequence:
    """Vertices read on demand, frame by frame; unusable frames are NaN.

    Attributes:
      shape: (frames, vertices, 3).
    """

    def __init__(self, shape: tuple[int, int, int], read: Callable[[int], np.ndarray], name: str):
        """Stores the reader.

        Args:
          shape: (frames, vertices, 3).
          read: returns the vertices [V, 3] of a frame; raises InputError if it cannot.
          name: name for messages.
        """
        self.shape = shape
        self.name = name
        self._read = read
        self._lost: set[int] = set()

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Returns vertices [n, V, 3] float32.

        Raises:
          InputError: more than `MOST_LOST` of the frames cannot be used.
        """
        chosen = range(*frames.indices(self.shape[0]))
        out = np.full((len(chosen), *self.shape[1:]), np.nan, np.float32)
        for row, frame in enumerate(chosen):
            try:
                vertices = self._read(frame)
                if vertices.shape != self.shape[1:]:
                    raise InputError(
                        f"{self.name}: frame {frame} has {len(vertices)} vertices, "
                        f"the first has {self.shape[1]}"
                    )
            except InputError as error:
                self._lost.add(frame)
                if len(self._lost) > max(1, int(MAX_DROPPED * self.shape[0])):
                    raise InputError(
                        f"{error}; {len(self._lost)} of {self.shape[0]} frames cannot be used"
                    ) from None
                continue
            out[row] = vertices
        out[~np.isfinite(out).all(axis=2)] = np.nan
        return out


def has_frames(folder: Path) -> bool:
    """Returns whether a folder holds OBJ or PLY files with a number in their name."""
    with os.scandir(folder) as entries:
        return any(_is_frame(e.name) for e in entries)


def _is_frame(name: str) -> bool:
    stem, ending = os.path.splitext(name)
    return name[0] != "." and ending.lower() in MESHES and any(c.isdecimal() for c in stem)


def frame_files(folder: Path) -> tuple[list[Path], np.ndarray]:
    """Returns the files of a sequence in the order of their numbers, and their frames [F].

    See `frame_names.number_frames` for the number. If all numbers are a constant step apart
    (Multiface's cameras count three fields per frame), one step is one frame.

    Raises:
      InputError: there is none, or two have the same number.
    """
    by_suffix: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        if _is_frame(name):
            by_suffix.setdefault(os.path.splitext(name)[1].lower(), []).append(name)
    if not by_suffix:
        raise InputError(f"{folder}: no .obj or .ply file with a frame number in its name")
    # If a folder has both kinds, the more frequent one is the sequence, PLY (faster) before OBJ.
    kind = max((e for e in MESHES if e in by_suffix), key=lambda e: len(by_suffix[e]))
    names = sorted(by_suffix[kind])
    found = number_frames([os.path.splitext(name)[0] for name in names], str(folder))
    frames = sorted(zip(found, names, strict=True))
    for (number, name), (again, other) in zip(frames, frames[1:], strict=False):
        if number == again:
            raise InputError(f"{folder}: {name} and {other} are both frame {number}")
    numbers = np.array([number for number, _ in frames], np.int64)
    numbers -= numbers[0]
    if len(numbers) > 1:
        gaps = np.diff(numbers)
        step = math.gcd(*(int(gap) for gap in gaps))
        if 2 * int((gaps == step).sum()) >= len(gaps):
            numbers //= step
    return [folder / name for _, name in frames], numbers


def read_folder(folder: Path) -> MotionFile:
    """Opens a folder of meshes, one file per frame; reads only the first.

    Raises:
      InputError: no frames, or the first is not a mesh.
    """
    files, numbers = frame_files(folder)
    vertices, topology = mesh.read_frame(files[0])
    faces = mesh.read_faces(files[0])
    if len(vertices) < 4:
        raise InputError(f"{files[0]}: {len(vertices)} vertices, expected at least 4")
    reader = _FileReader(files, faces, topology)
    shape = (len(files), len(vertices), 3)
    return MotionFile(
        numbers=numbers, vertices=FrameSequence(shape, reader, str(folder)), faces=faces
    )


class _FileReader:
    """Reads the n-th file, which must have the faces of the first."""

    def __init__(self, files: Sequence[Path], faces: np.ndarray, topology: bytes):
        self.files = files
        self.faces = faces
        self.topologies = {topology}

    def __call__(self, frame: int) -> np.ndarray:
        path = self.files[frame]
        vertices, topology = mesh.read_frame(path)
        if topology not in self.topologies:
            # The same faces may be written in several ways: check each way once.
            if not np.array_equal(mesh.read_faces(path), self.faces):
                raise InputError(f"{path}: its faces are not those of {self.files[0].name}")
            self.topologies.add(topology)
        return vertices
