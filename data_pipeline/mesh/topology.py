"""Compares frames of a capture with the neutral that they are solved against.

A wrong unit, a mirrored export or another order of the vertices leaves a mesh that can be solved,
with wrong weights. A few frames show each of them:

- unit: the median distance from the middle does not depend on the order of the vertices;
- handedness: a rotation and a reflection are fitted; the reflection of a face fits far worse;
- order: after the head's rigid motion is removed, a vertex lies further from its place than shapes
  move it, and far from its neighbours; or all vertices fit when the order is shifted.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.mesh import geometry
from data_pipeline.mesh.conventions import MILLIMETRES, axes_name

SIZE_LIMIT = 1.15
"""A take's mesh may be larger or smaller than the neutral by this factor."""

_FRAMES = 4  # at the start, and as many over the take
_MISPLACED = 0.01  # share of the vertices; fewer are treated as outliers
_FEWEST = 3
_NOISE_MM = 4.0  # a vertex may be this far from its place, beside what shapes do
_COMBINED = 1.5  # several shapes at once move a vertex this much further than one
_TORN = 2.0  # a vertex is torn from its neighbours if they are this much further away
_NEIGHBOURS = 8
_FITTING = 2  # a torn vertex has at most this many neighbours at their distance
_MIRROR = 0.6  # the reflection fits better than the rotation by this factor
_UNLIKE = 0.5  # residual, as a share of the radius, above which neither fits
_APART = 0.25  # median distance, as a share of the radius, above which it is another mesh
_ANY_FACE = 1.6  # expressions change a face's extent by less than this factor
_FURTHEST = 1e9
_LEAST = 6  # vertices from which a pose can be fitted
_SHIFTED_MM = 0.5  # a smaller distance is no sign of a shifted order
_SHIFTED = 0.4  # the shifted order fits better than the given one by this factor


@dataclasses.dataclass(frozen=True)
class Likeness:
    """How frames compare with a neutral mesh.

    Attributes:
      size: size of the frames' mesh relative to the neutral's.
      mirrored: whether the frames are a mirror image of it.
      misplaced: number of vertices that lie elsewhere because of their order.
      shift: places by which the order of all vertices is shifted, or 0.
      apart: median distance of a vertex from where shapes can move it, as a share of the radius.
    """

    size: float
    mirrored: bool = False
    misplaced: int = 0
    shift: int = 0
    apart: float = 0.0


def sample_frames(vertices: geometry.Vertices) -> np.ndarray:
    """Returns frames [F, V, 3] float64, F <= 8: the first ones, and some spread over the take."""
    count = vertices.shape[0]
    chosen = {*range(min(_FRAMES, count))}
    chosen |= {round(place) for place in np.linspace(0, count - 1, _FRAMES + 1)}
    blocks = [np.asarray(vertices[f : f + 1], np.float64) for f in sorted(chosen)]
    return np.concatenate(blocks)


def check_frames(
    vertices: geometry.Vertices,
    neutral: np.ndarray,
    deltas: np.ndarray,
    *,
    keep: np.ndarray,
    stable: np.ndarray,
    scale: float,
    axes: np.ndarray,
    name: str,
    size_limit: float = SIZE_LIMIT,
) -> None:
    """Checks a take's unit, handedness and order of vertices on a few of its frames.

    Args:
      vertices: [F, V, 3] in the capture's unit and axes.
      neutral: [V, 3] mm, in the rig's axes.
      deltas: [K, V, 3] mm, the shapes.
      keep: [M] indices of the vertices that are compared.
      stable: [N] indices of the vertices that only move with the head.
      scale: mm in one unit of the capture.
      axes: [3, 3] signed permutation to the rig's axes.
      name: name for messages.
      size_limit: largest factor between the sizes of the two meshes.

    Raises:
      InputError: another number of vertices, a wrong unit (with the factor and the unit that
        fits), a mirror image, or another order (with the number of misplaced vertices).
    """
    if len(vertices.shape) != 3 or vertices.shape[1:] != neutral.shape:
        return  # `geometry.displacements` reports it
    with np.errstate(invalid="ignore"):  # Vertices that dropped out are NaN, damaged ones infinite.
        frames = sample_frames(vertices) @ (scale * np.asarray(axes, np.float64)).T
    change = compare(frames, neutral, deltas, keep=keep, stable=stable)
    if change is None:
        return
    if change.mirrored:
        raise InputError(
            f"{name}: its vertices are a mirror image of the rig's neutral (a left-handed export?):"
            f" give --config.axes={axes_name(np.diag([-1.0, 1.0, 1.0]) @ axes)}"
        )
    if change.shift or change.misplaced:
        which = f"all {len(neutral)}" if change.shift else f"{change.misplaced} of {len(keep)}"
        how = f" (shifted by {change.shift})" if change.shift else ""
        raise InputError(
            f"{name}: {which} vertices are in another order than the rig's{how}: export it in the "
            "rig's order"
        )
    if not 1.0 / size_limit <= change.size <= size_limit:
        raise InputError(f"{name}: {_unit_problem(change.size, scale)}")
    if change.apart > _APART:
        raise InputError(
            f"{name}: not the rig's mesh: half of its vertices are at least "
            f"{100 * change.apart:.0f} % of the head's radius from their place (another order of "
            "vertices, or another mesh)"
        )


