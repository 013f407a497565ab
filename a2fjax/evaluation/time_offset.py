"""Estimates by how much a program's curves are late over all clips.

    r(k) = correlation of the predicted aperture at t + k with the true one at t, |k| <= 25 frames

with products summed over clips and means removed in each overlap. The peak is refined by a parabola
through its neighbours. A positive offset means that the prediction is late.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import rig
from a2fjax.metrics.sums import correlation

MAX_FRAMES = 25
_LEAST_PEAK = 0.1


@dataclasses.dataclass(frozen=True)
class Offset:
    """A constant time offset.

    Attributes:
      seconds: positive if the prediction is late.
      correlation: of the apertures at that offset.
      at_edge: True if the true offset may be larger than the search.
    """

    seconds: float
    correlation: float
    at_edge: bool


class Lags:
    """Products of predicted and true apertures at each lag."""

    def __init__(self) -> None:
        """Starts without clips."""
        self._products = np.zeros((3, 2 * MAX_FRAMES + 1))

    def add(self, prediction: np.ndarray, truth: np.ndarray, frames: np.ndarray) -> None:
        """Adds the apertures [T] of a clip; `frames` [T] bool are the true ones that count."""
        count = len(truth)
        for k in range(-MAX_FRAMES, MAX_FRAMES + 1):
            late, early = slice(max(k, 0), count + min(k, 0)), slice(max(-k, 0), count - max(k, 0))
            use = frames[early]
            if use.sum() < 3:
                continue
            x = prediction[late][use].astype(np.float64)
            y = truth[early][use].astype(np.float64)
            x, y = x - x.mean(), y - y.mean()
            self._products[:, k + MAX_FRAMES] += x @ y, x @ x, y @ y

    def offset(self) -> Offset | None:
        """Returns the offset, or None if the apertures do not correlate at any lag."""
        r = np.nan_to_num(correlation(*self._products))
        top = int(r.argmax())
        if r[top] < _LEAST_PEAK:
            return None
        edge = top in (0, 2 * MAX_FRAMES)
        shift = 0.0
        if not edge:
            left, centre, right = r[top - 1 : top + 2]
            bend = left - 2 * centre + right
            shift = float(0.5 * (left - right) / bend) if bend < 0 else 0.0
        return Offset((top - MAX_FRAMES + shift) / rig.FPS, float(r[top]), edge)
