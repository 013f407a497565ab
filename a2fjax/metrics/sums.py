"""Additive sums of metrics, so that clips, subjects and hosts merge exactly.

A metric is a pair of functions. `sums(...)` reduces one clip to arrays that can be added over
clips; `values(sums)` turns merged sums into metric values. Every `values` also supports leading
batch axes, so that one call handles a thousand bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Sums = dict[str, np.ndarray]


def merge(parts: Iterable[Sums]) -> Sums:
    """Returns the key-wise sum of one or more clips' sums.

    Raises:
      ValueError: no parts, or parts of different metrics.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("nothing to merge")
    for part in parts[1:]:
        if part.keys() != parts[0].keys():
            raise ValueError(f"different sums: {sorted(part.keys() ^ parts[0].keys())}")
    return {key: np.sum([part[key] for part in parts], axis=0) for key in parts[0]}


def divide(total: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Returns total / weight; NaN where the weight is not positive, since nothing was measured."""
    total, weight = np.asarray(total, np.float64), np.asarray(weight, np.float64)
    measured = weight > 0
    return np.where(measured, total / np.where(measured, weight, 1.0), np.nan)


def deviations(values: np.ndarray) -> np.ndarray:
    """Subtracts the mean over the first axis from values [N, ...]; empty input stays empty."""
    return values - values.mean(0, keepdims=True) if len(values) else values


def correlation(xy: np.ndarray, xx: np.ndarray, yy: np.ndarray) -> np.ndarray:
    """Returns Pearson's r from sums of products of deviations; NaN where either is constant.

    Sums of squared deviations below 1e-9 squared are rounding and count as constant.
    """
    return np.where((xx > 1e-9) & (yy > 1e-9), divide(xy, np.sqrt(np.maximum(xx * yy, 0))), np.nan)
