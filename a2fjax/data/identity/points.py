"""Samples points that represent a neutral mesh of any topology for the identity encoder.

The points must depend on the shape of a face and hardly on its tessellation and orientation, and
similar faces must give similar points. Therefore

1. the surface is integrated exactly (quadrature inside each face), so its centre, its RMS radius
   and its moments do not depend on the tessellation;
2. it is rotated into its canonical pose: the plane about which it is most nearly symmetric becomes
   x = 0, and in that plane its axis nearer to the vertical becomes y (`canonical_pose`);
3. it is sampled densely by area, the samples are ordered along a Hilbert curve, each of `count`
   segments of equal area gives one point, and the points are moved to the least energy distance
   from the dense samples (support points);
4. the points are adjusted until their means in `a2fjax.mesh_descriptor` equal those of the surface
   to float32 precision.

Measured on 60 heads of the demo with 384 points: without 1, 2 and 4, other points on the same mesh
change the standardised components that the encoder reads by 57 %, and a rotation by 10 degrees
changes them by 900 %; with them, both changes are below 0.1 %.
"""

from __future__ import annotations

import functools
import hashlib
import sys
from pathlib import Path

import numpy as np

from a2fjax import mesh_descriptor
from a2fjax.data import records
from a2fjax.data.identity import canonical_pose, disk_cache, even_samples, matching, surface
from a2fjax.errors import InputError

_SAMPLES_PER_POINT = 16
_MOST_FOUND = 4096
_FOUND: dict[tuple[bytes, int, int, int, bool], np.ndarray] = {}
"""Points by mesh contents; training, its statistics and a report request the same subjects several
times."""


def sample_points(
    vertices: np.ndarray,
    faces: np.ndarray | None,
    count: int,
    seed: int = 0,
    *,
    normals: bool = False,
) -> np.ndarray:
    """Returns points that cover a mesh evenly by area, in canonical pose, position and size.

    With faces, the means of `a2fjax.mesh_descriptor` over the points equal those of the surface.
    They are the same for any order of vertices, faces and corners, any refinement of the same
    surface, any unit and position, and any rotation that leaves the face upright and frontal within
    about 30 degrees (see `canonical_pose.pose`). With fewer than about 200 points the means are
    only approximate. Without faces, each vertex represents an equal area, so the result follows
    the vertex density. Deterministic; takes 0.3 s or more, but only once per mesh and machine
    (`disk_cache`).

    Args:
      vertices: [V, 3], any unit, any position; x across the face, y up, z out of it; V >= 4.
      faces: [F, 3] vertex indices; None or F = 0 for a point cloud.
      count: number of points, >= 1.
      seed: seed of the offset of the sampling sequences.
      normals: add three columns of normals. They require faces with consistent winding, outward or
        inward, and are zero for a point cloud.

    Returns:
      [count, 3] float32, mean 0, root mean square distance from the mean 1; or [count, 6] with
      outward normals of about unit length, adjusted until their kernel means equal the surface's.

    Raises:
      InputError: the mesh is invalid, as in `records.check_mesh`.
    """
    faces = np.zeros((0, 3), np.int32) if faces is None else faces
    vertices, faces = records.check_mesh(vertices, faces, name="given")
    key, name = _names(vertices, faces, count, seed, normals)
    if key not in _FOUND:
        while len(_FOUND) >= _MOST_FOUND:
            _FOUND.pop(next(iter(_FOUND)), None)
        points = disk_cache.find(name, (count, 6 if normals else 3))
        if points is None:
            points = _sample(vertices, faces, count, seed, normals)
            disk_cache.store(name, points)
        _FOUND[key] = points
    return _FOUND[key].copy()


def _names(
    vertices: np.ndarray, faces: np.ndarray, count: int, seed: int, normals: bool
) -> tuple[tuple[bytes, int, int, int, bool], str]:
    """Returns the keys of a mesh's points in memory and on disk."""
    digest = hashlib.sha256(vertices.tobytes())
    digest.update(faces.tobytes())
    key = (digest.digest(), len(vertices), count, seed, normals)
    code = disk_cache.code_digest(_CODE)
    return key, f"points-{hashlib.sha256(repr((key, code)).encode()).hexdigest()[:32]}"


def _sample(
    vertices: np.ndarray, faces: np.ndarray, count: int, seed: int, normals: bool
) -> np.ndarray:
    points, places, weights, facing = surface.unit_quadrature(vertices, faces)
    turn = canonical_pose.pose(places, weights)
    points, places, facing = points @ turn.T, places @ turn.T, facing @ turn.T
    dense = None
    if len(faces):
        dense = even_samples.dense(points, faces, count * _SAMPLES_PER_POINT, seed)
    if dense is None:
        dense = points[np.lexsort(points.T)]
    dense = _unit(dense)
    dense = dense[even_samples.hilbert_order(dense)]
    points = _unit(even_samples.reduce(dense, count))
    target, oriented = surface.means(places, weights, facing)
    if len(dense) > count:
        points = _unit(matching.match(_unit(matching.support_points(points, dense)), target))
    if normals:
        columns = matching.match_normals(points, places, facing, oriented)
        points = np.concatenate([points, columns], axis=1)
    return points.astype(np.float32)


def mesh_points(path: str | Path, count: int, *, normals: bool = False) -> np.ndarray:
    """Returns `sample_points` of a mesh file; results are cached until the file changes.

    Raises:
      InputError: as `records.read_mesh`.
    """
    path = Path(path)
    state = path.stat() if path.is_file() else None
    return _mesh_points(str(path), state and (state.st_mtime_ns, state.st_size), count, normals)


def is_cached(path: str | Path, count: int, *, normals: bool = False) -> bool:
    """Returns whether the points of a mesh file are in the cache; True for an unreadable file."""
    try:
        vertices, faces = records.read_mesh(Path(path))
        key, name = _names(vertices, faces, count, 0, normals)
    except InputError:
        return True
    return key in _FOUND or disk_cache.find(name, (count, 6 if normals else 3)) is not None


@functools.lru_cache(maxsize=4096)
def _mesh_points(path: str, state: tuple[int, int] | None, count: int, normals: bool) -> np.ndarray:
    vertices, faces = records.read_mesh(path)
    points = sample_points(vertices, faces, count, normals=normals)
    points.flags.writeable = False
    return points


def _unit(points: np.ndarray) -> np.ndarray:
    centred = points - points.mean(axis=0)
    return centred / max(float(np.sqrt((centred**2).sum(axis=1).mean())), 1e-12)


_CODE = (sys.modules[__name__], canonical_pose, even_samples, matching, surface, mesh_descriptor)
"""Modules that decide where the points are; other code gives other points."""
