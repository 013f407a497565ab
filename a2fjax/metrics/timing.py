"""Timing metric: lag of the predicted aperture in milliseconds.

    r(k) = correlation of p_{t+k} with g_t over the frames both have, |k| <= 10 frames (200 ms)

**A positive lag means that the prediction is late.** Means are removed within each overlap, so that
a static offset of either curve does not pull the peak towards zero lag. The aperture is used
because jawOpen alone carries emotion and style offsets that bias the lag. Products are summed over
clips before locating the peak, so that a clip without movement has no influence; its own peak would
be noise.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import CORRELATION, Column
from a2fjax.metrics.sums import Sums, correlation

MAX_LAG = 10
"""Maximum lag in frames (200 ms)."""

COLUMNS = (
    Column(
        "xcorr_lag_ms",
        "lag_ms",
        "lag of the prediction, > 0 is late",
        "{:+.1f}",
        unit="ms",
        better="0",
        formula="20 argmax_k r(k), refined by a parabola through the peak and its neighbours",
        mask="valid frames with jawOpen observed",
        range=(-1000.0 / rig.FPS * MAX_LAG, 1000.0 / rig.FPS * MAX_LAG),
    ),
    Column(
        "xcorr_peak",
        "at_r",
        "the correlation at that lag",
        "{:.2f}",
        better="higher",
        formula="r at the lag",
        mask="valid frames with jawOpen observed",
        range=CORRELATION,
    ),
)


def sums(prediction: np.ndarray, truth: np.ndarray, *, frame_mask: np.ndarray) -> Sums:
    """Reduces the apertures of a clip to products at each lag.

    Args:
      prediction: [T] predicted aperture.
      truth: [T] true aperture.
      frame_mask: [T] bool, valid frames.
    """
    p, g = np.asarray(prediction, np.float64), np.asarray(truth, np.float64)
    out = np.zeros((3, 2 * MAX_LAG + 1))
    frames = len(p)
    for k in range(-MAX_LAG, MAX_LAG + 1):
        late, early = slice(max(k, 0), frames + min(k, 0)), slice(max(-k, 0), frames - max(k, 0))
        both = frame_mask[late] & frame_mask[early]
        if both.sum() < 3:
            continue
        x, y = p[late][both], g[early][both]
        x, y = x - x.mean(), y - y.mean()
        out[:, k + MAX_LAG] = x @ y, x @ x, y @ y
    return {"timing/pg": out[0], "timing/pp": out[1], "timing/gg": out[2]}


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns `xcorr_lag_ms` and `xcorr_peak` (the correlation at that lag) of merged sums.

    The lag is NaN if no lag has a positive correlation, as for a motionless mouth.
    """
    r = correlation(total["timing/pg"], total["timing/pp"], total["timing/gg"])
    lead = r.shape[:-1]
    r = r.reshape(-1, r.shape[-1])
    lag, peak = np.full(len(r), np.nan), np.full(len(r), np.nan)
    for i, curve in enumerate(r):
        if np.isfinite(curve).any() and np.nanmax(curve) > 0:
            lag[i], peak[i] = _peak(curve)
    milliseconds = 1000.0 / rig.FPS * (lag - MAX_LAG)
    return {"xcorr_lag_ms": milliseconds.reshape(lead), "xcorr_peak": peak.reshape(lead)}


def _peak(curve: np.ndarray) -> tuple[float, float]:
    top = int(np.nanargmax(curve))
    if not 0 < top < len(curve) - 1:
        return float(top), float(curve[top])
    left, centre, right = curve[top - 1 : top + 2]
    bend = left - 2 * centre + right
    if not np.isfinite(bend) or bend >= 0:
        return float(top), float(centre)
    shift = 0.5 * (left - right) / bend
    return top + shift, float(centre - 0.25 * (left - right) * shift)
