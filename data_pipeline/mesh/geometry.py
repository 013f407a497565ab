"""Removes the rigid motion of the head from moving vertices, frame by frame.

Blendshapes are displacements of a still head; a scanned head also rotates and translates. Each
frame is aligned to the neutral mesh by the rigid motion of vertices that speech does not move
(Kabsch 1976, Acta Cryst. A32), with robust weights (Geman-McClure) so that a moving brow or ear,
or an outlier of the scan, does not bias the head's pose.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from a2fjax.errors import InputError

_BUDGET = 48_000_000  # Bytes of one working copy of a block of frames.
_FURTHEST = 1e6  # mm: no captured point is a kilometre away
_LOST = 1.0  # mm: a larger median distance may mean a wrong rotation, so triples are tried
_STEP = 1e-5  # mm at the head's rim, between two reweightings
_TRIPLES = 64  # with 3 in 10 vertices outliers and as many missing, one triple in 8 is valid
_FEWEST = 6  # minimum of stable vertices in a frame


class Vertices(Protocol):
    """Moving vertices [F, V, 3] read in blocks: an array, a memory map or a cache file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(F, V, 3)."""

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Returns the vertices [n, V, 3] of a range of frames."""


def rigid_transform(
    source: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns rotations R [F, 3, 3] and shifts t [F, 3] that minimise sum w |R x + t - y|^2.

    Args:
      source: x [F, N, 3].
      target: y [N, 3].
      weights: w [F, N], non-negative, not all zero in a frame.
    """
    w = weights / weights.sum(axis=1, keepdims=True)
    centre = np.einsum("fn,fni->fi", w, source)
    goal = w @ target
    # H = sum w (x - centre) (y - goal)'; centring one side is enough.
    h = np.matmul(((source - centre[:, None]) * w[:, :, None]).transpose(0, 2, 1), target)
    u, _, vt = np.linalg.svd(h)
    sign = np.sign(np.linalg.det(np.matmul(u, vt)))
    vt[:, 2] *= sign[:, None]  # exclude reflections, which also fit flat point sets
    rotation = np.matmul(u, vt).transpose(0, 2, 1)
    return rotation, goal - np.einsum("fij,fj->fi", rotation, centre)


def head_motion(
    source: np.ndarray,
    target: np.ndarray,
    *,
    visible: np.ndarray | None = None,
    iterations: int = 40,
    floor: float = 0.15,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the robust rigid motion (R [F, 3, 3], t [F, 3]) that aligns frames with a mesh.

    Iterates Geman-McClure weights, starting from all vertices near the frame's median. Where half
    of the vertices do not fit the result, the frame restarts from the best of a fixed set of
    triples (least median of squares: Rousseeuw 1984, J. Am. Stat. Assoc. 79). Just under half of
    the vertices may therefore be outliers, and the head may be rotated by any angle.

    Args:
      source: [F, N, 3] stable vertices of the frames, mm.
      target: [N, 3] the same vertices of the neutral mesh, mm.
      visible: [F, N] which vertices exist; None for all. Each frame has at least 3.
      iterations: maximum number of reweightings; a frame stops earlier when it no longer moves.
      floor: smallest scale of the residuals, mm; smaller residuals are noise and weigh equally.
    """
    if visible is None:
        visible = np.ones(source.shape[:2], bool)
    else:
        source = np.where(visible[:, :, None], source, 0.0)
    # Points several heads away are excluded at the start; later their distance decides.
    centre = np.stack(
        [
            _middle(np.where(visible, source[:, :, i], np.inf), visible.sum(axis=1))
            for i in range(3)
        ],
        1,
    )
    radius = float(np.linalg.norm(target - np.median(target, axis=0), axis=1).max())
    near = visible & (np.linalg.norm(source - centre[:, None], axis=2) < 4.0 * radius)
    few = near.sum(axis=1) < 3
    near[few] = visible[few]
    rotation, shift = rigid_transform(source, target, near.astype(float))
    rotation, shift, fit = _reweighted(source, target, visible, rotation, shift, iterations, floor)
    lost = np.flatnonzero(fit > _LOST)
    if len(lost):
        start = _from_triples(source[lost], target, visible[lost])
        again = _reweighted(source[lost], target, visible[lost], *start, iterations, floor)
        better = again[2] < fit[lost]
        rotation[lost[better]], shift[lost[better]] = again[0][better], again[1][better]
    return rotation, shift


def _distances(
    source: np.ndarray,
    target: np.ndarray,
    visible: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray,
) -> np.ndarray:
    """Returns the remaining distances [F, N]; infinite where a vertex is missing."""
    moved = np.matmul(source, rotation.transpose(0, 2, 1))
    moved += shift[:, None] - target
    return np.where(visible, np.sqrt(np.einsum("fni,fni->fn", moved, moved)), np.inf)


def _middle(values: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Returns the lower median [F] of the `count` [F] finite values per row of values [F, N]."""
    order = np.sort(values, axis=1)
    return np.take_along_axis(order, ((count - 1) // 2)[:, None], axis=1)[:, 0]


def _reweighted(
    source: np.ndarray,
    target: np.ndarray,
    visible: np.ndarray,
    rotation: np.ndarray,
    shift: np.ndarray,
    iterations: int,
    floor: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the motion refined from a start, and the remaining median distance [F], mm."""
    rotation, shift = rotation.copy(), shift.copy()
    count = visible.sum(axis=1)
    fit = np.full(len(source), np.inf)
    radius = float(np.linalg.norm(target, axis=1).max())
    active = np.arange(len(source))
    for _ in range(iterations):
        points, there = source[active], visible[active]
        distance = _distances(points, target, there, rotation[active], shift[active])
        fit[active] = _middle(distance, count[active])
        scale = np.maximum(2.0 * fit[active, None], floor)
        weights = 1.0 / (1.0 + (distance / scale) ** 2) ** 2
        turned, moved = rigid_transform(points, target, weights)
        step = np.linalg.norm(turned - rotation[active], axis=(1, 2)) * radius
        step += np.linalg.norm(moved - shift[active], axis=1)
        rotation[active], shift[active] = turned, moved
        active = active[step > _STEP]
        if not len(active):
            break
    return rotation, shift, fit


def _from_triples(
    source: np.ndarray, target: np.ndarray, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the motion (R, t) of the vertex triple with the smallest median distance."""
    rng = np.random.default_rng(0)  # triples depend on the mesh only, not on the frames
    triples = np.array([rng.choice(len(target), 3, replace=False) for _ in range(4 * _TRIPLES)])
    one, two, three = (target[triples[:, i]] for i in range(3))
    area = np.linalg.norm(np.cross(two - one, three - one), axis=1)
    # Small triangles determine a rotation poorly.
    triples = triples[np.sort(np.argsort(-area, kind="stable")[:_TRIPLES])]
    count = visible.sum(axis=1)
    best = np.full(len(source), np.inf)
    rotation = np.tile(np.eye(3), (len(source), 1, 1))
    shift = np.zeros((len(source), 3))
    for triple in triples:
        frames = np.flatnonzero(visible[:, triple].all(axis=1))
        if not len(frames):
            continue
        turned, moved = rigid_transform(
            source[np.ix_(frames, triple)], target[triple], np.ones((len(frames), 3))
        )
        distance = _distances(source[frames], target, visible[frames], turned, moved)
        left = _middle(distance, count[frames])
        better = left < best[frames]
        chosen = frames[better]
        best[chosen], rotation[chosen], shift[chosen] = left[better], turned[better], moved[better]
    return rotation, shift


def stable_vertices(neutral: np.ndarray, deltas: np.ndarray, *, share: float = 0.15) -> np.ndarray:
    """Returns the indices of vertices that no shape moves much; rigid motion is estimated on them.

    These are the vertices moved by at most 2 % of the largest displacement, or by no more than the
    shapes' noise, if there are enough of them and they span the head in at least two directions;
    otherwise the least moved `share` of all vertices.

    Args:
      neutral: [V, 3].
      deltas: [K, V, 3].
      share: share of the vertices, in (0, 1].
    """
    length = np.linalg.norm(deltas, axis=2)
    amplitude = length.max(axis=0)
    # A quantile, so that one outlier vertex of one shape does not set the scale.
    largest = float(np.quantile(amplitude, 0.995)) or float(amplitude.max())
    # Each shape moves only a part of the face, so the median over shapes is their noise. The
    # largest of 52 such lengths is about 2.5 times that (chi distribution, 3 degrees of freedom).
    noise = float(np.median(np.median(length, axis=0)))
    still = np.flatnonzero(amplitude <= max(0.02 * largest, min(3.0 * noise, 0.1 * largest)))
    if len(still) >= 12 and spans(neutral, still):
        return still
    order = np.argsort(amplitude, kind="stable")
    for count in range(max(12, int(share * len(order))), len(order)):
        if spans(neutral, order[:count]):
            return np.sort(order[:count])
    return np.arange(len(neutral))


def spans(neutral: np.ndarray, indices: np.ndarray) -> bool:
    """Returns whether the vertices determine a rotation: they spread over more than a line."""
    points = neutral[indices] - neutral[indices].mean(axis=0)
    head_radius = np.linalg.norm(neutral - neutral.mean(axis=0), axis=1).mean()
    if len(points) < 3:
        return False
    spread = np.linalg.svd(points, compute_uv=False) / np.sqrt(len(points))
    return bool(spread[1] > 0.1 * head_radius)


def displacements(
    vertices: Vertices,
    neutral: np.ndarray,
    keep: np.ndarray,
    stable: np.ndarray | None,
    *,
    scale: float = 1.0,
    axes: np.ndarray | None = None,
    name: str = "vertices",
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (frames, displacement [n, M, 3] in mm) of stabilised vertices, in bounded memory.

    Vertices with a non-finite coordinate, or one beyond a kilometre, have dropped out: their
    displacement is NaN. A whole frame is NaN if more than half of the vertices in `keep` dropped
    out, or if too few stable ones are left for the head's pose. Displacements have the precision
    of the capture: float32 for float32 (rounded by less than 1e-4 mm).

    Args:
      vertices: [F, V, 3] in the capture's unit and axes.
      neutral: [V, 3] in mm, in the rig's axes.
      keep: [M] indices of the vertices to return.
      stable: [N] indices that rigid motion is estimated on; None leaves frames as they are.
      scale: mm in one unit of the capture.
      axes: [3, 3] signed permutation; a point p of the capture is `scale * axes @ p` in the rig's
        axes. None for the identity.
      name: name for messages.

    Raises:
      InputError: another number of vertices than the neutral mesh, no frames, or, after the last
        block, no frame with enough vertices.
    """
    shape = vertices.shape
    if len(shape) != 3 or shape[1:] != neutral.shape:
        raise InputError(
            f"{name}: shape {tuple(shape)}, expected [frames, {len(neutral)}, 3] as the neutral"
        )
    if not shape[0]:
        raise InputError(f"{name}: has no frames")
    turn = scale * (np.eye(3) if axes is None else np.asarray(axes, np.float64))
    keeps_all = len(keep) == len(neutral) and np.array_equal(keep, np.arange(len(neutral)))
    block = max(1, _BUDGET // (len(neutral) * 3 * 8))
    usable = 0
    for start in range(0, shape[0], block):
        frames = slice(start, min(start + block, shape[0]))
        raw = np.asarray(vertices[frames])
        if raw.shape[1:] != neutral.shape:
            raise InputError(
                f"{name}: frame {start} has shape {raw.shape[1:]}, expected {neutral.shape}"
            )
        if raw.dtype != np.float64:
            raw = raw.astype(np.float32, copy=False)
        wanted = raw if keeps_all else raw[:, keep]
        missing = _missing(wanted, scale)
        lost = missing.mean(axis=1) > 0.5
        matrix = np.broadcast_to(turn, (len(raw), 3, 3))
        shift = np.zeros((len(raw), 3))
        if stable is not None:
            stabilised, matrix, shift = _stabilised(raw[:, stable], neutral[stable], turn, scale)
            lost |= ~stabilised
        usable += int((~lost).sum())
        yield frames, _applied(wanted, missing, lost, matrix, shift, neutral[keep])
    if not usable:
        raise InputError(
            f"{name}: in none of the {shape[0]} frames are there enough vertices that are finite "
            "and do not move with speech"
        )


def _missing(points: np.ndarray, scale: float) -> np.ndarray:
    """Returns a mask [n, N] of the points [n, N, 3], in the capture's unit, that dropped out."""
    there = np.abs(points) < _FURTHEST / scale  # false for NaN
    # Reductions over an axis of three are several times slower than this.
    return ~(there[:, :, 0] & there[:, :, 1] & there[:, :, 2])


def _stabilised(
    stable: np.ndarray, target: np.ndarray, turn: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (solvable [n], A [n, 3, 3], b [n, 3]): A p + b in mm lies on the neutral mesh."""
    visible = ~_missing(stable, scale)
    solvable = visible.sum(axis=1) >= min(_FEWEST, len(target))
    for frame in np.flatnonzero(solvable & ~visible.all(axis=1)):
        solvable[frame] = _second_spread(target[visible[frame]]) > 0.25 * _second_spread(target)
    matrix, shift = np.tile(turn, (len(stable), 1, 1)), np.zeros((len(stable), 3))
    if solvable.any():
        points = np.where(visible[solvable][:, :, None], stable[solvable], 0.0) @ turn.T
        rotation, moved = head_motion(points, target, visible=visible[solvable])
        matrix[solvable], shift[solvable] = rotation @ turn, moved
    return solvable, matrix, shift


def _second_spread(points: np.ndarray) -> float:
    """Returns the root mean square extent of points [N, 3] in their second direction."""
    values = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return float(values[1] / np.sqrt(len(points)))


def _applied(
    points: np.ndarray,
    missing: np.ndarray,
    lost: np.ndarray,
    matrix: np.ndarray,
    shift: np.ndarray,
    neutral: np.ndarray,
) -> np.ndarray:
    """Returns A p + b - neutral [n, M, 3] in the points' precision, NaN where missing."""
    moved = np.empty(points.shape, points.dtype)
    # Float32 is precise near zero, so both sides are taken relative to the mesh's centre and the
    # point mapped to it: A is a rotation times a scale, so its inverse is a scaled transpose.
    centre = neutral.mean(axis=0)
    rest = (neutral - centre).astype(points.dtype)
    size = np.einsum("ij,ij->", matrix[0], matrix[0]) / 3.0
    origins = np.einsum("fji,fj->fi", matrix, centre - shift) / size
    with np.errstate(invalid="ignore", over="ignore"):  # from missing points
        for i in np.flatnonzero(~lost):
            near = points[i] - origins[i].astype(points.dtype)
            np.matmul(near, matrix[i].T.astype(points.dtype), out=moved[i])
            moved[i] -= rest
    moved[lost] = np.nan
    moved[missing] = np.nan
    return moved
