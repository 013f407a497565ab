"""Samples of a surface in an order that keeps neighbours together: even by area, along a curve."""

from __future__ import annotations

import numpy as np

_HILBERT_BITS = 10
_REACH = 4.0
"""Half the edge of the Hilbert curve's cube, in RMS radii."""


def dense(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int) -> np.ndarray | None:
    """Returns [count, 3] points with uniform density; None if the surface has no area."""
    corners = vertices[faces]
    # Sort corners lexicographically, so that the points do not depend on the corner order.
    order = np.lexsort((corners[..., 2], corners[..., 1], corners[..., 0]), axis=-1)
    corners = np.take_along_axis(corners, order[..., None], axis=1)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    solid = area > 1e-12
    if not solid.any():
        return None
    a, b, c, area = a[solid], b[solid], c[solid], area[solid]
    order = hilbert_order((a + b + c) / 3.0)
    a, b, c, area = a[order], b[order], c[order], area[order]
    offset = np.random.default_rng(seed).random(3) if seed else np.full(3, 0.5)
    index = np.arange(count)
    edges = np.cumsum(area)
    place = (index + offset[0]) / count * edges[-1]
    face = np.minimum(np.searchsorted(edges, place, side="right"), len(area) - 1)
    # R2 sequence (Roberts 2018), folded from the unit square into the triangle.
    u = (index * 0.7548776662466927 + offset[1]) % 1.0
    v = (index * 0.5698402909980532 + offset[2]) % 1.0
    fold = u + v > 1.0
    u, v = np.where(fold, 1.0 - u, u)[:, None], np.where(fold, 1.0 - v, v)[:, None]
    return a[face] + u * (b - a)[face] + v * (c - a)[face]


def reduce(points: np.ndarray, count: int) -> np.ndarray:
    """Returns the mean point of each of `count` equal segments of the ordered points [N, 3]."""
    edges = np.arange(count + 1) * len(points) / count
    if len(points) < count:
        return points[edges[:-1].astype(int)]
    whole = np.concatenate([np.zeros((1, 3)), np.cumsum(points, axis=0)])
    edges = np.floor(edges).astype(int)
    return (whole[edges[1:]] - whole[edges[:-1]]) / np.diff(edges)[:, None]


def hilbert_order(points: np.ndarray) -> np.ndarray:
    """Returns the order of points [N, 3] along a Hilbert curve; coordinates break ties in a cell.

    Transposed-axes algorithm of J. Skilling, "Programming the Hilbert curve" (2004).
    """
    top = 1 << _HILBERT_BITS
    cell = np.clip((points / (2 * _REACH) + 0.5) * top, 0, top - 1).astype(np.int64)
    x = list(cell.T)
    q = top >> 1
    while q > 1:
        p = q - 1
        for i in range(3):
            high = (x[i] & q) != 0
            swap = np.where(high, 0, (x[0] ^ x[i]) & p)
            x[0] = np.where(high, x[0] ^ p, x[0] ^ swap)
            x[i] = x[i] ^ swap
        q >>= 1
    x[1] ^= x[0]
    x[2] ^= x[1]
    t = np.zeros_like(x[0])
    q = top >> 1
    while q > 1:
        t = np.where((x[2] & q) != 0, t ^ (q - 1), t)
        q >>= 1
    x = [each ^ t for each in x]
    key = np.zeros_like(t)
    for bit in range(_HILBERT_BITS - 1, -1, -1):
        for each in x:
            key = (key << 1) | ((each >> bit) & 1)
    return np.lexsort((points[:, 2], points[:, 1], points[:, 0], key))
