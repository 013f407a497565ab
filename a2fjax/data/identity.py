"""Points that stand for a neutral mesh, whatever its topology: what the identity encoder sees.

The points must say little about how a face was meshed and much about its shape, and two faces
that differ little must give points that differ little. Therefore the surface is sampled densely by
area, the samples are ordered along a Hilbert curve, each of `count` stretches of equal area gives
one point, and the points are moved until they represent the dense samples best in energy distance
(support points). Nothing depends on the order of vertices or faces: both are put in a geometric
order first.

Measured on bumpy ellipsoids, 256 points, mean embedding with a Gaussian kernel of 0.4 RMS radii:
the difference between two heads is known to 0.3 % of the embedding (2.7 % without the ordering and
moving), remeshing changes 0.3 %, where heads differ by 2.3 % on average.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from a2fjax.data import records

_SAMPLES_PER_POINT = 16
_SUPPORT_STEPS = 16
_HILBERT_BITS = 10
_REACH = 4.0
"""Half the edge of the Hilbert curve's cube, in RMS radii."""


def sample_points(
    vertices: np.ndarray, faces: np.ndarray | None, count: int, seed: int = 0
) -> np.ndarray:
    """Returns points that cover a mesh evenly by area, centred and of unit RMS radius.

    With faces, the result is the same for any order of vertices, faces and corners (up to ties of
    faces with equal centroids) and changes little under remeshing. Without faces, vertices stand
    for equal areas, so the result follows the vertex density. Deterministic.

    Args:
      vertices: [V, 3], any unit, any position; V >= 4.
      faces: [F, 3] vertex indices; None or F = 0 for a cloud of vertices.
      count: number of points, >= 1.
      seed: of the offset of the sampling sequences.

    Returns:
      [count, 3] float32, mean 0, root mean square distance from the mean 1.

    Raises:
      InputError: not a mesh, as `records.check_mesh`.
    """
    faces = np.zeros((0, 3), np.int32) if faces is None else faces
    checked, faces = records.check_mesh(vertices, faces, name="given")
    points = checked.astype(np.float64)
    points -= points.mean(axis=0)
    points /= np.sqrt((points**2).sum(axis=1).mean())
    dense = _surface(points, faces, count * _SAMPLES_PER_POINT, seed) if len(faces) else None
    if dense is None:
        dense = points[np.lexsort(points.T)]
    dense = _unit(dense)
    dense = dense[_hilbert_order(dense)]
    points = _reduce(dense, count)
    if len(dense) > count:
        points = _support_points(points, dense)
    return _unit(points).astype(np.float32)


def mesh_points(path: str | Path, count: int) -> np.ndarray:
    """Returns `sample_points` of a mesh file, [count, 3]; a file that has not changed only once.

    Raises:
      InputError: as `records.read_mesh`.
    """
    path = Path(path)
    state = path.stat() if path.is_file() else None
    return _mesh_points(str(path), state and (state.st_mtime_ns, state.st_size), count)


@functools.lru_cache(maxsize=4096)
def _mesh_points(path: str, state: tuple[int, int] | None, count: int) -> np.ndarray:
    vertices, faces = records.read_mesh(path)
    points = sample_points(vertices, faces, count)
    points.flags.writeable = False
    return points


def _unit(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    return centred / max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)


def _surface(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int) -> np.ndarray | None:
    """Returns [count, 3] points, equally many per area; None if the surface has no area."""
    corners = vertices[faces]
    # Corners in lexicographic order, so that a face's points do not depend on how it is written.
    order = np.lexsort((corners[..., 2], corners[..., 1], corners[..., 0]), axis=-1)
    corners = np.take_along_axis(corners, order[..., None], axis=1)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    solid = area > 1e-12
    if not solid.any():
        return None
    a, b, c, area = a[solid], b[solid], c[solid], area[solid]
    order = _hilbert_order((a + b + c) / 3.0)
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


def _reduce(points: np.ndarray, count: int) -> np.ndarray:
    """Returns one point for each of `count` equal stretches of the ordered points [N, 3]."""
    edges = np.arange(count + 1) * len(points) / count
    if len(points) < count:
        return points[edges[:-1].astype(int)]
    whole = np.concatenate([np.zeros((1, 3)), np.cumsum(points, axis=0)])
    edges = np.floor(edges).astype(int)
    return (whole[edges[1:]] - whole[edges[:-1]]) / np.diff(edges)[:, None]


def _support_points(points: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Moves points [N, 3] towards the least energy distance to the dense samples [M, 3].

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
    """Returns 1 / distance [N, M] of points [N, 3] and [M, 3], at most 1000."""
    one = np.ones((len(x), 1), np.float32)
    left = np.concatenate([x, one, (x * x).sum(axis=1, keepdims=True)], axis=1)
    right = np.stack([*(-2.0 * y.T), (y * y).sum(axis=1), np.ones(len(y), np.float32)])
    distance = left @ right
    np.maximum(distance, 1e-6, out=distance)
    np.sqrt(distance, out=distance)
    return np.reciprocal(distance, out=distance)


def _hilbert_order(points: np.ndarray) -> np.ndarray:
    """Returns the order of points [N, 3] along a Hilbert curve; equal cells by coordinates.

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
