"""The neutral mesh of a person who has none: found among the frames of their captures.

A face that speaks keeps coming back to rest and is elsewhere only in passing, so frames at rest are
the densest spot of all poses. Where there are several about as dense (a mouth held open, a smile),
the one most like the template's neutral is taken.
"""

from __future__ import annotations

import numpy as np

from a2fjax.errors import InputError
from data_pipeline import conventions, geometry

_POSE_VERTICES = 1500  # a pose is told by these
_RIGID_VERTICES = 400  # and how the head lies by these
_SHARE = 0.08  # of the frames are at rest at least
_FEWEST = 5
_QUIET_MM = 0.5
"""Root mean square over the vertices that move: frames this near to each other are one pose."""


def estimate_neutral(
    frames: np.ndarray, template: np.ndarray, *, name: str = "capture"
) -> np.ndarray:
    """Returns the neutral mesh [V, 3] in the unit and axes of the frames, as the head lay in them.

    Args:
      frames: [N, V, 3] of one person, in any unit, axes and pose of the head; vertices that dropped
        out are not finite. A tenth of them at rest is enough.
      template: [V, 3] neutral of another head of the same topology, in the rig's axes, in a unit
        that a head's size tells (`conventions.units_of`).
      name: for messages.

    Returns:
      [V, 3]; NaN where a vertex was seen in no frame at rest.

    Raises:
      InputError: no frames, another topology, or no pose that is held.
    """
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.shape[1:] != template.shape or not len(frames):
        raise InputError(
            f"{name}: frames of shape {frames.shape}, expected [N, {len(template)}, 3], N >= 1"
        )
    goal = template * conventions.MILLIMETRES[conventions.units_of(template)]
    seen = np.isfinite(frames).all(axis=2)
    whole = np.flatnonzero(seen.mean(axis=1) > 0.5)
    if not len(whole):
        raise InputError(f"{name}: no frame has half of its vertices")
    fullest = whole[np.argmax(seen[whole].sum(axis=1))]
    found = conventions.find(frames[fullest], goal, name=name)
    rigid = _spread(goal, _RIGID_VERTICES)
    pose = _spread(goal, _POSE_VERTICES)
    # All frames on the fullest one, then on the median of all: one frame may be far from typical.
    target = found.aligned(frames[fullest][rigid].astype(np.float64))
    some = found.aligned(frames[np.ix_(whole, rigid)].astype(np.float64))
    there = seen[np.ix_(whole, rigid)] & np.isfinite(target).all(axis=1)
    target = np.nan_to_num(target)
    whole, some, there = _enough(name, whole, some, there)
    for _ in range(2):
        rotation, shift = geometry.head_motion(some, target, seen=there)
        moved = np.matmul(some, rotation.transpose(0, 2, 1)) + shift[:, None]
        target = np.nan_to_num(_median(np.where(there[:, :, None], moved, np.nan)))
    poses = found.aligned(frames[np.ix_(whole, pose)].astype(np.float64))
    poses = np.matmul(poses, rotation.transpose(0, 2, 1)) + shift[:, None]
    chosen = _held(poses, goal[pose], name)
    still = found.aligned(frames[whole[chosen]].astype(np.float64))
    still = np.matmul(still, rotation[chosen].transpose(0, 2, 1)) + shift[chosen, None]
    mean = _robust_mean(still)
    return (
        (mean - found.shift)
        @ (found.rotation @ found.matrix)
        / np.square(conventions.MILLIMETRES[found.units])
    )


def _spread(mesh: np.ndarray, count: int) -> np.ndarray:
    return np.arange(0, len(mesh), max(1, len(mesh) // count))


def _enough(
    name: str, whole: np.ndarray, points: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    good = there.sum(axis=1) >= min(12, there.shape[1])
    if not good.any():
        raise InputError(f"{name}: no frame has enough vertices in common with another")
    return whole[good], np.nan_to_num(points[good]), there[good]


def _median(points: np.ndarray) -> np.ndarray:
    """Returns the median [N, 3] over frames [F, N, 3], NaN where nothing was seen."""
    out = np.full(points.shape[1:], np.nan)
    seen = ~np.isnan(points).all(axis=0)
    out[seen] = np.nanmedian(points[:, seen], axis=0)
    return out


def _held(poses: np.ndarray, template: np.ndarray, name: str) -> np.ndarray:
    """Returns which of the poses [F, N, 3] are the rest pose.

    Raises:
      InputError: no pose comes back.
    """
    middle = _median(poses)
    away = np.nan_to_num(poses - middle)
    away[:, np.isnan(middle).any(axis=1)] = 0.0
    count = len(poses)
    if count == 1:
        return np.arange(1)
    # How many vertices share the motion (participation ratio): a lip's millimetres are not to be
    # thinned by the back of the head.
    motion = np.square(away).sum(axis=2).mean(axis=0)
    moving = motion.sum() ** 2 / max(float(np.square(motion).sum()), 1e-30)
    flat = away.reshape(count, -1)
    # Principal components hold the face's motion and leave out most of the vertices' noise.
    values, vectors = np.linalg.eigh(flat @ flat.T)
    kept = slice(-min(20, count), None)
    scores = vectors[:, kept] * np.sqrt(np.maximum(values[kept], 0.0)) / np.sqrt(moving)
    squares = np.square(scores).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * scores @ scores.T, 0.0))
    near = min(count, max(_FEWEST, int(np.ceil(_SHARE * count))))
    radius = np.sort(apart, axis=1)[:, near - 1]
    if radius.min() > _QUIET_MM:
        raise InputError(
            f"{name}: no pose is held in {near} of {count} frames (nearest: {radius.min():.2f} mm "
            f"apart, expected {_QUIET_MM}): give a neutral mesh"
        )
    dense = np.flatnonzero(radius <= min(_QUIET_MM, 1.5 * radius.min() + 0.05))
    expected = template - template.mean(axis=0)
    unlike = [
        np.square(middle + away[i] - expected)[~np.isnan(middle).any(axis=1)].sum() for i in dense
    ]
    centre = dense[int(np.argmin(unlike))]
    return np.flatnonzero(apart[centre] <= radius[centre])


def _robust_mean(points: np.ndarray) -> np.ndarray:
    """Returns the mean [V, 3] over frames [F, V, 3] without what is far from the median."""
    middle = _median(points)
    distance = np.abs(points - middle)
    limit = 3.0 * 1.4826 * _median(distance) + 1e-9
    inside = distance <= limit  # NaN is not
    total = np.where(inside, points, 0.0).sum(axis=0)
    return np.where(inside.any(axis=0), total / np.maximum(inside.sum(axis=0), 1), np.nan)
