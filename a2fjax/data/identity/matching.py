"""Chooses points whose means equal those of a surface: even samples, support points, matching."""

from __future__ import annotations

import numpy as np

from a2fjax import mesh_descriptor
from a2fjax.data.identity import surface

_SUPPORT_STEPS = 16
_MATCH_STEPS = 40
_MATCHED = 3e-7


def support_points(points: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Moves points [N, 3] to minimise the energy distance to the dense samples [M, 3].

    Fixed-point iteration of S. Mak and V. R. Joseph, "Support points", Annals of Statistics 46
    (2018), equation 22: attraction to the samples, repulsion between the points.
    """
    dense = dense[:: max(1, len(dense) // (64 * len(points)))]
    x, y = points.astype(np.float32), dense.astype(np.float32)
    ratio = len(y) / len(x)
    for _ in range(_SUPPORT_STEPS):
        to_dense, to_points = _closeness(x, y), _closeness(x, x)
        np.fill_diagonal(to_points, 0.0)
        push = (to_points.sum(axis=1)[:, None] * x - to_points @ x) * ratio
        x = (push + to_dense @ y) / to_dense.sum(axis=1)[:, None]
    return x.astype(np.float64)


def _closeness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns 1 / distance [N, M] between points [N, 3] and [M, 3], at most 1000."""
    one = np.ones((len(x), 1), np.float32)
    left = np.concatenate([x, one, (x * x).sum(axis=1, keepdims=True)], axis=1)
    right = np.stack([*(-2.0 * y.T), (y * y).sum(axis=1), np.ones(len(y), np.float32)])
    distance = left @ right
    np.maximum(distance, 1e-6, out=distance)
    np.sqrt(distance, out=distance)
    return np.reciprocal(distance, out=distance)


def _slopes(points: np.ndarray) -> np.ndarray:
    """Returns the derivatives [P, 3, kernels and monomials] of `surface.values`."""
    centres = surface.centres()
    away = centres.T[None] - points[:, :, None]
    parts = [
        precision * kernel[:, None] * away
        for precision, kernel in zip(
            mesh_descriptor.kernel_precisions(),
            mesh_descriptor.kernels(points, centres),
            strict=True,
        )
    ]
    powers = surface.powers(points)
    monomials = []
    for axis in range(3):
        less = np.array(surface.POWERS)
        less[:, axis] = np.maximum(less[:, axis] - 1, 0)
        x, y, z = (powers[less[:, k], :, k] for k in range(3))
        monomials.append((x * y * z * surface.POWERS[:, axis : axis + 1]).T)
    return np.concatenate([*parts, np.stack(monomials, axis=1)], axis=2)


def match(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Moves points [P, 3] as little as possible until the means of `surface.values` are `target`.

    Uses Levenberg-Marquardt. With more coordinates than means, the steps have least length; with
    few points, the means are matched in the least-squares sense.
    """
    count = len(points)
    miss = surface.values(points).mean(axis=0) - target
    # Start with small steps: long steps along weak directions would not be undone later.
    damping = 1e-2
    for _ in range(_MATCH_STEPS):
        if np.abs(miss).max() < _MATCHED:
            break
        slopes = _slopes(points).reshape(3 * count, -1) / count
        if len(slopes) < len(miss):
            square = slopes @ slopes.T
            ridge = damping * np.trace(square) / len(square) * np.eye(len(square))
            step = np.linalg.solve(square + ridge, slopes @ miss)
        else:
            square = slopes.T @ slopes
            ridge = damping * np.trace(square) / len(square) * np.eye(len(square))
            step = slopes @ np.linalg.solve(square + ridge, miss)
        moved = points - step.reshape(count, 3)
        reached = surface.values(moved).mean(axis=0) - target
        if reached @ reached < miss @ miss:
            points, miss, damping = moved, reached, max(damping / 4, 1e-13)
        elif damping > 1e3:
            break
        else:
            damping *= 4
    return points


def match_normals(
    points: np.ndarray, places: np.ndarray, facing: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Returns normals [P, 3] close to the surface's normals, with kernel means `target`."""
    near = np.zeros(len(points), int)
    best = np.full(len(points), np.inf)
    for start in range(0, len(places), surface.CHUNK):
        part = places[start : start + surface.CHUNK]
        square = (part**2).sum(axis=1) - 2.0 * points @ part.T
        closest = square.argmin(axis=1)
        value = square[np.arange(len(points)), closest]
        near = np.where(value < best, closest + start, near)
        best = np.minimum(value, best)
    normal = facing[near]
    kernel = mesh_descriptor.kernels(points, surface.centres())[1] / len(points)
    miss = target - kernel.T @ normal
    return normal + np.linalg.lstsq(kernel.T, miss, rcond=1e-10)[0]
