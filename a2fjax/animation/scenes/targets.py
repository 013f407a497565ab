"""The shapes of a head as the targets of a scene, and its eyes as joints.

Angles of the eyes move no shape: they become the rotations of two joints, leftEye and rightEye.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import head_shapes, rig
from a2fjax.animation import mouth_close
from a2fjax.animation.file_columns import FileColumns

EYES = {
    "leftEye": (rig.INDEX["leftEyeRotX"], rig.INDEX["leftEyeRotY"]),
    "rightEye": (rig.INDEX["rightEyeRotX"], rig.INDEX["rightEyeRotY"]),
}
"""Names of the joints with the channels of their pitch and yaw."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """A head as scenes show it; lengths are in metres.

    Attributes:
      head: name of the head.
      neutral: [V, 3] float32.
      normals: [V, 3] float32, of length 1.
      faces: [F, 3] int32.
      names: [K] names of the targets.
      deltas: [K, V, 3] float32 displacements at weight 1.
      eyes: [3] place of each of `EYES`: the middle of its lids, or the origin without a blink.
      columns: whose values are the weights.
    """

    head: str
    neutral: np.ndarray
    normals: np.ndarray
    faces: np.ndarray
    names: tuple[str, ...]
    deltas: np.ndarray
    eyes: dict[str, np.ndarray]
    columns: FileColumns

    def weights(self, motion: np.ndarray) -> np.ndarray:
        """Returns the weights [N, K] float32 of motion [N, 72] in rig units."""
        return self.columns.values(motion)


def of_head(head: head_shapes.Head, columns: FileColumns) -> Targets:
    """Returns the targets for the columns that are weights; others are left out.

    A head without a shape for a channel has a target that moves nothing, so that no curve is lost.
    Columns that share a channel (browInnerUp_L and _R) share its shape.
    """
    shown = tuple(c for c in columns.order.columns if c.channel and c.channel not in rig.EYE_ANGLES)
    order = dataclasses.replace(columns.order, columns=shown)
    shapes = mouth_close.shapes_in(head.part.shapes, columns.mouth_close) * head.metres
    channels = [rig.INDEX[str(c.channel)] for c in shown]
    deltas = np.stack([shapes[c] / channels.count(c) for c in channels])
    neutral = head.part.neutral * head.metres
    eyes = {
        name: _middle(neutral, shapes[rig.INDEX[f"eyeBlink{name.removesuffix('Eye').title()}"]])
        for name in EYES
    }
    return Targets(
        head.name,
        neutral.astype(np.float32),
        _normals(neutral, head.faces),
        head.faces,
        order.names,
        deltas.astype(np.float32),
        eyes,
        FileColumns(order, columns.mouth_close),
    )


def quaternions(motion: np.ndarray, eye: str) -> np.ndarray:
    """Returns the rotations [N, 4] (x, y, z, w) float32 of an eye: yaw after pitch."""
    pitch, yaw = (np.radians(motion[:, c].astype(np.float64)) / 2 for c in EYES[eye])
    out = np.stack(
        [
            np.cos(yaw) * np.sin(pitch),
            np.sin(yaw) * np.cos(pitch),
            -np.sin(yaw) * np.sin(pitch),
            np.cos(yaw) * np.cos(pitch),
        ],
        axis=1,
    )
    return out.astype(np.float32)


def angles(quaternion: np.ndarray) -> np.ndarray:
    """Returns pitch and yaw [N, 2] in degrees of rotations [N, 4] made by `quaternions`."""
    x, y, z, w = quaternion.astype(np.float64).T
    pitch = np.arctan2(2 * (w * x - y * z), 1 - 2 * (x * x + z * z))
    yaw = np.arctan2(2 * (w * y - x * z), 1 - 2 * (y * y + z * z))
    return np.degrees(np.stack([pitch, yaw], axis=1))


def _middle(neutral: np.ndarray, blink: np.ndarray) -> np.ndarray:
    size = np.linalg.norm(blink, axis=1)
    if not size.any():
        return np.zeros(3)
    middle: np.ndarray = size @ neutral / size.sum()
    return middle


def _normals(neutral: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns unit normals [V, 3], averaged over the faces of a vertex by area."""
    a, b, c = (neutral[faces[:, i]] for i in range(3))
    of_faces = np.cross(b - a, c - a)
    total = np.zeros_like(neutral)
    for i in range(3):
        np.add.at(total, faces[:, i], of_faces)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    unit = np.where(length > 0, total / np.where(length > 0, length, 1), [0.0, 0.0, 1.0])
    return unit.astype(np.float32)
