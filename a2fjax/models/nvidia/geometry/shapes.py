"""Shapes of a head for the geometry heads: vertex displacements per channel.

`head_shapes` reads the file, with lengths in any consistent unit. Optional arrays, as vertex
indices or as one 0 or 1 per vertex:

    skin, tongue         vertices of each part; without them all vertices are skin
    jaw [5]              key points that only the jaw moves
    lip_upper, lip_lower [n]    pairs of vertices that define the lip distance in y

The tongue may be in a separate file (NVIDIA's bs_tongue.npz), of which every vertex is used.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from a2fjax import head_shapes
from a2fjax import rig as channels_of_rig
from a2fjax.errors import InputError
from a2fjax.head_shapes import Part

KEY_POINTS = 5
JAW = [i for i, n in enumerate(channels_of_rig.CHANNELS) if n.startswith("jaw")]


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
    data, head = head_shapes.read(path, "model.rig")
    count = len(head.neutral)
    tongue_index = head_shapes.vertices(path, data, "tongue", count)
    is_tongue = np.zeros(count, bool)
    is_tongue[[] if tongue_index is None else tongue_index] = True
    skin_index = head_shapes.vertices(path, data, "skin", count)
    skin_index = np.flatnonzero(~is_tongue) if skin_index is None else skin_index
    if not len(skin_index):
        raise InputError(f"{path}: skin names no vertex, expected at least one")
    tongue_part = Part(head.neutral[is_tongue], head.shapes[:, is_tongue])
    if tongue:
        if tongue_index is not None:
            raise InputError(
                f"model.tongue_rig={str(tongue)!r}: {path} has a tongue already; expected ''"
            )
        tongue_part = head_shapes.read(tongue, "model.tongue_rig")[1]
    skin = Part(head.neutral[skin_index], head.shapes[:, skin_index])
    points = head_shapes.vertices(path, data, "jaw", count, KEY_POINTS)
    points = _key_points(skin, skin_index) if points is None else points
    jaw = np.zeros((channels_of_rig.NUM_CHANNELS, KEY_POINTS, 3))
    jaw[JAW] = head.shapes[JAW][:, points]
    lips = _lips(path, data, skin_index)
    return Shapes(skin, tongue_part, Part(head.neutral[points], jaw), lips)


def _lips(
    path: str | Path, data: dict[str, np.ndarray], skin: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the indices of the lip vertices within the skin."""
    count = int(skin.max()) + 1
    upper, lower = (
        head_shapes.vertices(path, data, f"lip_{side}", count) for side in ("upper", "lower")
    )
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
