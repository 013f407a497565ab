"""Proper scores of samples: CRPS and energy score.

A score is proper if no forecast has a better expectation than the true distribution (Gneiting and
Raftery 2007, "Strictly Proper Scoring Rules, Prediction, and Estimation"). Samples x_1 ... x_K of a
clip with the truth y have, for a vector of values v,

    S = mean_i |x_i - y| - sum_{i<j} |x_i - x_j| / (K (K - 1))

where the second term rewards spread. Dividing by K (K - 1), not K^2, makes the expectation
independent of K (the fair score; Ferro 2014, "Fair scores for ensemble forecasts"), so rows with
different K compare. One sample has no second term: its CRPS is its mean absolute error, so that
models with one prediction stand in the same column. A fair score of few samples can be negative.

The CRPS takes v as one channel of one frame; a model that shuffles its samples between frames or
channels has the same CRPS. The energy score takes v as all channels of a group in a frame, or in
half a second, with |v| the root mean square over channels and frames.
"""

from __future__ import annotations

import math

import numpy as np

from a2fjax.metrics.column import Column, by_group
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.runs import find_runs
from a2fjax.metrics.sums import Sums, divide

WINDOW = 25
"""Frames of half a second."""

_SOURCE = "Gneiting and Raftery 2007, section 4; fair form of Ferro 2014"
_RANGE = (-math.inf, math.inf)

columns = (
    *by_group(
        "crps",
        label="crps",
        meaning="continuous ranked probability score, for one sample the mean absolute error",
        form="{:.4f}",
        unit="weight",
        formula="mean_tc of S with v one channel of one frame",
        source=_SOURCE,
        range=_RANGE,
    ),
    *by_group(
        "energy_score",
        label="energy",
        meaning="energy score of a frame",
        form="{:.4f}",
        unit="weight",
        formula="mean_t of S with v all channels of the group, |v| = sqrt(mean_c v^2)",
        source=_SOURCE,
        range=_RANGE,
    ),
    Column(
        "energy_score_500ms",
        "energy_w",
        "energy score of half a second",
        "{:.4f}",
        unit="weight",
        formula="mean of S with v jaw and mouth in 25 frames, |v| = sqrt(mean_tc v^2)",
        source=_SOURCE,
        mask="windows of 25 valid frames, from the start of each valid run; observed channels",
        range=_RANGE,
    ),
)


def crps(samples: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns the fair CRPS [...] of samples [K, ...] for the truth [...].

    Example:
        >>> float(crps(np.array([1.0, 3.0]), np.array(2.0)))
        0.0
    """
    count = len(samples)
    error = np.abs(samples - truth).mean(0)
    if count == 1:
        return error
    # Sum over pairs |x_i - x_j| of sorted values: the k-th is subtracted K - 1 - k times and
    # added k times.
    factors = 2.0 * np.arange(count) - (count - 1)
    pairs = np.tensordot(factors, np.sort(samples, axis=0), axes=1)
    return error - pairs / (count * (count - 1))


def energy_score(to_truth: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Returns the fair energy score [...].

    Args:
      to_truth: [K, ...] distances of the samples to the truth.
      between: [K (K - 1) / 2, ...] distances of all pairs of samples.
    """
    count = len(to_truth)
    error = to_truth.mean(0)
    return error - between.sum(0) / (count * (count - 1)) if count > 1 else error


def sums(samples: np.ndarray, truth: Reference) -> Sums:
    """Reduces the samples of a clip; see `SampleMetric.sums`."""
    valid = truth.frame_mask
    mask = truth.channel_mask.astype(np.float64)
    y = truth.motion[valid].astype(np.float64)
    x = samples[:, valid]
    count = len(x)
    out: Sums = {
        "scores/crps": crps(x, y).sum(0) * mask,
        "scores/frames": len(y) * mask,
    }
    shares = np.stack([_share(truth.channel_mask, group) for group in WEIGHT_GROUPS.values()], 1)
    pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
    squares = np.stack(
        [((x[i] - y) ** 2) @ shares for i in range(count)]
        + [((x[i] - x[j]) ** 2) @ shares for i, j in pairs]
    )
    for place, name in enumerate(WEIGHT_GROUPS):
        observed = shares[:, place].any()
        distances = np.sqrt(squares[..., place])
        total = energy_score(distances[:count], distances[count:]).sum()
        out[f"scores/energy_{name}"] = np.asarray(total)
        out[f"scores/energy_frames_{name}"] = np.asarray(float(len(y) * observed))
        if name == "jaw_mouth":
            windowed = _windows(squares[..., place], valid & observed)
            total = energy_score(windowed[:count], windowed[count:]).sum()
            out["scores/windowed"] = np.asarray(total)
            out["scores/windows"] = np.asarray(float(windowed.shape[1]))
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the scores [...] of merged sums."""
    out = {}
    for name, group in WEIGHT_GROUPS.items():
        out[f"crps/{name}"] = divide(
            group_sum(total["scores/crps"], group), group_sum(total["scores/frames"], group)
        )
        out[f"energy_score/{name}"] = divide(
            total[f"scores/energy_{name}"], total[f"scores/energy_frames_{name}"]
        )
    out["energy_score_500ms"] = divide(total["scores/windowed"], total["scores/windows"])
    return out


def _share(channel_mask: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Returns the weight [72] of each channel in the mean over a group's observed channels."""
    used = group[channel_mask[group]]
    out = np.zeros(len(channel_mask))
    out[used] = 1.0 / max(len(used), 1)
    return out


def _windows(squares: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Returns root mean squares [N, W] over windows of squares [N, T'] of the T' valid frames."""
    place = np.cumsum(valid) - 1
    starts = [
        place[start]
        for first, stop in find_runs(valid)
        for start in range(first, stop - WINDOW + 1, WINDOW)
    ]
    if not starts:
        return np.zeros((len(squares), 0))
    frames = np.array(starts)[:, None] + np.arange(WINDOW)
    return np.sqrt(squares[:, frames].mean(-1))
