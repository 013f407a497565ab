"""Computes the canonical pose of a surface, which is independent of its original orientation."""

from __future__ import annotations

import math

import numpy as np

_CHUNK = 1 << 12
_MOST_TURN = math.radians(35.0)
_TURN_GRID = np.radians(np.arange(-30.0, 31.0, 10.0))
_TENSOR_WEIGHTS = (1.0, 1.0, 0.5)
_MOST_ASYMMETRY = 0.01
"""Largest share of the moments that may be odd about the symmetry plane. The heads of the demo have
up to 0.0002; half heads, cut along the middle, have more than 0.03."""

_LEAST_ANISOTROPY = 0.05


def pose(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the rotation that brings a surface into its canonical pose.

    Roll and yaw: the plane through the centre about which the moments of order 2 to 4 are most
    nearly symmetric (least Frobenius norm of the difference to their mirror image) becomes x = 0.
    Pitch: of the two principal axes in that plane, the one nearer to the vertical becomes y. Both
    depend only on the surface if its original orientation is upright and frontal within about 30
    degrees. A surface without such a plane (half a face) keeps its roll and yaw, and one that is
    round in the plane keeps its pitch, because its shape does not determine them.

    Args:
      places: [M, 3] points of the surface, mean 0, RMS radius 1; x across, y up, z out.
      weights: [M] share of the area of each point.

    Returns:
      [3, 3] rotation; the surface in its canonical pose is `places @ rotation.T`.
    """
    tensors = _moments(places, weights)
    across = _symmetry_axis(tensors)
    if across is None:
        across = np.array([1.0, 0.0, 0.0])
    up = np.array([0.0, 1.0, 0.0]) - across[1] * across
    up /= np.linalg.norm(up)
    frame = np.stack([across, up, np.cross(across, up)])
    second = frame @ tensors[0] @ frame.T
    difference, mixed = second[1, 1] - second[2, 2], 2.0 * second[1, 2]
    if math.hypot(difference, mixed) < _LEAST_ANISOTROPY * (second[1, 1] + second[2, 2]):
        return frame
    angle = 0.5 * math.atan2(mixed, difference)
    # Axes have no sign, and either of the two may be the vertical one.
    angle = (angle + math.pi / 4) % (math.pi / 2) - math.pi / 4
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, sine], [0.0, -sine, cosine]]) @ frame


def _moments(places: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Returns the moment tensors of order 2, 3 and 4."""
    second, third, fourth = np.zeros((3, 3)), np.zeros((3, 9)), np.zeros((9, 9))
    for start in range(0, len(places), _CHUNK):
        x, w = places[start : start + _CHUNK], weights[start : start + _CHUNK, None]
        square = (x[:, :, None] * x[:, None, :]).reshape(-1, 9)
        second += (w * x).T @ x
        third += (w * x).T @ square
        fourth += (w * square).T @ square
    return [second, third.reshape(3, 3, 3), fourth.reshape(3, 3, 3, 3)]


def _axis(angles: np.ndarray) -> np.ndarray:
    roll, yaw = angles
    return np.array([math.cos(roll) * math.cos(yaw), math.sin(roll) * math.cos(yaw), math.sin(yaw)])


def _odd(angles: np.ndarray, tensors: list[np.ndarray]) -> np.ndarray:
    """Returns the components of the tensors that are odd under reflection, as one vector."""
    axis = _axis(angles)
    mirror = np.eye(3) - 2.0 * np.outer(axis, axis)
    parts = []
    for tensor, weight in zip(tensors, _TENSOR_WEIGHTS, strict=True):
        image = tensor
        for _ in range(tensor.ndim):
            # The last index becomes the first, so each index is reflected once.
            image = np.tensordot(mirror, image, (1, tensor.ndim - 1))
        parts.append(0.5 * weight * (tensor - image).ravel())
    return np.concatenate(parts)


def _symmetry_axis(tensors: list[np.ndarray]) -> np.ndarray | None:
    """Returns the normal [3] of the symmetry plane nearest to x = 0; None if there is none."""

    def energy(angles: np.ndarray) -> float:
        odd = _odd(angles, tensors)
        return float(odd @ odd)

    grid = [np.array([roll, yaw]) for roll in _TURN_GRID for yaw in _TURN_GRID]
    # If the surface does not determine the axis, prefer the original one.
    angles = min(grid, key=lambda each: energy(each) + 1e-7 * float(each @ each))
    for _ in range(100):
        odd = _odd(angles, tensors)
        slopes = np.stack(
            [
                (_odd(angles + d, tensors) - _odd(angles - d, tensors)) / 2e-4
                for d in 1e-4 * np.eye(2)
            ]
        )
        step = -np.linalg.solve(slopes @ slopes.T + 1e-9 * np.eye(2), slopes @ odd)
        while energy(angles + step) > odd @ odd and np.abs(step).max() > 1e-12:
            step = step / 2
        angles = angles + step
        if np.abs(step).max() < 1e-11:
            break
    whole = sum(
        weight**2 * float((t**2).sum()) for weight, t in zip(_TENSOR_WEIGHTS, tensors, strict=True)
    )
    if np.abs(angles).max() > _MOST_TURN or energy(angles) > _MOST_ASYMMETRY * whole:
        return None
    return _axis(angles)
