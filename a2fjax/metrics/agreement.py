"""Agreement of samples with each other against their agreement with the truth.

If the truth is one more draw of the model's distribution, two samples correlate as much with each
other as a sample does with the truth. With deviations d from each clip's mean and sums over frames
and channels of a group, for samples x_i, i = 1 ... K, and the truth y:

    r_ss = mean_{i<j} <dx_i, dx_j> / mean_i <dx_i, dx_i>
    r_sy = mean_i <dx_i, dy> / sqrt(mean_i <dx_i, dx_i> <dy, dy>)

r_ss above r_sy means that samples share what the truth does not have: they are biased or too
narrow. r_ss below r_sy means that they differ more than the truth calls for: they are too wide.
"""

from __future__ import annotations

import numpy as np

from a2fjax.metrics.column import CORRELATION, by_group
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, correlation, divide

_MASK = "valid frames, observed channels; K >= 2"

columns = (
    *by_group(
        "r_ss",
        label="r_ss",
        meaning="correlation of two samples",
        form="{:.2f}",
        better="",
        formula="r_ss",
        mask=_MASK,
        range=CORRELATION,
    ),
    *by_group(
        "r_sy",
        label="r_sy",
        meaning="correlation of a sample with the truth",
        form="{:.2f}",
        better="higher",
        formula="r_sy",
        mask=_MASK,
        range=CORRELATION,
    ),
    *by_group(
        "r_gap",
        form="{:+.2f}",
        better="0",
        formula="r_ss - r_sy",
        mask=_MASK,
        range=(-2.0, 2.0),
    ),
)


def sums(samples: np.ndarray, truth: Reference) -> Sums:
    """Reduces the samples of a clip; see `SampleMetric.sums`."""
    count = len(samples)
    mask = truth.channel_mask * float(count > 1)
    x = samples[:, truth.frame_mask]
    y = truth.motion[truth.frame_mask].astype(np.float64)
    if len(y):
        x, y = x - x.mean(1, keepdims=True), y - y.mean(0)
    own = np.einsum("ktc,ktc->c", x, x)
    every = x.sum(0)
    pairs = (every**2).sum(0) - own  # Twice the sum over i < j.
    return {
        "agreement/pairs": pairs / max(count * (count - 1), 1) * mask,
        "agreement/own": own / count * mask,
        "agreement/truth": (every * y).sum(0) / count * mask,
        "agreement/yy": (y**2).sum(0) * mask,
    }


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the correlations [...] of merged sums."""
    out = {}
    for name, group in WEIGHT_GROUPS.items():
        pairs, own, with_truth, yy = (
            group_sum(total[f"agreement/{key}"], group) for key in ("pairs", "own", "truth", "yy")
        )
        out[f"r_ss/{name}"] = divide(pairs, np.where(own > 1e-9, own, 0.0))
        out[f"r_sy/{name}"] = correlation(with_truth, own, yy)
        out[f"r_gap/{name}"] = out[f"r_ss/{name}"] - out[f"r_sy/{name}"]
    return out
