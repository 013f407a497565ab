"""Turns and crops a mesh as the training meshes were, where that makes it like them.

Meshes come with z up, facing backwards, with a neck, eyeballs or teeth. The training meshes may
have been cut in another way. Candidates are compared by the distance of their descriptors from
those of the training, on a sample of the surface.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from a2fjax.data.identity import canonical_pose, surface

Distance = Callable[[np.ndarray], float]
"""Distance of a descriptor [D] (without normals) from the training's"""

_SAMPLES = 4000
_LEAST_POINTS = 100
_MOST_PARTS = 24
_CUTS = np.linspace(0.05, 0.6, 12)
"""Shares of the height or depth that may be cut away."""

_BETTER = 0.8  # A change must bring the distance down to this share.


@dataclasses.dataclass(frozen=True)
class Aligned:
    """A mesh as it is compared with the training meshes.

    Attributes:
      vertices: [V, 3].
      faces: [F, 3].
      distance: of its descriptor.
      changes: what was done to it, for the user; empty for nothing.
    """

    vertices: np.ndarray
    faces: np.ndarray
    distance: float
    changes: tuple[str, ...]


def align(vertices: np.ndarray, faces: np.ndarray, distance: Distance, near: float) -> Aligned:
    """Returns a mesh turned and cropped so that it is like the training meshes.

    A mesh within `near` stays as it is. Otherwise quarter and eighth turns are tried, then leaving
    out separate parts (neck, eyeballs, teeth), then cutting off the lower end or the rear. What
    does not bring the mesh within `near` is not done: an upside-down head is half way there.

    Args:
      vertices: [V, 3] of a checked mesh.
      faces: [F, 3]; F = 0 for a point cloud.
      distance: of a descriptor from the training's.
      near: distance up to which a mesh is like those of the training.
    """
    raw_distance = distance(surface.describe(vertices, faces))
    if raw_distance <= near:
        return Aligned(vertices, faces, raw_distance, ())
    part = _parts(len(vertices), faces)
    largest = part == np.bincount(part).argmax()
    everything = np.ones(len(vertices), bool)
    # Half a match may be an upside-down head: only the last attempt crops what a turn left far.
    turns = {True: _best_turn(_sample(vertices, faces), distance, near)}
    for keep, always in ((everything, False), (largest, False), (everything, True)):
        if keep is largest and keep.all():
            continue
        some = restrict(vertices, faces, keep)
        if keep.all() not in turns:
            turns[False] = _best_turn(_sample(*some), distance, near)
        turn, value = turns[bool(keep.all())]
        if value > near and not always:
            turn, value = np.eye(3), _distance(*_sample(*some), distance)
        elif always and np.array_equal(turn, np.eye(3)):
            break
        changes = []
        if not np.array_equal(turn, np.eye(3)):
            changes.append(f"turned by {_degrees(turn):.0f} degrees")
        if not keep.all():
            changes.append(_without(len(np.unique(part)) - 1))
        turned = (some[0] @ turn.T).astype(vertices.dtype), some[1]
        if value > near and (cropped := _crop(*turned, distance, near, value)) is not None:
            turned, changes = cropped[:2], changes + cropped[2]
        reached = distance(surface.describe(*turned))
        if reached <= near:
            return Aligned(*turned, reached, tuple(changes))
    return Aligned(vertices, faces, raw_distance, ())


def _without(parts: int) -> str:
    return f"without {parts} separate part{'s' * (parts > 1)}"


def _best_turn(
    sample: tuple[np.ndarray, np.ndarray], distance: Distance, near: float
) -> tuple[np.ndarray, float]:
    """Returns the rotation that brings a sample nearest, and the distance it then has."""
    places, weights = sample
    turn, value = np.eye(3), np.inf
    for rotations in (_quarter_turns(), _eighth_turns()):
        for rotation in rotations:
            reached = _distance(places @ rotation.T, weights, distance)
            if reached < value:
                turn, value = rotation, reached
        if value <= near:
            break
    return turn, value


