"""Blendshapes of a face in the unit, axes and channels of the rig, built from rig files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from a2fjax import channel_orders
from a2fjax import rig as channel_rig
from a2fjax.errors import InputError, nearest
from data_pipeline.mesh import conventions
from data_pipeline.mesh.conventions import MILLIMETRES, guess_units
from data_pipeline.mesh.rigs import Rig
from data_pipeline.mesh.transfer import size_ratio, transfer

_SAME_MM = 0.02  # root mean square; float32 in metres is rounded by 1e-5
_COLUMNS = {
    column.name.lower(): column.channel
    for layout in channel_orders.ORDERS.values()
    for column in layout.columns
    if column.channel is None or channel_rig.INDEX[column.channel] < 68
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blendshapes:
    """The neutral mesh and the named shapes of a part (skin or tongue) of an actor's face.

    Attributes:
      neutral: [V, 3] mm.
      deltas: [K, V, 3] mm.
      channels: [K] names in `rig.CHANNELS`.
      keep: [M] indices of the vertices to solve on.
      stable: [N] indices of the vertices that only move with the head, or None to detect them.
      millimetres: one unit of the capture's files in mm.
      notes: decisions, as text.
      axes: [3, 3] signed permutation: a point p of the capture's files is `millimetres * axes @ p`
        in the rig's axes.
      transferred: whether the shapes were transferred from another head to this neutral.
    """

    neutral: np.ndarray
    deltas: np.ndarray
    channels: tuple[str, ...]
    keep: np.ndarray
    stable: np.ndarray | None
    millimetres: float
    notes: tuple[str, ...] = ()
    axes: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
    transferred: bool = False


def make_blendshapes(
    rig: Rig,
    *,
    neutral: np.ndarray | None = None,
    units: str = "auto",
    axes: str = "auto",
    mouth_close: str = "auto",
    stable: np.ndarray | None = None,
    part: str = "skin",
    name: str = "rig",
) -> Blendshapes:
    """Returns shapes ready to solve on: millimetres, the rig's axes and channels.

    Without `neutral`, the rig belongs to the person; if it states no unit, it is in the capture's.
    With it, units and axes are estimated by comparing the two heads
    (`conventions.find_convention`), the neutral is aligned to the rig's, and if it is another head
    the shapes are transferred (`transfer`).

    Args:
      rig: see `rigs.read_rig`.
      neutral: [V, 3] the person's neutral mesh in the capture's unit and axes; non-finite vertices
        are taken from the rig and not solved on.
      units: units of the capture: "mm", "cm" or "m"; "auto" estimates them, else uses the rig's,
        else guesses them from the size of a head.
      axes: axes of the capture, see `conventions.parse_axes`; "auto" estimates them from the
        template or from the names of the shapes (`conventions.axes_from_shapes`), else uses the
        rig's. A rig without `neutral` follows them unless its names say that it is the mirror
        image.
      mouth_close: "arkit", "nvidia" or "auto"; see `sources.SourceOptions`.
      stable: [N] indices of vertices that only move with the head, or None to detect them.
      part: "skin" or "tongue", for notes.
      name: name for messages.

    Raises:
      InputError: unknown shapes, an option of unknown value, or a neutral that is not of the rig's
        topology.
    """
    if units not in ("auto", *MILLIMETRES):
        raise InputError(f"--config.units={units!r}{nearest(units, ('auto', *MILLIMETRES))}")
    given = "" if units == "auto" or neutral is not None else units
    rig_unit = rig.units or given or guess_units(rig.neutral)
    keep = np.arange(len(rig.neutral)) if rig.mask is None else rig.mask
    channels, deltas, notes = _solvable(name, rig, mouth_close)
    named_axes = conventions.axes_from_shapes(rig.neutral, channels, deltas)
    transferred = False
    if neutral is None:
        unit = given or rig_unit
        own = np.eye(3) if named_axes is None else named_axes
        turn, why = own, "as in the rig" if named_axes is None else "judged by the names of shapes"
        if axes != "auto":
            turn, why = conventions.parse_axes(axes), "given by --config.axes"
            # The rig may be right-handed where the capture is not.
            own = turn if np.linalg.det(turn) == np.linalg.det(own) else own
        notes.append(f"axes: {conventions.axes_name(turn)}, {why}")
        matrix = MILLIMETRES[rig_unit] * own
        rest, deltas = rig.neutral @ matrix.T, deltas @ matrix.T
    else:
        matrix = MILLIMETRES[rig_unit] * (np.eye(3) if named_axes is None else named_axes)
        template, deltas = rig.neutral @ matrix.T, deltas @ matrix.T
        convention = conventions.find_convention(
            neutral, template, units=units, axes=axes, name=name
        )
        unit, turn = convention.units, convention.axes
        rest = convention.aligned(np.asarray(neutral, np.float64))
        holes = np.logical_not(np.isfinite(rest).all(axis=1))
        further = f"; the next choice differs {convention.margin:.1f} times as much"
        notes.append(
            f"axes: {conventions.axes_name(turn)}, unit: {unit}; so the neutral mesh differs by "
            f"{100 * convention.residual:.1f} % of the head's radius from the rig's"
            + (further if np.isfinite(convention.margin) else "")
        )
        if holes.any():
            rest[holes] = _filled(rest, template, holes)
            keep = keep[~holes[keep]]
            notes.append(f"{holes.sum()} vertices have no position in the neutral mesh: left out")
        transferred = bool(np.sqrt(((rest - template) ** 2).sum(axis=1).mean()) > _SAME_MM)
        if transferred:
            deltas = transfer(template, deltas, rig.faces, rest)
            way = "deformation transfer" if len(rig.faces) else "scaling"
            size = size_ratio(template, rest)
            notes.append(f"shapes are carried over from the rig by {way}, scaled by {size:.3f}")
    return Blendshapes(
        neutral=rest,
        deltas=deltas,
        channels=tuple(channels),
        keep=keep,
        stable=stable,
        millimetres=MILLIMETRES[unit],
        axes=turn,
        transferred=transferred,
        notes=(f"{part}: {len(channels)} shapes", *notes),
    )


def _solvable(name: str, rig: Rig, mouth_close: str) -> tuple[list[str], np.ndarray, list[str]]:
    """Returns channels, their shapes in the rig file's unit and axes, and notes."""
    channels, merged = merge_channels(name, rig.names, rig.deltas)
    dropped = [n for n in rig.names if _COLUMNS.get(n.lower(), n) is None]
    notes = [f"shapes without a channel, left out: {', '.join(dropped)}"] if dropped else []
    note = relative_mouth_close(channels, merged, mouth_close)
    return channels, merged, [*notes, note] if note else notes


