"""Speech-lip intensity correlation (SLCC): over clips, louder speech moves the lips more.

As published (arXiv 2503.20308 and its evaluation code), each clip has two numbers:

    loudness     RMS of its sound
    intensity    sqrt(mean_t s_t^2) of the speed s_t = mean_v |v_{t+1} - v_t| of the lip vertices

Both are standardised within each person (sample standard deviation; a person without variation or
with one clip is left out), and SLCC is Pearson's r over all clips. Standardised values of a person
with n clips sum to 0 and their squares to n - 1, so this r is the mean of the r within each person,
weighted by n - 1; it adds over people. Here s_t is the mean of |p_{t+1} - p_t| over the channels of
jaw and mouth. `loudness_corr` is the correlation within clips.
"""

from __future__ import annotations

import numpy as np

from a2fjax.metrics.column import CORRELATION, Column
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, divide

GROUP = WEIGHT_GROUPS["jaw_mouth"]
_CONSTANT = 1e-12

_FORMULA = "Pearson's r over clips of loudness and intensity, each standardised within its person"
_SOURCE = "arXiv 2503.20308, evaluation/evaluate_SLCC.py of its repository, on jaw and mouth"
_MASK = "clips with two neighbouring valid frames, observed channels of jaw and mouth"

columns = (
    Column(
        "slcc",
        "slcc",
        "correlation over clips of loudness and lip speed",
        "{:+.2f}",
        better="slcc_truth",
        formula=_FORMULA,
        source=_SOURCE,
        mask=_MASK,
        range=CORRELATION,
    ),
    Column(
        "slcc_truth",
        form="{:+.2f}",
        better="",
        formula=f"{_FORMULA}; of the truth",
        source=_SOURCE,
        mask=_MASK,
        range=CORRELATION,
    ),
)


def intensity(motion: np.ndarray, truth: Reference) -> float:
    """Returns the lip intensity of a motion [T, 72] in weight a frame; NaN if nothing is valid."""
    used = GROUP[truth.channel_mask[GROUP]]
    pairs = truth.frame_mask[1:] & truth.frame_mask[:-1]
    if not pairs.any() or not len(used):
        return float("nan")
    speed = np.abs(np.diff(motion[:, used], axis=0))[pairs].mean(1)
    return float(np.sqrt((speed**2).mean()))


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip to moments; see `Metric.sums`."""
    out: Sums = {}
    for key, motion in (("p", prediction), ("g", truth.motion.astype(np.float64))):
        x, y = truth.level, intensity(motion, truth)
        known = bool(np.isfinite(x) and np.isfinite(y))
        moments = [1.0, x, y, x * x, y * y, x * y] if known else [0.0] * 6
        out[f"slcc/moments_{key}"] = np.array(moments)
        out[f"slcc/r_{key}"] = np.zeros(())
        out[f"slcc/weight_{key}"] = np.zeros(())
    return out


def person(total: Sums) -> Sums:
    """Turns the moments of one person's clips into the weighted r that adds over people."""
    out = dict(total)
    for key in "pg":
        n, x, y, xx, yy, xy = total[f"slcc/moments_{key}"]
        out[f"slcc/moments_{key}"] = np.zeros(6)
        if n < 2:
            continue
        xx, yy, xy = xx - x * x / n, yy - y * y / n, xy - x * y / n
        # Below rounding of the sums, all clips are equal.
        if xx > _CONSTANT * x * x / n and yy > _CONSTANT * y * y / n:
            r = np.clip(xy / np.sqrt(xx * yy), -1.0, 1.0)
            out[f"slcc/r_{key}"] = total[f"slcc/r_{key}"] + (n - 1) * r
            out[f"slcc/weight_{key}"] = total[f"slcc/weight_{key}"] + (n - 1)
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns `slcc` and `slcc_truth` [...] of sums that `person` has seen; else NaN."""
    return {
        f"slcc{suffix}": divide(total[f"slcc/r_{key}"], total[f"slcc/weight_{key}"])
        for key, suffix in (("p", ""), ("g", "_truth"))
    }
