"""Shapes of a head for the geometry heads: vertex displacements per channel.

The file is an .npz of plain arrays in one of three forms, with lengths in any consistent unit and y
up:

    neutral [V, 3], names [K], deltas [K, V, 3]                          this package's form
    neutral [V, 3], expression_names [K], expression_deltas [K, V, 3]    ICT-FaceKit as converted
    neutral [V, 3], poseNames [K], an array [V, 3] for each pose         NVIDIA's bs_skin.npz

Names come from any order of `channel_orders.ORDERS`, in upper or lower case; halves of one channel
are summed. Optional arrays, as vertex indices or as one 0 or 1 per vertex:

    skin, tongue         vertices of each part; without them all vertices are skin
    jaw [5]              key points that only the jaw moves
    lip_upper, lip_lower [n]    pairs of vertices that define the lip distance in y

The tongue may be in a separate file (NVIDIA's bs_tongue.npz), of which every vertex is used.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, channel_orders
from a2fjax import rig as channels_of_rig
from a2fjax.errors import InputError, nearest

KEY_POINTS = 5
JAW = [i for i, n in enumerate(channels_of_rig.CHANNELS) if n.startswith("jaw")]

_INCLUDED = 0.4


@dataclasses.dataclass(frozen=True)
class Part:
    """Vertices of a part with their shapes.

    Attributes:
      neutral: [V, 3] neutral positions.
      shapes: [72, V, 3] displacement of every channel at weight 1; 0 without a shape.
    """

    neutral: np.ndarray
    shapes: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Displacements as a linear map [72, 3 V] from channels."""
        return self.shapes.reshape(len(self.shapes), -1)


@dataclasses.dataclass(frozen=True)
class Shapes:
    """Shapes of all parts of a head.

    Attributes:
      skin, tongue: parts; the tongue may have no vertices.
      jaw: the five key points, with the shapes of the jaw's channels only.
      lips: indices [n], [n] of skin vertices of the upper and the lower lip; None if unknown.
    """

    skin: Part
    tongue: Part
    jaw: Part
    lips: tuple[np.ndarray, np.ndarray] | None = None


def read(path: str | Path, tongue: str | Path = "") -> Shapes:
    """Reads the shapes of a head.

    Args:
      path: see the module.
      tongue: file of the tongue only; "" if `path` contains it or there is none.

    Raises:
      InputError: no such file, damaged, or shapes that do not fit.
    """
    data, head = _read(path, "model.rig")
    count = len(head.neutral)
    tongue_index = _mask(path, data, "tongue", count)
    is_tongue = np.zeros(count, bool)
    is_tongue[[] if tongue_index is None else tongue_index] = True
    skin_index = _mask(path, data, "skin", count)
    skin_index = np.flatnonzero(~is_tongue) if skin_index is None else skin_index
    if not len(skin_index):
        raise InputError(f"{path}: skin names no vertex, expected at least one")
    tongue_part = Part(head.neutral[is_tongue], head.shapes[:, is_tongue])
    if tongue:
        if tongue_index is not None:
            raise InputError(
                f"model.tongue_rig={str(tongue)!r}: {path} has a tongue already; expected ''"
            )
        tongue_part = _read(tongue, "model.tongue_rig")[1]
    skin = Part(head.neutral[skin_index], head.shapes[:, skin_index])
    points = _mask(path, data, "jaw", count, KEY_POINTS)
    points = _key_points(skin, skin_index) if points is None else points
    jaw = np.zeros((channels_of_rig.NUM_CHANNELS, KEY_POINTS, 3))
    jaw[JAW] = head.shapes[JAW][:, points]
    lips = _lips(path, data, skin_index)
    return Shapes(skin, tongue_part, Part(head.neutral[points], jaw), lips)