def _crop(
    vertices: np.ndarray, faces: np.ndarray, distance: Distance, near: float, least: float
) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """Returns a cropped mesh within `near` and what was left out; None if no crop reaches it."""
    words: list[str] = []
    part = _parts(len(vertices), faces)
    sizes = np.bincount(part)
    order = np.argsort(sizes)[::-1][: _MOST_PARTS + 1]
    kept = np.isin(part, order)
    dropped = 0
    for number in order[1:]:
        trial = kept & (part != number)
        reached = _distance(*_sample(*restrict(vertices, faces, trial)), distance)
        if reached < least:
            kept, least, dropped = trial, reached, dropped + 1
    if dropped:
        vertices, faces = restrict(vertices, faces, kept)
        words.append(_without(dropped))
    for axis, name in ((1, "the lower end"), (2, "the rear")):
        if least <= near:
            break
        along = _upright(vertices, faces)[:, axis]
        low, high = along.min(), along.max()
        best, share = None, 0.0
        for cut in _CUTS:
            trial = along > low + cut * (high - low)
            reached = _distance(*_sample(*restrict(vertices, faces, trial)), distance)
            if reached < _BETTER * least and (best is None or reached < best[0]):
                best, share = (reached, trial), cut
        if best is not None:
            least = best[0]
            vertices, faces = restrict(vertices, faces, best[1])
            words.append(f"without {name} ({100 * share:.0f} %)")
    return (vertices, faces, words) if words and least <= near else None


def restrict(
    vertices: np.ndarray, faces: np.ndarray, keep: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the part of a mesh whose vertices are in a mask [V]."""
    number = np.cumsum(keep) - 1
    inside = keep[faces].all(axis=1) if len(faces) else np.zeros(0, bool)
    return vertices[keep], number[faces[inside]].astype(np.int32)


def _sample(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns fixed points [M, 3] of a surface and their shares of the area."""
    points = vertices.astype(np.float64)
    if not len(faces):
        return points, np.full(len(points), 1.0 / max(len(points), 1))
    a, b, c = (points[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.any():
        return points[:0], area[:0]
    # Evenly over the area: large triangles need several points, of small ones few are enough.
    edges = np.cumsum(area) / area.sum()
    face = np.minimum(np.searchsorted(edges, (np.arange(_SAMPLES) + 0.5) / _SAMPLES), len(a) - 1)
    u, v = np.random.default_rng(0).random((2, _SAMPLES, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    places = a[face] + u * (b - a)[face] + v * (c - a)[face]
    return places, np.full(_SAMPLES, 1.0 / _SAMPLES)


def _distance(places: np.ndarray, weights: np.ndarray, distance: Distance) -> float:
    if len(places) < _LEAST_POINTS:
        return float("inf")
    places = surface.unit_places(places, weights)
    upright = places @ canonical_pose.pose(places, weights).T
    return distance(surface.describe_places(upright, weights))


def _upright(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Returns the vertices [V, 3] in canonical pose."""
    points, places, weights, _ = surface.unit_quadrature(vertices, faces)
    return np.asarray(points @ canonical_pose.pose(places, weights).T)


def _parts(count: int, faces: np.ndarray) -> np.ndarray:
    """Returns the number of the connected part of each vertex [V]."""
    from scipy.sparse import coo_matrix, csgraph

    if not len(faces):
        return np.zeros(count, int)
    rows, columns = faces[:, [0, 1]].T.ravel(), faces[:, [1, 2]].T.ravel()
    graph = coo_matrix((np.ones(len(rows), bool), (rows, columns)), (count, count))
    return np.asarray(csgraph.connected_components(graph, directed=False)[1])


def _quarter_turns() -> list[np.ndarray]:
    """Returns the 24 rotations that map the axes onto each other."""
    out = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            turn = np.eye(3)[list(order)] * np.array(signs)[:, None]
            if np.linalg.det(turn) > 0:
                out.append(turn)
    return out


def _eighth_turns() -> list[np.ndarray]:
    """Returns the quarter turns, each with a further turn by 45 degrees about y or z."""
    c = np.sqrt(0.5)
    about = [
        np.array([[c, 0, c], [0, 1, 0], [-c, 0, c]]),
        np.array([[c, -c, 0], [c, c, 0], [0, 0, 1]]),
    ]
    return [turn @ quarter for quarter in _quarter_turns() for turn in about]


def _degrees(turn: np.ndarray) -> float:
    """Returns the angle of a rotation."""
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))
