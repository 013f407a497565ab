"""How far a condition lies from those of the training data, and how much it then counts.

A network has no defined answer far from what it was trained on. The distance of a descriptor x is
the root mean square over its values of (x - mean) / deviation, with mean and deviation over the
training items (people, clips). Up to the first bound it counts in full, beyond the second one not
at all, in between in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

UNBOUNDED = np.float32(1e9)
"""Bound that no distance reaches; for training data that says nothing about others."""

_PRIOR = 4.0
"""Weight, in items, of the variance pooled over a group of values: few items vary too little in
some values by chance."""

_MARGIN, _FEW = 1.25, 4.0
_OTHERWISE = 2.5
"""Largest distance assumed for two items, of which none can be left out."""


def spread(
    rows: np.ndarray, groups: Sequence[slice], least: float = 1e-6
) -> tuple[np.ndarray, np.ndarray]:
    """Measures the deviations of training items and the bounds of what is like them.

    The first bound is the largest distance of an item from the others (leave one out), times
    1.25 + 4 / N; the second one is twice as large. Of 80 heads of the demo, 30 drawings of N for
    training: the largest distance of the other heads was, in units of the largest one left out, at
    most 1.25 for N = 30, 1.3 for 15, 1.8 for 8 and 2 for 5.

    Args:
      rows: [N, D], a descriptor per item.
      groups: values of one kind, whose variances are alike; together all D.
      least: smallest deviation.

    Returns:
      deviation [D] and bounds [2], float32; `UNBOUNDED` with fewer than two items.
    """
    rows = np.asarray(rows, np.float64)
    count = len(rows)
    if count < 2:
        return np.ones(rows.shape[-1], np.float32), np.full(2, UNBOUNDED, np.float32)
    farthest = _OTHERWISE
    if count > 2:
        left_out = (np.delete(rows, i, axis=0) for i in range(count))
        farthest = max(
            float(distance(row, rest.mean(0), _deviation(rest, groups, least)))
            for row, rest in zip(rows, left_out, strict=True)
        )
    bound = farthest * (_MARGIN + _FEW / count)
    deviation = _deviation(rows, groups, least)
    return deviation.astype(np.float32), np.array([bound, 2.0 * bound], np.float32)


def _deviation(rows: np.ndarray, groups: Sequence[slice], least: float) -> np.ndarray:
    squares = ((rows - rows.mean(0)) ** 2).sum(0)
    pooled = np.zeros_like(squares)
    for group in groups:
        pooled[group] = squares[group].mean() / (len(rows) - 1)
    variance = (squares + _PRIOR * pooled) / (len(rows) - 1 + _PRIOR)
    return np.asarray(np.maximum(np.sqrt(variance), least))


def distance(row: Any, mean: Any, deviation: Any) -> Any:
    """Returns the distance [...] of descriptors [..., D], NumPy or JAX."""
    return ((((row - mean) / deviation) ** 2).mean(-1)) ** 0.5


def weight(distances: Any, bounds: Any) -> Any:
    """Returns how much conditions at distances [...] count, from 1 to 0, NumPy or JAX.

    Example:
        >>> [round(float(weight(d, np.array([2.0, 4.0]))), 3) for d in (1, 3, 5)]
        [1.0, 0.5, 0.0]
    """
    return ((bounds[1] - distances) / (bounds[1] - bounds[0] + 1e-9)).clip(0.0, 1.0)