def _read(path: str | Path, key: str) -> tuple[dict[str, np.ndarray], Part]:
    path = Path(path)
    if not path.is_file():
        near = sorted(map(str, path.parent.glob("*.npz"))) if path.parent.is_dir() else []
        raise InputError(f"{key}={str(path)!r}: no such file{nearest(str(path), near)}")
    with archives.load_npz(path) as file:
        data = {name: file[name] for name in file.files if "identity" not in name}
    names, deltas = _listed(path, data)
    neutral = _numbers(path, "neutral", data["neutral"])
    if neutral.ndim != 2 or neutral.shape[1:] != (3,) or not len(neutral):
        raise InputError(f"{path}: neutral has shape {neutral.shape}, expected [V, 3]")
    columns = {c.name.lower(): c for o in channel_orders.ORDERS.values() for c in o.columns}
    shapes = np.zeros((channels_of_rig.NUM_CHANNELS, *neutral.shape))
    for name, delta in zip(names, deltas, strict=True):
        column = columns.get(name.lower())
        if column is None:
            known = [c.name for c in columns.values()]
            raise InputError(f"{path}: unknown shape {name!r}{nearest(name, known)}")
        if column.channel is None or column.channel in channels_of_rig.EYE_ANGLES:
            continue
        delta = _numbers(path, name, delta)
        if delta.shape != neutral.shape:
            raise InputError(f"{path}: {name} has shape {delta.shape}, expected {neutral.shape}")
        shapes[channels_of_rig.INDEX[column.channel]] += delta
    if not shapes.any():
        raise InputError(f"{path}: no shape of the rig moves a vertex")
    close = shapes[channels_of_rig.INDEX["mouthClose"]]
    jaw = shapes[channels_of_rig.INDEX["jawOpen"]]
    if (close * jaw).sum() > _INCLUDED * (jaw * jaw).sum() > 0:
        # NVIDIA's mouthClose includes jawOpen; the rig's is relative to an open jaw.
        close -= jaw
    return data, Part(neutral, shapes)


def _listed(path: Path, data: dict[str, np.ndarray]) -> tuple[list[str], Any]:
    if "neutral" in data:
        for prefix in ("", "expression_"):
            if {f"{prefix}names", f"{prefix}deltas"} <= set(data):
                names = [str(n) for n in np.ravel(data[f"{prefix}names"])]
                deltas = data[f"{prefix}deltas"]
                count = len(deltas) if deltas.ndim else 0
                if len(names) != count:
                    raise InputError(f"{path}: {len(names)} names of shapes, {count} shapes")
                return names, deltas
        if "poseNames" in data:
            names = [str(n) for n in np.ravel(data["poseNames"]) if str(n) != "neutral"]
            absent = [n for n in names if n not in data]
            if absent:
                raise InputError(f"{path}: poseNames lists {absent[0]!r}, which is not in the file")
            return names, [data[n] for n in names]
    held = ", ".join(sorted(data)[:8]) or "nothing"
    raise InputError(
        f"{path}: holds {held}; expected neutral with names and deltas, expression_names and "
        "expression_deltas, or poseNames and an array a pose"
    )


def _numbers(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} holds {value.dtype}, expected numbers")
    value = value.astype(np.float64)
    if not np.isfinite(value).all():
        raise InputError(f"{path}: {name} has values that are not finite")
    return value


def _mask(
    path: str | Path, data: dict[str, np.ndarray], name: str, count: int, size: int | None = None
) -> np.ndarray | None:
    """Returns the vertex indices of an optional array, which may hold one 0 or 1 per vertex."""
    if name not in data:
        return None
    value = np.ravel(data[name])
    if value.dtype.kind not in "iub":
        raise InputError(f"{path}: {name} holds {value.dtype}, expected vertex numbers")
    if len(value) == count and np.isin(value, (0, 1)).all():
        value = np.flatnonzero(value)
    if len(value) and not 0 <= value.min() <= value.max() < count:
        raise InputError(f"{path}: {name} names vertices that are not among the {count}")
    if size is not None and len(value) != size:
        raise InputError(f"{path}: {name} names {len(value)} vertices, expected {size}")
    return value.astype(np.int64)


def _lips(
    path: str | Path, data: dict[str, np.ndarray], skin: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the indices of the lip vertices within the skin."""
    count = int(skin.max()) + 1
    upper, lower = (_mask(path, data, f"lip_{side}", count) for side in ("upper", "lower"))
    if upper is None or lower is None:
        return None
    index = {int(v): i for i, v in enumerate(skin)}
    if len(upper) != len(lower) or not len(upper) or not {*upper, *lower} <= set(index):
        raise InputError(
            f"{path}: lip_upper and lip_lower name {len(upper)} and {len(lower)} vertices; "
            "expected as many, at least one, all of the skin"
        )
    return (
        np.array([index[int(v)] for v in upper]),
        np.array([index[int(v)] for v in lower]),
    )


def _key_points(skin: Part, skin_index: np.ndarray) -> np.ndarray:
    """Returns five widely spaced vertices among those that jawOpen moves most."""
    moved = np.linalg.norm(skin.shapes[channels_of_rig.INDEX["jawOpen"]], axis=-1)
    candidates = np.flatnonzero(moved >= 0.7 * moved.max())
    points = skin.neutral[candidates]
    chosen = [int(np.argmax(moved[candidates]))]
    while len(chosen) < KEY_POINTS:
        distance = np.linalg.norm(points[:, None] - points[chosen], axis=-1).min(axis=1)
        chosen.append(int(np.argmax(distance)))
    return skin_index[candidates[chosen]]