def _filled(rest: np.ndarray, template: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Returns the template's vertices of the holes, moved like their nearest known vertex."""
    from scipy.spatial import cKDTree

    known = np.flatnonzero(~holes)
    _, near = cKDTree(template[known]).query(template[holes])
    return template[holes] + (rest - template)[known[near]]


def merge_channels(
    name: str, poses: Sequence[str], shapes: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Returns channels [K] and their shapes [K, V, 3]; halves of one channel are summed.

    Args:
      name: name for messages.
      poses: names from any order in `channel_orders.ORDERS`, in any case.
      shapes: [len(poses), V, 3].

    Raises:
      InputError: a name that no layout has, or no shape of the rig at all.
    """
    merged: dict[str, np.ndarray] = {}
    for pose, shape in zip(poses, shapes, strict=True):
        key = pose.lower()
        if key not in _COLUMNS:
            try:
                channel_rig.channel_index(pose)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        channel = _COLUMNS.get(key)
        if channel is not None:
            merged[channel] = merged.get(channel, 0.0) + shape
    if not merged:
        raise InputError(f"{name}: holds no shape of the rig")
    channels = sorted(merged, key=channel_rig.INDEX.__getitem__)
    return channels, np.stack([merged[c] for c in channels])


def relative_mouth_close(channels: Sequence[str], deltas: np.ndarray, convention: str) -> str:
    """Makes mouthClose relative to an open jaw, as in ARKit, in place; returns a note.

    NVIDIA's mouthClose includes jawOpen. The conventions are distinguished by the share of jawOpen
    in mouthClose: about 1 for NVIDIA, below 0 where it only brings the lips together.

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
    names = list(channels)
    close, jaw = deltas[names.index("mouthClose")], deltas[names.index("jawOpen")]
    share = float((close * jaw).sum() / max((jaw * jaw).sum(), 1e-12))
    if convention == "nvidia" or (convention == "auto" and share > 0.4):
        close -= jaw
        return f"mouthClose includes jawOpen (share {share:.2f}): subtracted"
    return f"mouthClose is relative to an open jaw (share of jawOpen {share:.2f})"