def compare(
    frames: np.ndarray,
    neutral: np.ndarray,
    deltas: np.ndarray,
    *,
    keep: np.ndarray,
    stable: np.ndarray,
) -> Likeness | None:
    """Returns how frames compare with a neutral, or None if too few vertices are visible.

    Args:
      frames: [F, V, 3] in mm and the rig's axes, or in any unit: `size` says the factor. Missing
        vertices are not finite.
      neutral: [V, 3] mm.
      deltas: [K, V, 3] mm; no shapes (K = 0) if they are not known.
      keep: [M] indices of the vertices that are compared.
      stable: [N] indices of the vertices that only move with the head.
    """
    visible = (np.abs(frames) < _FURTHEST).all(axis=2)  # false for NaN
    usable = (visible[:, keep].mean(axis=1) >= 0.5) & (visible[:, stable].sum(axis=1) >= _LEAST)
    part = keep[visible[usable][:, keep].any(axis=0)]
    if not usable.any() or len(part) < 2 * _LEAST:
        return None
    frames = np.where(visible[usable][:, :, None], frames[usable], np.nan)
    size = float(np.median([size_ratio(f[part], neutral[part]) for f in frames]))
    if not 1.0 / _ANY_FACE <= size <= _ANY_FACE:
        return Likeness(size=size)
    if _is_mirrored(frames[:, part], neutral[part]):
        return Likeness(size=size, mirrored=True)
    moved = _laid(frames, neutral, stable)
    place = _median(moved)
    away = np.linalg.norm(place - neutral, axis=1)[part]
    spread = np.nanmedian(np.linalg.norm(moved[:, part] - place[part], axis=2), axis=0)
    reach = np.linalg.norm(deltas[:, part], axis=2).max(axis=0, initial=0.0)
    # A vertex in another's place stays there; outliers of a scan do not.
    far = (away > _COMBINED * reach + _NOISE_MM) & (spread < 0.5 * away)
    misplaced = int((far & _torn(moved[:, part], neutral[part])).sum())
    return Likeness(
        size=_scale(frames[:, stable], neutral[stable]),
        misplaced=misplaced if misplaced >= max(_FEWEST, _MISPLACED * len(part)) else 0,
        shift=_shift(frames[0], neutral, stable),
        apart=float(np.median(np.maximum(away - _COMBINED * reach, 0.0))) / _extent(neutral[part]),
    )


def size_ratio(points: np.ndarray, neutral: np.ndarray) -> float:
    """Returns the size of points [V, 3] relative to the neutral's, whatever their order."""
    seen = np.isfinite(points).all(axis=1)
    return _extent(points[seen]) / max(_extent(neutral[seen]), 1e-12)


