"""Lip sync as a judge hears it: distance, confidence and offset, after LSE-D and LSE-C.

The judge is a sync expert (`a2fjax.sync`) that was not trained for the task. For a clip, s(l) is
its mean score over the clip's windows of 0.6 s, with the audio at the place where it belongs if the
motion is l frames late, |l| <= 20 (400 ms); higher is more in step. Windows are the same for all
systems: those with speech in half of their frames and with motion of the **truth**, whose audio is
in the clip at every l. A clip without such a window has no figures. Where a system's own motion is
still, the window's score is 0 at every l. Clips count equally.

    played        1 - s(0), the distance as a viewer sees it
    distance      1 - max_l s(l)
    confidence    max_l s(l) - median_l s(l)
    offset        argmax_l s(l), above 0 is late; none where two l share the maximum

LSE-D and LSE-C (Wav2Lip, arXiv 2008.10010) are the same minimum, and the same median less minimum,
of Euclidean distances between SyncNet's vectors of 0.2 s of *video* at 25 fps, within 15 video
frames (600 ms). Here scores are those of rig motion at 50 fps, in [-1, 1]. **The two do not
compare**, nor do figures of two judges. The minimum hides a constant offset, which `played` shows.
Mouths can be trained to please a judge beyond what the truth does, so the ideal is the truth's
value, and a report shows what the judge makes of the truth, of the truth shifted, and of the truth
of another clip.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import SHARE, Column
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, divide

SEARCH = 20
"""Largest lateness searched, in frames: 400 ms."""

WITHIN = 2
"""Frames of lateness that count as in step: 40 ms."""

_FRAME = 1000.0 / rig.FPS
_TIES = 1e-6
_KEYS = ("played", "distance", "confidence", "within", "clips")

_MASK = "windows with speech and true motion whose audio is in the clip at every l"
_DISTANCES = (0.0, 2.0)
_SOURCE = "after {} of Wav2Lip, arXiv 2008.10010, which is of video: the two do not compare"


def _column(value: str, label: str, meaning: str, formula: str, **facts: Any) -> list[Column]:
    """Returns the columns of a value of the prediction and of the truth."""
    shared: dict[str, Any] = {"mask": _MASK, "form": "{:.3f}", **facts}
    better = str(shared.pop("better", f"{value}_truth"))
    return [
        Column(value, label, meaning, formula=formula, better=better, **shared),
        Column(f"{value}_truth", formula=f"{formula}; of the truth", better="", **shared),
    ]


columns = (
    *_column(
        "judge_distance",
        "j_dist",
        "distance that a sync judge finds at the best offset",
        "mean over clips of 1 - max_l s(l)",
        source=_SOURCE.format("LSE-D"),
        range=_DISTANCES,
    ),
    *_column(
        "judge_distance_played",
        "j_played",
        "the judge's distance without an offset",
        "mean over clips of 1 - s(0)",
        range=_DISTANCES,
    ),
    *_column(
        "judge_confidence",
        "j_conf",
        "the judge's confidence",
        "mean over clips of max_l s(l) - median_l s(l)",
        source=_SOURCE.format("LSE-C"),
        range=_DISTANCES,
    ),
    *_column(
        "judge_offset_ms",
        "j_off",
        "lag that the judge finds, > 0 is late",
        "20 median over clips of argmax_l s(l), clips with one maximum",
        form="{:+.1f}",
        unit="ms",
        range=(-_FRAME * SEARCH, _FRAME * SEARCH),
    ),
    *_column(
        "judge_within_40ms",
        "j_40ms",
        "share of clips whose offset is within 40 ms",
        "share of clips with one maximum, at |l| <= 2",
        form="{:.2f}",
        better="higher",
        range=SHARE,
    ),
)


def nothing() -> Sums:
    """Returns the sums of a clip that has no figures."""
    none = np.zeros((2 * SEARCH + 1, 0))
    return {**of_scores(none, "p"), **of_scores(none, "g")}


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip; see `Metric.sums`."""
    if truth.judged is None:
        return nothing()
    return {
        **of_scores(truth.judged.scores(prediction), "p"),
        **of_scores(truth.judged.truth_scores, "g"),
    }


def of_scores(scores: np.ndarray, side: str) -> Sums:
    """Returns the sums "sync/<figure>_<side>" of scores [41, N]: lateness -20 ... 20, windows."""
    offsets = np.zeros(2 * SEARCH + 1)
    if not scores.shape[1]:
        out: Sums = {f"sync/{key}_{side}": np.zeros(()) for key in _KEYS}
        return {**out, f"sync/offsets_{side}": offsets}
    mean = np.clip(scores.astype(np.float64), -1.0, 1.0).mean(1)  # Rounding is not out of range.
    best = float(mean.max())
    late = int(mean.argmax()) - SEARCH
    found = int((mean >= best - _TIES).sum()) == 1
    offsets[late + SEARCH] = found
    figures = {
        "played": 1.0 - mean[SEARCH],
        "distance": 1.0 - best,
        "confidence": best - np.median(mean),
        "within": float(found and abs(late) <= WITHIN),
        "clips": 1.0,
    }
    out = {f"sync/{key}_{side}": np.asarray(float(value)) for key, value in figures.items()}
    return {**out, f"sync/offsets_{side}": offsets}


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the figures [...] of merged sums; NaN without a judged clip."""
    out = {}
    for side, suffix in (("p", ""), ("g", "_truth")):
        of = {key: total[f"sync/{key}_{side}"] for key in _KEYS}
        for name, key in (
            ("judge_distance", "distance"),
            ("judge_distance_played", "played"),
            ("judge_confidence", "confidence"),
            ("judge_within_40ms", "within"),
        ):
            out[f"{name}{suffix}"] = divide(of[key], of["clips"])
        out[f"judge_offset_ms{suffix}"] = _FRAME * _median(total[f"sync/offsets_{side}"])
    return out


def _median(counts: np.ndarray) -> np.ndarray:
    """Returns the median lateness [...] in frames of counts [..., 41]; NaN without any."""
    below, half = np.cumsum(counts, -1), 0.5 * counts.sum(-1, keepdims=True)
    # An even number has a median between two values.
    middle = 0.5 * ((below >= half).argmax(-1) + (below > half).argmax(-1)) - SEARCH
    return np.where(half[..., 0] > 0, middle, np.nan)
