"""Taking the head's own motion out of moving vertices, frame by frame.

A rig's shapes are displacements of a still head; what a scanner sees also turns and shifts. Each
frame is brought back onto the neutral mesh by the rigid motion of vertices that speech does not
move (Kabsch 1976, Acta Cryst. A32), weighted robustly (Geman-McClure) so that a brow or an ear that
does move, or a stray point of the scan, does not pull the head along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from a2fjax.errors import InputError

_BUDGET = 48_000_000  # Bytes of one working copy of a block of frames.


class Vertices(Protocol):
    """Moving vertices [F, V, 3] read a block at a time: an array, a memory map or a cache file."""

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
    # H = sum w (x - centre) (y - goal)'; the centred target may stay uncentred, it adds nothing.
    h = np.matmul(((source - centre[:, None]) * w[:, :, None]).transpose(0, 2, 1), target)
    u, _, vt = np.linalg.svd(h)
    sign = np.sign(np.linalg.det(np.matmul(u, vt)))
    vt[:, 2] *= sign[:, None]  # a reflection fits flat point sets as well; it is never the answer
    rotation = np.matmul(u, vt).transpose(0, 2, 1)
    return rotation, goal - np.einsum("fij,fj->fi", rotation, centre)


def head_motion(
    source: np.ndarray, target: np.ndarray, *, iterations: int = 5, floor: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the robust rigid motion (R [F, 3, 3], t [F, 3]) that brings frames onto a mesh.

    Args:
      source: [F, N, 3] stable vertices of the frames, mm.
      target: [N, 3] the same vertices of the neutral mesh, mm.
      iterations: of reweighting.
      floor: smallest scale of the residuals, mm; below it they are noise and count alike.
    """
    weights = np.ones(source.shape[:2])
    for _ in range(iterations):
        rotation, shift = rigid_transform(source, target, weights)
        moved = np.matmul(source, rotation.transpose(0, 2, 1)) + shift[:, None]
        distance = np.linalg.norm(moved - target, axis=2)
        scale = np.maximum(2.0 * np.median(distance, axis=1, keepdims=True), floor)
        weights = 1.0 / (1.0 + (distance / scale) ** 2) ** 2
    return rotation, shift


def stable_vertices(neutral: np.ndarray, deltas: np.ndarray, *, share: float = 0.15) -> np.ndarray:
    """Returns the indices of vertices that no shape moves much: what rigid motion is read from.

    Those moved by at most 2 % of the largest displacement, if they are enough and span the head in
    two directions at least; otherwise the least moved `share` of all.

    Args:
      neutral: [V, 3].
      deltas: [K, V, 3].
      share: of the vertices, in (0, 1].
    """
    amplitude = np.linalg.norm(deltas, axis=2).max(axis=0)
    still = np.flatnonzero(amplitude <= 0.02 * amplitude.max())
    if len(still) >= 12 and spans(neutral, still):
        return still
    order = np.argsort(amplitude, kind="stable")
    for count in range(max(12, int(share * len(order))), len(order)):
        if spans(neutral, order[:count]):
            return np.sort(order[:count])
    return np.arange(len(neutral))


def spans(neutral: np.ndarray, indices: np.ndarray) -> bool:
    """Returns whether the vertices fix a rotation: they spread over more than a line."""
    points = neutral[indices] - neutral[indices].mean(axis=0)
    whole = np.linalg.norm(neutral - neutral.mean(axis=0), axis=1).mean()
    if len(points) < 3:
        return False
    spread = np.linalg.svd(points, compute_uv=False) / np.sqrt(len(points))
    return bool(spread[1] > 0.1 * whole)


def displacements(
    vertices: Vertices,
    neutral: np.ndarray,
    keep: np.ndarray,
    stable: np.ndarray | None,
    *,
    scale: float = 1.0,
    name: str = "vertices",
) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields (frames, displacement [n, M, 3] in mm) of stabilised vertices, in bounded memory.

    Args:
      vertices: [F, V, 3] in the capture's unit.
      neutral: [V, 3] in mm.
      keep: [M] indices of the vertices wanted.
      stable: [N] indices that rigid motion is read from; None leaves the frames as they are.
      scale: mm in one unit of the capture.
      name: for messages.

    Raises:
      InputError: another number of vertices than the neutral mesh, no frames, or coordinates that
        are not finite.
    """
    shape = vertices.shape
    if len(shape) != 3 or shape[1:] != neutral.shape:
        raise InputError(
            f"{name}: shape {tuple(shape)}, expected [frames, {len(neutral)}, 3] as the neutral"
        )
    if not shape[0]:
        raise InputError(f"{name}: has no frames")
    block = max(1, _BUDGET // (len(neutral) * 3 * 8))
    for start in range(0, shape[0], block):
        frames = slice(start, min(start + block, shape[0]))
        points = np.asarray(vertices[frames], np.float64) * scale
        if not np.isfinite(points).all():
            bad = start + int(np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))[0])
            raise InputError(f"{name}: frame {bad} has coordinates that are not finite")
        if stable is not None:
            rotation, shift = head_motion(points[:, stable], neutral[stable])
            moved = np.matmul(points[:, keep], rotation.transpose(0, 2, 1)) + shift[:, None]
        else:
            moved = points[:, keep]
        yield frames, moved - neutral[keep]
