"""Rigs: a neutral mesh and named shapes, read from files and made ready to solve on.

A rig is either a person's own (their capture comes with shapes) or a template, whose shapes are
carried over to people of the same topology that have none; see `transfer`.
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax import rig as channels_of_rig
from a2fjax.errors import InputError, nearest
from data_pipeline import conventions
from data_pipeline.conventions import MILLIMETRES, units_of
from data_pipeline.sources import Face

_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile)
_COLUMNS = {
    column.name.lower(): column.channel
    for layout in channels_of_rig.LAYOUTS.values()
    for column in layout.columns
    if column.channel is None or channels_of_rig.INDEX[column.channel] < 68
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rig:
    """A head's neutral mesh and its shapes, as a file has them.

    Attributes:
      neutral: [V, 3] in `units`.
      deltas: [K, V, 3] displacements at weight one, in `units`.
      names: [K] of the shapes, as the file writes them.
      faces: [F, 3] int32 triangles; no rows where the file has none.
      mask: [M] indices of vertices to solve on, or None for all.
      units: "mm", "cm" or "m"; "" where the file does not say.
    """

    neutral: np.ndarray
    deltas: np.ndarray
    names: tuple[str, ...]
    faces: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    mask: np.ndarray | None = None
    units: str = ""


def read(path: str | Path) -> Rig:
    """Reads a rig.

    Args:
      path: an .npz file with `poseNames`, `neutral` and an array of deltas for each pose.

    Raises:
      InputError: not a rig, damaged, or shapes of another size than the neutral.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = {k: data[k] for k in data.files}
        names = [str(n) for n in arrays["poseNames"]]
        neutral = np.asarray(arrays["neutral"], np.float64)
        poses = [n for n in names if n != "neutral"]
        shapes = [np.asarray(arrays[n], np.float64) for n in poses]
    except _READ_ERRORS as error:
        raise InputError(f"{path}: not a set of shapes ({error})") from None
    if neutral.ndim != 2 or neutral.shape[1:] != (3,) or len(neutral) < 4 or not shapes:
        raise InputError(f"{path}: neutral has shape {neutral.shape}, expected [V, 3], V >= 4")
    for name, shape in zip(poses, shapes, strict=True):
        if shape.shape != neutral.shape or not np.isfinite(shape).all():
            raise InputError(
                f"{path}: {name} has shape {shape.shape}, expected finite {neutral.shape}"
            )
    return Rig(
        neutral=neutral,
        deltas=np.stack(shapes),
        names=tuple(poses),
        mask=_mask(path, arrays.get("frontalMask"), len(neutral)),
    )


def face(
    rig: Rig,
    *,
    units: str = "auto",
    axes: str = "auto",
    mouth_close: str = "auto",
    stable: np.ndarray | None = None,
    part: str = "skin",
    name: str = "rig",
) -> Face:
    """Returns a rig ready to solve on: millimetres, the rig's channels, halves added up.

    Args:
      rig: see `read`.
      units: of the capture: "mm", "cm" or "m"; "auto" goes by the rig's, else by the size of a
        head.
      axes: of the capture, see `conventions.parse_axes`; "auto" takes the rig's own.
      mouth_close: "arkit", "nvidia" or "auto"; see `sources.SourceOptions`.
      stable: [N] indices of vertices that only move with the head, or None to find them.
      part: "skin" or "tongue", for notes.
      name: for messages.

    Raises:
      InputError: unknown shapes, or an option of unknown value.
    """
    unit = (rig.units or units_of(rig.neutral)) if units == "auto" else units
    if unit not in MILLIMETRES:
        raise InputError(f"--config.units={unit!r}{nearest(unit, ('auto', *MILLIMETRES))}")
    scale = MILLIMETRES[unit]
    turn = np.eye(3) if axes == "auto" else conventions.parse_axes(axes)
    channels, deltas = merge(name, rig.names, rig.deltas @ (scale * turn).T)
    notes = [f"{part}: vertices in {unit}, {len(channels)} shapes"]
    notes += [note for note in [relative_mouth_close(channels, deltas, mouth_close)] if note]
    return Face(
        neutral=rig.neutral @ (scale * turn).T,
        deltas=deltas,
        channels=tuple(channels),
        keep=np.arange(len(rig.neutral)) if rig.mask is None else rig.mask,
        stable=stable,
        millimetres=scale,
        axes=turn,
        notes=tuple(notes),
    )


def merge(name: str, poses: Sequence[str], shapes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Returns channels [K] and their shapes [K, V, 3]: halves of one channel are added up.

    Args:
      name: for messages.
      poses: names of any order of `rig.LAYOUTS`, in any case.
      shapes: [len(poses), V, 3].

    Raises:
      InputError: a name that no layout has, or no shape of the rig at all.
    """
    merged: dict[str, np.ndarray] = {}
    for pose, shape in zip(poses, shapes, strict=True):
        key = pose.lower()
        if key not in _COLUMNS:
            try:
                channels_of_rig.channel_index(pose)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        channel = _COLUMNS.get(key)
        if channel is not None:
            merged[channel] = merged.get(channel, 0.0) + shape
    if not merged:
        raise InputError(f"{name}: holds no shape of the rig")
    channels = sorted(merged, key=channels_of_rig.INDEX.__getitem__)
    return channels, np.stack([merged[c] for c in channels])


def relative_mouth_close(channels: Sequence[str], deltas: np.ndarray, convention: str) -> str:
    """Makes mouthClose relative to an open jaw, as ARKit has it, in place; says what was done.

    NVIDIA's includes jawOpen. Told apart by how much of jawOpen is in it: about 1 there, below 0
    where it only brings the lips together.

    Args:
      channels: [K] names.
      deltas: [K, V, 3], changed.
      convention: "arkit", "nvidia" or "auto".

    Raises:
      InputError: another convention.
    """
    if convention not in ("auto", "arkit", "nvidia"):
        raise InputError(f"--config.mouth_close={convention!r}: expected auto, arkit or nvidia")
    if not {"mouthClose", "jawOpen"} <= set(channels):
        return ""
    place = list(channels)
    close, jaw = deltas[place.index("mouthClose")], deltas[place.index("jawOpen")]
    share = float((close * jaw).sum() / max((jaw * jaw).sum(), 1e-12))
    if convention == "nvidia" or (convention == "auto" and share > 0.4):
        close -= jaw
        return f"mouthClose includes jawOpen (share {share:.2f}): subtracted"
    return f"mouthClose is relative to an open jaw (share of jawOpen {share:.2f})"


def _mask(path: Path, mask: np.ndarray | None, count: int) -> np.ndarray | None:
    """Returns indices from frontalMask: vertex numbers, or one 0 or 1 a vertex; None if none."""
    if mask is None or not np.size(mask):
        return None
    mask = np.asarray(mask).reshape(-1)
    if len(mask) == count and np.isin(mask, (0, 1)).all():
        mask = np.flatnonzero(mask)
    mask = np.unique(mask.astype(np.int64))
    if not len(mask) or mask[0] < 0 or mask[-1] >= count:
        raise InputError(f"{path}: frontalMask names vertices that are not among the {count}")
    return mask
