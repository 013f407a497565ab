"""Estimates the neutral mesh of a person without one from the frames of their captures.

A speaking face keeps returning to rest and passes other poses only briefly, so frames at rest form
the densest cluster of poses. If several clusters are about as dense (a mouth held open, a smile),
the one closest to the template's neutral is used.
"""

from __future__ import annotations

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.mesh import conventions, geometry

_POSE_VERTICES = 1500  # vertices used to compare poses
_RIGID_VERTICES = 400  # vertices used to estimate the head's pose
_SHARE = 0.08  # minimum share of frames at rest
_FEWEST = 5
_FURTHEST = 1e6  # no head has such a coordinate in any unit
_RANK = 20  # rank of the matrix of poses
_FILLS = 6
_STRAY_MM = 1.0
_QUIET_MM = 0.5
"""Root mean square over the vertices that move: frames this near to each other are one pose."""


def estimate_neutral(
    frames: np.ndarray, template: np.ndarray, *, name: str = "capture"
) -> np.ndarray:
    """Returns the neutral mesh [V, 3] in the unit, axes and head pose of the frames.

    Args:
      frames: [N, V, 3] frames of one person, in any unit, axes and head pose; vertices that dropped
        out are not finite. It is enough if a tenth of the frames are at rest.
      template: [V, 3] neutral of another head of the same topology, in the rig's axes, in a unit
        that follows from a head's size (`conventions.guess_units`).
      name: name for messages.

    Returns:
      [V, 3]; NaN for vertices that are missing in all frames at rest.

    Raises:
      InputError: no frames, another topology, or no recurring pose.
    """
    frames = np.asarray(frames)
    if frames.ndim != 3 or frames.shape[1:] != template.shape or not len(frames):
        raise InputError(
            f"{name}: frames of shape {frames.shape}, expected [N, {len(template)}, 3], N >= 1"
        )
    goal = template * conventions.MILLIMETRES[conventions.guess_units(template)]
    visible = (np.abs(frames) < _FURTHEST).all(axis=2)  # false for NaN
    usable = np.flatnonzero(visible.mean(axis=1) > 0.5)
    if not len(usable):
        raise InputError(f"{name}: no frame has half of its vertices")
    fullest = usable[np.argmax(visible[usable].sum(axis=1))]
    start = np.where(visible[fullest][:, None], frames[fullest], np.nan).astype(np.float64)
    # Any likely axes will do, because the result is converted back to the frames' axes.
    convention = conventions.find_convention(start, goal, least_margin=0.0, name=name)
    rigid = _spread(goal, _RIGID_VERTICES)
    pose = _spread(goal, _POSE_VERTICES)
    # Align all frames to the most complete one, then to their median: one frame may be atypical.
    target = convention.aligned(start[rigid])
    some = convention.aligned(frames[np.ix_(usable, rigid)].astype(np.float64))
    there = visible[np.ix_(usable, rigid)] & np.isfinite(target).all(axis=1)
    target = np.nan_to_num(target)
    usable, some, there = _enough(name, usable, some, there)
    for _ in range(2):
        rotation, shift = geometry.head_motion(some, target, visible=there)
        moved = np.matmul(some, rotation.transpose(0, 2, 1)) + shift[:, None]
        target = np.nan_to_num(_median(np.where(there[:, :, None], moved, np.nan)))
    poses = convention.aligned(frames[np.ix_(usable, pose)].astype(np.float64))
    poses[~visible[np.ix_(usable, pose)]] = np.nan
    poses = np.matmul(poses, rotation.transpose(0, 2, 1)) + shift[:, None]
    chosen = _held(poses, goal[pose], name)
    still = convention.aligned(frames[usable[chosen]].astype(np.float64))
    still[~visible[usable[chosen]]] = np.nan
    still = np.matmul(still, rotation[chosen].transpose(0, 2, 1)) + shift[chosen, None]
    mean = _robust_mean(still)
    return (
        (mean - convention.shift)
        @ (convention.rotation @ convention.matrix)
        / np.square(conventions.MILLIMETRES[convention.units])
    )