def _scale(frames: np.ndarray, neutral: np.ndarray) -> float:
    """Returns the median ratio of distances between the same vertices, NaN if there are none."""
    ratios = []
    for step in {1, len(neutral) // 4, len(neutral) // 3, len(neutral) // 2} - {0}:
        there = np.linalg.norm(neutral - np.roll(neutral, step, axis=0), axis=1)
        there[there < 1e-6] = np.nan
        ratios.append(np.linalg.norm(frames - np.roll(frames, step, axis=1), axis=2) / there)
    return float(np.nanmedian(np.concatenate(ratios, axis=1)))


def _extent(points: np.ndarray) -> float:
    """Returns the median distance of points [N, 3] from their middle."""
    return float(np.median(np.linalg.norm(points - np.median(points, axis=0), axis=1)))


def _is_mirrored(frames: np.ndarray, neutral: np.ndarray) -> bool:
    residuals = []
    for frame in frames:
        seen = np.isfinite(frame).all(axis=1)
        points = frame[seen] - frame[seen].mean(axis=0)
        goal = neutral[seen] - neutral[seen].mean(axis=0)
        product = points.T @ goal / max(np.sqrt((points**2).sum() * (goal**2).sum()), 1e-12)
        values = np.linalg.svd(product, compute_uv=False)
        turned = -values[2] if np.linalg.det(product) < 0 else values[2]
        fits = values[0] + values[1] + np.array([turned, -turned])
        residuals.append(np.sqrt(np.maximum(1.0 - fits**2, 0.0)))
    rotation, reflection = np.median(residuals, axis=0)
    return bool(reflection < min(_UNLIKE, _MIRROR * rotation))


def _laid(frames: np.ndarray, neutral: np.ndarray, stable: np.ndarray) -> np.ndarray:
    """Returns the frames [F, V, 3] without the head's rigid motion."""
    points = frames[:, stable]
    seen = np.isfinite(points).all(axis=2)
    rotation, shift = geometry.head_motion(np.nan_to_num(points), neutral[stable], visible=seen)
    return np.matmul(frames, rotation.transpose(0, 2, 1)) + shift[:, None]


def _median(points: np.ndarray) -> np.ndarray:
    """Returns the median [V, 3] over frames [F, V, 3], NaN for vertices that no frame has."""
    out = np.full(points.shape[1:], np.nan)
    known = np.isfinite(points).all(axis=2).any(axis=0)
    out[known] = np.nanmedian(points[:, known], axis=0)
    return out


def _torn(frames: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Returns the mask [N] of vertices far from most of the vertices that are near in `neutral`.

    A few neighbours suffice for a vertex to be in its place: lips that part, and misplaced
    neighbours, do not count against it.
    """
    from scipy.spatial import cKDTree

    count = min(_NEIGHBOURS, len(neutral) - 1)
    distance, near = cKDTree(neutral).query(neutral, count + 1)
    distance, near = distance[:, 1:], near[:, 1:]
    place = _median(frames)
    lengths = np.linalg.norm(place[:, None] - place[near], axis=2)
    # Exporters split vertices at seams, so neighbours may have no distance.
    ratio = lengths / np.maximum(distance, 0.5 * np.median(distance[:, 0]) + 1e-9)
    ratio = np.sort(np.nan_to_num(ratio, nan=1.0), axis=1)
    return np.asarray(ratio[:, min(_FITTING, count - 1)] > _TORN)


def _shift(frame: np.ndarray, neutral: np.ndarray, stable: np.ndarray) -> int:
    """Returns the places by which the order of all vertices is shifted, 0 if it is not."""
    middle = np.nan_to_num(frame - np.nanmean(frame, axis=0))
    goal = neutral - neutral.mean(axis=0)
    # Products of the points with those `k` places further on, for all k: [V, 3, 3].
    one, two = np.fft.rfft(middle, axis=0), np.fft.rfft(goal, axis=0)
    product = np.fft.irfft(np.conj(one)[:, :, None] * two[:, None, :], len(goal), axis=0)
    values = np.linalg.svd(product, compute_uv=False)
    fit = values[:, 0] + values[:, 1] + np.sign(np.linalg.det(product)) * values[:, 2]
    best = int(np.argmax(fit))
    if not best:
        return 0
    given, shifted = (
        float(np.nanmedian(np.linalg.norm((_laid(frame[None], n, stable) - n)[0, stable], axis=1)))
        for n in (neutral, np.roll(neutral, -best, axis=0))
    )
    if given < _SHIFTED_MM or shifted > _SHIFTED * given:
        return 0
    return len(neutral) - best if 2 * best > len(neutral) else -best


def _unit_problem(size: float, scale: float) -> str:
    given = next((u for u, mm in MILLIMETRES.items() if np.isclose(mm, scale)), "")
    text = (
        f"in {given or f'units of {scale:.4g} mm'} its vertices are {size:.4g} times as large as "
        "the rig's neutral"
    )
    likely = [u for u, mm in MILLIMETRES.items() if 1 / 1.3 < mm * size / scale < 1.3]
    if likely and likely[0] != given:
        return f"{text}: they look like {likely[0]}; give --config.units={likely[0]}"
    return f"{text}: another unit, or another mesh"
