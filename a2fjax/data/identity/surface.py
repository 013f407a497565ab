"""Integrates over the surface of a mesh: quadrature points, and means of kernels and monomials."""

from __future__ import annotations

import functools
import math

import numpy as np

from a2fjax import mesh_descriptor
from a2fjax.data.identity import canonical_pose

_EDGE = 0.15
"""Longest edge of a quadrature triangle in RMS radii, half the narrow kernel's deviation."""

_RULE = np.array([[4.0, 1.0, 1.0], [1.0, 4.0, 1.0], [1.0, 1.0, 4.0]]) / 6.0
"""Barycentric points of the quadrature rule of degree 2 with equal weights."""

CHUNK = 1 << 12
"""Points processed at a time."""

MIRROR = np.array([-1.0, 1.0, 1.0])
POWERS = np.array(
    [
        [sum(a == axis for a in powers) for axis in range(3)]
        for powers in [(0,), (1,), (2,), *mesh_descriptor.MONOMIALS]
    ]
)
"""Exponents [monomials, 3]; the first-order monomials keep the points centred."""


def describe(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns the `mesh_descriptor` of a surface by integration, without normals.

    Args:
      vertices: [V, 3], as for `points.sample_points`.
      faces: [F, 3]; F = 0 for a point cloud.

    Returns:
      [`mesh_descriptor.WIDTH`] float64, in canonical pose.
    """
    _, places, weights, _ = unit_quadrature(vertices, faces)
    return describe_places(places @ canonical_pose.pose(places, weights).T, weights)


def describe_places(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the descriptor of weighted points [M, 3], in the pose that they are in."""
    values = means(places, weights, np.zeros_like(places))[0]
    count = len(mesh_descriptor.CENTRES)
    moments = values[-len(mesh_descriptor.MONOMIALS) :]
    return np.concatenate([values[:count], values[2 * count : 3 * count], moments])


def unit_quadrature(
    vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns the vertices and `quadrature` of a mesh whose surface has mean 0 and RMS radius 1."""
    points = vertices.astype(np.float64)
    points -= points.mean(axis=0)
    points /= np.sqrt((points**2).sum(axis=1).mean())
    places, weights, facing = quadrature(points, faces)
    centre = weights @ places
    places = places - centre
    radius = max(math.sqrt(float(weights @ (places**2).sum(axis=1))), 1e-12)
    return (points - centre) / radius, places / radius, weights, facing


def unit_places(places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns weighted points [M, 3] moved to mean 0 and scaled to RMS radius 1."""
    places = places - weights @ places
    return places / max(math.sqrt(float(weights @ (places**2).sum(axis=1))), 1e-12)


def quadrature(
    vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns points [M, 3], shares of the area [M] and outward normals [M, 3] of a surface.

    Without faces or area, returns the vertices with equal shares and zero normals.
    """
    corners = vertices[faces]
    sides = corners[:, [1, 2, 0]] - corners
    normal = np.cross(sides[:, 0], -sides[:, 2])
    area = 0.5 * np.linalg.norm(normal, axis=1)
    solid = area > 1e-12
    if not solid.any():
        order = np.lexsort(vertices.T)
        return vertices[order], np.full(len(order), 1.0 / len(order)), np.zeros_like(vertices)
    corners, area, normal = corners[solid], area[solid], normal[solid]
    longest = np.linalg.norm(sides[solid], axis=2).max(axis=1)
    parts = np.maximum(1, np.ceil(longest / _EDGE)).astype(int)
    places, weights, facing = [], [], []
    for count in np.unique(parts):
        own = parts == count
        rule = _rule(int(count))
        places.append(np.einsum("qc,tcx->tqx", rule, corners[own]).reshape(-1, 3))
        weights.append(np.repeat(area[own] / len(rule), len(rule)))
        facing.append(np.repeat(normal[own] / (2.0 * area[own, None]), len(rule), axis=0))
    place, weight, face = (np.concatenate(each) for each in (places, weights, facing))
    weight /= weight.sum()
    # With positive volume about the centre, normals point outwards whatever the winding.
    outward = weight @ ((place - weight @ place) * face).sum(axis=1)
    return place, weight, face if outward >= 0 else -face


@functools.cache
def _rule(parts: int) -> np.ndarray:
    """Returns the barycentric points [3 * parts ** 2, 3] of `_RULE` on a subdivided triangle."""
    corners = []
    for i in range(parts):
        for j in range(parts - i):
            corners.append([(i, j), (i + 1, j), (i, j + 1)])
            if i + j < parts - 1:
                corners.append([(i + 1, j + 1), (i, j + 1), (i + 1, j)])
    inner = np.einsum("qc,tcx->tqx", _RULE, np.array(corners, float) / parts).reshape(-1, 2)
    return np.concatenate([1.0 - inner.sum(axis=1, keepdims=True), inner], axis=1)


def centres() -> np.ndarray:
    """Returns the centres and their mirror images, so that mirrored points are exact too."""
    own = mesh_descriptor.CENTRES.astype(np.float64)
    return np.concatenate([own, own * MIRROR])


def values(points: np.ndarray) -> np.ndarray:
    """Returns kernel and monomial values [P, kernels and monomials] at points [P, 3]."""
    narrow, wide = mesh_descriptor.kernels(points, centres())
    by_power = powers(points)
    x, y, z = (by_power[POWERS[:, axis], :, axis] for axis in range(3))
    return np.concatenate([narrow, wide, (x * y * z).T], axis=1)


def powers(points: np.ndarray) -> np.ndarray:
    """Returns the powers 0 to 3 of coordinates, [4, P, 3]."""
    square = points * points
    return np.stack([np.ones_like(points), points, square, square * points])


def means(
    places: np.ndarray, weights: np.ndarray, facing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the means of `values` and of the normals [kernels, 3] over a surface."""
    total, oriented = 0.0, 0.0
    wide = slice(len(centres()), 2 * len(centres()))
    for start in range(0, len(places), CHUNK):
        part = slice(start, start + CHUNK)
        moments = values(places[part])
        total = total + weights[part] @ moments
        oriented = oriented + moments[:, wide].T @ (weights[part, None] * facing[part])
    return np.asarray(total), np.asarray(oriented)
