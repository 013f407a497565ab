"""Blinks: how many, how long, how deep, and whether both eyes blink together.

    x          eyeBlinkLeft, eyeBlinkRight, or their mean, whichever is observed
    blink      a maximum of x whose prominence within 1 s on either side is at least 0.25, and
               whose width at half the prominence is at most 0.5 s: eyes that close for longer
               rest, and lids that follow the gaze move slowly
    length     that width; between frames it is interpolated
    depth      the prominence: how far the lid travels
    together   a blink of one eye with one of the other eye at most 60 ms away

Speech does not tell when eyes blink, so predicted and true blinks are not matched: every figure has
that of the truth beside it, and a right prediction has about the same. Runs of valid frames count
by themselves; a blink at the edge of a run is lost.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.signal import find_peaks

from a2fjax import rig
from a2fjax.metrics.column import SHARE, Column
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.runs import find_runs
from a2fjax.metrics.sums import Sums, divide

PROMINENCE = 0.25
REACH = 50
"""Frames on either side in which the prominence is measured."""

MAX_WIDTH = 25.0
TOGETHER = 3
LIDS = np.array([rig.INDEX["eyeBlinkLeft"], rig.INDEX["eyeBlinkRight"]])

_MASK = "valid frames, observed channels of the two lids"


def _both(value: str, **facts) -> list[Column]:
    """Returns the columns of a value of the prediction and of the truth."""
    formula = facts.pop("formula")
    label, meaning = facts.pop("label", ""), facts.pop("meaning", "")
    shared = {"mask": _MASK, **facts}
    return [
        Column(value, label, meaning, better=f"{value}_truth", formula=formula, **shared),
        Column(f"{value}_truth", better="", formula=f"{formula}; of the truth", **shared),
    ]


columns = (
    *_both(
        "blinks_per_minute",
        label="blinks",
        meaning="blinks a minute",
        form="{:.1f}",
        unit="1/min",
        formula="blinks / minutes of valid frames",
    ),
    *_both("blink_ms", form="{:.0f}", unit="ms", formula="mean length of blinks"),
    *_both(
        "blink_depth",
        form="{:.2f}",
        unit="weight",
        formula="mean depth of blinks",
        range=(0.25, math.inf),
    ),
    *_both(
        "blinks_together",
        form="{:.2f}",
        formula="share of blinks of either eye that are together with one of the other",
        range=SHARE,
    ),
)


def blinks(lid: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns frame, length in frames and depth [N] of the blinks of a lid's curve [T]."""
    at, facts = find_peaks(lid, prominence=PROMINENCE, width=0, rel_height=0.5, wlen=2 * REACH + 1)
    short = facts["widths"] <= MAX_WIDTH
    return at[short], facts["widths"][short], facts["prominences"][short]


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip; see `Metric.sums`."""
    observed = truth.channel_mask[LIDS]
    runs = find_runs(truth.frame_mask) if observed.any() else []
    out: Sums = {"eyes/frames": np.asarray(float(sum(stop - start for start, stop in runs)))}
    for key, motion in (("p", prediction), ("g", truth.motion)):
        count = length = depth = each = together = 0.0
        for start, stop in runs:
            lids = np.asarray(motion[start:stop, LIDS[observed]], np.float64).T
            _, widths, depths = blinks(lids.mean(0))
            count, length, depth = count + len(widths), length + widths.sum(), depth + depths.sum()
            if observed.all():
                left, right = (blinks(lid)[0] for lid in lids)
                near = np.abs(left[:, None] - right) <= TOGETHER
                each += len(left) + len(right)
                together += near.any(0).sum() + near.any(1).sum()
        for name, value in (
            ("count", count), ("length", length), ("depth", depth), ("each", each),
            ("together", together),
        ):  # fmt: skip
            out[f"eyes/{name}_{key}"] = np.asarray(float(value))
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the figures [...] of merged sums; NaN without frames or without a blink."""
    out = {}
    for key, suffix in (("p", ""), ("g", "_truth")):
        count = total[f"eyes/count_{key}"]
        minutes = total["eyes/frames"] / (60.0 * rig.FPS)
        out[f"blinks_per_minute{suffix}"] = divide(count, minutes)
        out[f"blink_ms{suffix}"] = 1000.0 / rig.FPS * divide(total[f"eyes/length_{key}"], count)
        out[f"blink_depth{suffix}"] = divide(total[f"eyes/depth_{key}"], count)
        out[f"blinks_together{suffix}"] = divide(
            total[f"eyes/together_{key}"], total[f"eyes/each_{key}"]
        )
    return out
