"""Shape descriptor of a face mesh: means over its surface, the same in NumPy and JAX.

The surface is given as points, centred and of unit RMS radius. Every value is an integral over the
surface, so it depends neither on the order of points nor on the triangulation. `data.identity`
chooses points that give these integrals exactly; `models.conditioning` computes them from the
points of a batch.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

VERSION = 2
"""Increases when the same mesh gets other values; checkpoints store theirs."""

_WIDE = 0.6
"""Wider of two kernel scales, in RMS radii; the other is half of it, so its kernel is wide ** 4."""

_SHELLS = ((0.6, 12), (1.0, 28), (1.4, 24))


def _centres() -> np.ndarray:
    """Returns points on three shells, each a Fibonacci lattice (Gonzalez 2010)."""
    golden = math.pi * (3.0 - math.sqrt(5.0))
    points = []
    for radius, count in _SHELLS:
        i = np.arange(count)
        height = 1.0 - (2.0 * i + 1.0) / count
        ring = np.sqrt(1.0 - height**2)
        shell = np.stack([ring * np.cos(golden * i), height, ring * np.sin(golden * i)], -1)
        points.append(radius * shell)
    return np.concatenate(points).astype(np.float32)


CENTRES = _centres()
MONOMIALS = (
    *itertools.combinations_with_replacement(range(3), 2),
    *itertools.combinations_with_replacement(range(3), 3),
)
WIDTH = len(CENTRES) * 2 + len(MONOMIALS)
NORMALS_WIDTH = len(CENTRES) * 3
GROUPS = (
    slice(0, len(CENTRES)),
    slice(len(CENTRES), 2 * len(CENTRES)),
    slice(2 * len(CENTRES), 2 * len(CENTRES) + 6),
    slice(2 * len(CENTRES) + 6, WIDTH),
)
"""Values of one kind in a descriptor without normals: narrow and wide kernels, moments of second
and third order."""


def width(normals: bool) -> int:
    """Returns the number of values of `descriptor`.

    Example:
        >>> width(normals=False), width(normals=True)
        (144, 336)
    """
    return WIDTH + NORMALS_WIDTH * normals


def descriptor(xp: Any, points: Any, dot: Any) -> Any:
    """Returns the shape descriptor [..., `width`] of points [..., P, 3 or 6].

    A kernel mean embedding (Smola et al. 2007) at fixed centres and two scales, the moments of
    second and third order, and with normals the kernel means of the normals: the surface as a
    current (Glaunès and Joshi 2006), tested at the centres.

    Args:
      xp: numpy or jax.numpy.
      points: centred and of unit RMS radius; columns 3 to 5 are unit normals.
      dot: matrix product in full float32 or better; accelerators round the operands by default,
        and standardised components enlarge that a hundredfold.
    """
    positions, normals = points[..., :3], points[..., 3:]
    centres = xp.asarray(CENTRES, points.dtype)
    square = (
        xp.sum(positions**2, -1, keepdims=True)
        - 2.0 * dot(positions, centres.T)
        + xp.sum(centres**2, -1)
    )
    wide = xp.exp(square / (-2.0 * _WIDE**2))
    axes = [positions[..., i] for i in range(3)]
    moments = [xp.mean(math.prod(axes[i] for i in powers), axis=-1) for powers in MONOMIALS]
    parts = [xp.mean(wide**4, axis=-2), xp.mean(wide, axis=-2), xp.stack(moments, -1)]
    if normals.shape[-1]:
        means = dot(xp.swapaxes(wide, -1, -2), normals) / points.shape[-2]
        parts.append(means.reshape(*means.shape[:-2], -1))
    return xp.concatenate(parts, axis=-1)


def kernels(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the narrow and the wide kernel [P, C] of points [P, 3] at centres [C, 3]."""
    square = (points**2).sum(1)[:, None] - 2.0 * points @ centres.T + (centres**2).sum(1)
    square *= -0.5 / _WIDE**2
    wide = np.exp(square, out=square)
    narrow = wide * wide
    return np.multiply(narrow, narrow, out=narrow), wide


def kernel_precisions() -> tuple[float, float]:
    """Returns 1 / variance of the narrow and the wide kernel."""
    return 4.0 / _WIDE**2, 1.0 / _WIDE**2