def _spread(mesh: np.ndarray, count: int) -> np.ndarray:
    return np.arange(0, len(mesh), max(1, len(mesh) // count))


def _enough(
    name: str, usable: np.ndarray, points: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    enough = there.sum(axis=1) >= min(12, there.shape[1])
    if not enough.any():
        raise InputError(f"{name}: no frame has enough vertices in common with another")
    return usable[enough], np.nan_to_num(points[enough]), there[enough]


def _median(points: np.ndarray) -> np.ndarray:
    """Returns the median [N, 3] over frames [F, N, 3], NaN where all are missing."""
    out = np.full(points.shape[1:], np.nan)
    known = ~np.isnan(points).all(axis=0)
    out[known] = np.nanmedian(points[:, known], axis=0)
    return out


def _held(poses: np.ndarray, template: np.ndarray, name: str) -> np.ndarray:
    """Returns the mask of the poses [F, N, 3] that are the rest pose.

    Raises:
      InputError: no pose recurs.
    """
    count = len(poses)
    if count == 1:
        return np.arange(1)
    middle = _median(poses)
    known = ~np.isnan(middle).any(axis=1)
    poses, middle = poses[:, known], middle[known]
    away, scores = _components((poses - middle).reshape(count, -1))
    # Number of vertices that share the motion (participation ratio), so that vertices at the back
    # of the head do not dilute the motion of the lips.
    motion = np.square(away.reshape(poses.shape)).sum(axis=2).mean(axis=0)
    moving = motion.sum() ** 2 / max(float(np.square(motion).sum()), 1e-30)
    squares = np.square(scores).sum(axis=1)
    apart = squares[:, None] + squares - 2.0 * scores @ scores.T
    apart = np.sqrt(np.maximum(apart, 0.0) / max(moving, 1.0))
    near = min(count, max(_FEWEST, int(np.ceil(_SHARE * count))))
    radius = np.sort(apart, axis=1)[:, near - 1]
    if radius.min() > _QUIET_MM:
        raise InputError(
            f"{name}: no pose is held in {near} of {count} frames (nearest: {radius.min():.2f} mm "
            f"apart, expected {_QUIET_MM}): give a neutral mesh"
        )
    dense = np.flatnonzero(radius <= min(_QUIET_MM, 1.5 * radius.min() + 0.05))
    likely = middle + away[dense].reshape(-1, *middle.shape)
    goal = template[known]
    turn, shift = geometry.rigid_transform(likely, goal, np.ones(likely.shape[:2]))
    laid = np.matmul(likely, turn.transpose(0, 2, 1)) + shift[:, None]
    unlike = np.square(laid - goal).sum(axis=(1, 2))
    centre = dense[int(np.argmin(unlike))]
    return np.flatnonzero(apart[centre] <= radius[centre])


def _components(away: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the low-rank part [F, C] of rows [F, C] and its coordinates [F, R].

    Missing values and outliers are repeatedly replaced by the current low-rank fit (additive
    half-quadratic steps: Geman and Yang 1995, IEEE Trans. Image Process. 4). Principal components
    capture the face's motion and exclude most of the vertices' noise.
    """
    missing = np.isnan(away)
    spread = 1.4826 * np.nanmedian(np.abs(away), axis=0)
    filled = np.where(missing, 0.0, np.clip(away, -3.0 * spread - 0.5, 3.0 * spread + 0.5))
    rank = min(_RANK, len(away))
    for _ in range(_FILLS):
        values, vectors = np.linalg.eigh(filled @ filled.T)
        basis = vectors[:, -rank:]
        low = basis @ (basis.T @ filled)
        filled = np.where(missing, low, low + np.clip(away - low, -_STRAY_MM, _STRAY_MM))
    return low, basis * np.sqrt(np.maximum(values[-rank:], 0.0))


def _robust_mean(points: np.ndarray) -> np.ndarray:
    """Returns the mean [V, 3] over frames [F, V, 3], excluding values far from the median."""
    middle = _median(points)
    distance = np.abs(points - middle)
    limit = 3.0 * 1.4826 * _median(distance) + 1e-9
    inside = distance <= limit  # NaN is not
    total = np.where(inside, points, 0.0).sum(axis=0)
    return np.where(inside.any(axis=0), total / np.maximum(inside.sum(axis=0), 1), np.nan)
