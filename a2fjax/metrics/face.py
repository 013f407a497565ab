"""The face on which vertex metrics are computed: displacements of lips and upper face.

Shards hold curves, not animated meshes, so vertices are the neutral face plus the weighted
displacements of a head that the user gives, the same for prediction and truth (`head_shapes` reads
it, for instance ICT-FaceKit's). Optional arrays in its file choose the vertices and the unit:

    lips, upper_face   vertex numbers, or one 0 or 1 per vertex
    unit               "mm", "cm" or "m"; without it, the unit in which the head is 0.1 to 0.8 m

Without `lips`, they are the vertices that mouthPucker, mouthFunnel, mouthRollLower, mouthRollUpper,
mouthShrugLower and mouthShrugUpper together move at least half as far as the one they move most;
without `upper_face`, those that brows, lids and squints move at least a fifth as far. Of more than
500 vertices found in this way, 500 are used, evenly; what a file gives is used whole. LVE depends
on the set of vertices: values on different faces do not compare.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from a2fjax import head_shapes, rig
from a2fjax.errors import InputError, nearest

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
MOST = 500
_BLOCK = 128

_LIPS = (
    "mouthPucker mouthFunnel mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper".split()
)


@dataclasses.dataclass(frozen=True)
class Face:
    """Displacements in millimetres at weight 1.

    Attributes:
      lips: [72, L, 3].
      upper: [72, U, 3].
    """

    lips: np.ndarray
    upper: np.ndarray

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the displacements: 16 hex digits of their values to a micrometre."""
        arrays = [
            np.round(each, 3).astype(np.float32).tobytes() for each in (self.lips, self.upper)
        ]
        return hashlib.sha256(b"".join(arrays)).hexdigest()[:16]


def read(path: str | Path) -> Face:
    """Reads a face; see the module.

    Raises:
      InputError: no such file, damaged, or a head without lips or upper face.

    Example:
        >>> read("none.npz")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: --face='none.npz': no such file
    """
    data, head = head_shapes.read(path, "--face")
    scale = MILLIMETRES[_unit(path, data, head.neutral)]
    moved = np.linalg.norm(head.shapes, axis=2)
    chosen = {
        "lips": _far(moved, [rig.INDEX[name] for name in _LIPS], 0.5),
        "upper_face": _far(moved, rig.GROUPS["upper_face"], 0.2),
    }
    for name, vertices in chosen.items():
        given = head_shapes.vertices(path, data, name, len(head.neutral))
        chosen[name] = vertices[_spread(len(vertices), MOST)] if given is None else given
        if not len(chosen[name]):
            raise InputError(f"{path}: no vertices of the {name.replace('_', ' ')}; give {name!r}")
    lips, upper = (scale * head.shapes[:, index] for index in chosen.values())
    return Face(lips, upper)


def squares(
    shapes: np.ndarray, motion: np.ndarray, channel_mask: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields |x_tv|^2 [N, V] of the displacements of vertices, a few frames at a time.

    Args:
      shapes: [72, V, 3] displacements at weight 1.
      motion: [T, 72].
      channel_mask: [72] bool; other channels move no vertex.
    """
    channels = np.flatnonzero(channel_mask & shapes.any((1, 2)))
    basis = [np.ascontiguousarray(shapes[channels, :, axis]) for axis in range(3)]
    moving = np.asarray(motion[:, channels], np.float64)
    for start in range(0, len(motion), _BLOCK):
        part = moving[start : start + _BLOCK]
        yield sum(((part @ along) ** 2 for along in basis), np.zeros(()))


def dynamics(shapes: np.ndarray, motion: np.ndarray, channel_mask: np.ndarray) -> np.ndarray:
    """Returns std_t |x_tv|^2 [V] over the frames of a motion; arguments as for `squares`."""
    shift, first, second = None, np.zeros(()), np.zeros(())
    for part in squares(shapes, motion, channel_mask):
        # Relative to the first frame, so that nothing cancels.
        shift = part[0] if shift is None else shift
        difference = part - shift
        first, second = first + difference.sum(0), second + (difference**2).sum(0)
    mean = first / len(motion)
    return np.sqrt(np.maximum(second / len(motion) - mean**2, 0.0))


def _unit(path: str | Path, data: dict[str, np.ndarray], neutral: np.ndarray) -> str:
    if "unit" in data:
        unit = str(data["unit"])
        if unit not in MILLIMETRES:
            raise InputError(f"{path}: unit {unit!r}{nearest(unit, MILLIMETRES)}")
        return unit
    size = float(np.linalg.norm(np.ptp(neutral, axis=0)))
    for unit, millimetres in MILLIMETRES.items():
        if 100.0 <= size * millimetres <= 800.0:
            return unit
    raise InputError(f"{path}: the head is {size:.3g} across; give 'unit', mm, cm or m")


def _far(moved: np.ndarray, channels: np.ndarray | list[int], share: float) -> np.ndarray:
    """Returns the vertices that channels move far, of distances [72, V]."""
    total = moved[channels].sum(0)
    return np.flatnonzero((total >= share * total.max()) & (total > 0))


def _spread(count: int, most: int) -> np.ndarray:
    return np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(int)
