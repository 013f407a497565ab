"""Rank histogram of samples: whether the truth lies among them as one more sample would.

The rank of the truth y among K samples of a channel in a frame is the number of samples below y,
0 to K. If y is exchangeable with the samples, all K + 1 ranks are equally frequent (Hamill 2001,
"Interpretation of Rank Histograms for Verifying Ensemble Forecasts"). A truth equal to n samples
counts 1 / (n + 1) at each of the n + 1 ranks that it could have, without a random draw.

With the shares f_k of the ranks of jaw and mouth and u_k = (k + 1/2) / (K + 1): a histogram that is
high at both ends means samples that are too narrow, one that is high in the middle samples that are
too wide, a slope means a bias.
"""

from __future__ import annotations

import numpy as np

from a2fjax.metrics.column import Column
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, divide

GROUP = WEIGHT_GROUPS["jaw_mouth"]

columns = (
    Column(
        "rank_deviation",
        "rank_dev",
        "distance of the rank histogram from a level one",
        formula="sum_k |f_k - 1 / (K + 1)|; 0 is level",
        source="reliability index of Delle Monache et al. 2006",
        mask="valid frames, observed channels of jaw and mouth; K >= 2",
        range=(0.0, 2.0),
    ),
    Column(
        "rank_variance",
        "rank_var",
        "variance of the ranks over that of level ones, above 1 is too narrow",
        "{:.2f}",
        better="1",
        formula="sum_k f_k (u_k - mean u)^2 / the same of f_k = 1 / (K + 1)",
        mask="valid frames, observed channels of jaw and mouth; K >= 2",
    ),
    Column(
        "rank_bias",
        form="{:+.3f}",
        better="0",
        formula="sum_k f_k u_k - 1/2; above 0: the truth lies above the samples",
        mask="valid frames, observed channels of jaw and mouth; K >= 2",
        range=(-0.5, 0.5),
    ),
    Column(
        "rank_histogram/<rank>",
        better="",
        formula="f_k, the share of rank k = 0 ... K",
        source="Hamill 2001",
        mask="valid frames, observed channels of jaw and mouth; K >= 2",
        range=(0.0, 1.0),
    ),
)


def sums(samples: np.ndarray, truth: Reference) -> Sums:
    """Reduces the samples of a clip; see `SampleMetric.sums`."""
    used = GROUP[truth.channel_mask[GROUP]]
    y = truth.motion[truth.frame_mask][:, used].astype(np.float64)
    x = samples[:, truth.frame_mask][:, :, used]
    count = len(x)
    # Curves are stored in 32 bits; differences below that are ties.
    tolerance = 1e-6
    below = (x < y - tolerance).sum(0).ravel()
    tied = (np.abs(x - y) <= tolerance).sum(0).ravel()
    share = 1.0 / (tied + 1.0)
    # Adds `share` to the ranks below ... below + tied, as the running sum of its steps.
    steps = np.bincount(below, share, count + 2) - np.bincount(below + tied + 1, share, count + 2)
    return {"ranks/histogram": np.cumsum(steps)[: count + 1] * (count > 1)}


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the figures [...] of merged histograms [..., K + 1]."""
    histogram = total["ranks/histogram"]
    ranks = histogram.shape[-1]
    share = divide(histogram, histogram.sum(-1, keepdims=True))
    place = (np.arange(ranks) + 0.5) / ranks
    mean = share @ place
    level = (ranks**2 - 1) / (12.0 * ranks**2)
    return {
        "rank_deviation": np.abs(share - 1.0 / ranks).sum(-1),
        "rank_variance": (share * (place - mean[..., None]) ** 2).sum(-1) / level,
        "rank_bias": mean - 0.5,
        **{f"rank_histogram/{k}": share[..., k] for k in range(ranks)},
    }
