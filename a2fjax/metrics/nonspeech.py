"""Motion during sounds that are not speech: hums, breaths and laughs.

Found in the sound, by frames of 40 ms, with the level relative to the speech of the take:

    hum        at least -25 dB, periodic (autocorrelation >= 0.7 at a lag of 2.5 to 14 ms), a steady
               spectrum (16 bands from 100 Hz to 8 kHz change by at most 3 dB in 120 ms, on
               average), at least 95 % of the power below 1 kHz, for at least 0.36 s: "mmm"
    breath     -45 to -12 dB and at least 8 dB above the clip's 5th percentile, not periodic (below
               0.4), at most 70 % of the power above 4 kHz, for 0.15 to 1.5 s, beside a pause or the
               clip's end

A laugh cannot be told from speech this way: it counts only where an alignment labels it; labels of
hums and breaths add to what is found. Known limits: a long [m] or [n] before a pause is a hum, a
hum with open lips ("aah") is speech, a loud [h] or [f] beside a pause can pass for a breath, and
steady noise hides breaths. The figures are for long recordings; `hum_seconds` and its like say how
much was found.

    motion     mean speed of jaw and mouth, mean_c |p_{t+1} - p_t|, in these frames over that in
               the clip's speech outside of them; 0 is still
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import Column
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, divide

KINDS = ("hum", "breath", "laugh")
GROUP = WEIGHT_GROUPS["jaw_mouth"]
MIN_SPEED = 1e-3
"""Mean speed in speech, in weight a frame, below which a curve has no ratio."""

_MASK = "pairs of valid frames, observed channels of jaw and mouth"


def _columns(kind: str) -> list[Column]:
    name = f"{kind}_motion"
    formula = f"motion in frames of a {kind}, sums over clips"
    return [
        Column(name, form="{:.2f}", better=f"{name}_truth", formula=formula, mask=_MASK),
        Column(
            f"{name}_truth",
            form="{:.2f}",
            better="",
            formula=f"{formula}; of the truth",
            mask=_MASK,
        ),
        Column(
            f"{kind}_seconds",
            form="{:.1f}",
            unit="s",
            better="",
            formula=f"length of what counts for {name}",
            mask=_MASK,
        ),
    ]


columns = tuple(column for kind in KINDS for column in _columns(kind))


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip; see `Metric.sums`."""
    used = GROUP[truth.channel_mask[GROUP]]
    pairs = truth.frame_mask[1:] & truth.frame_mask[:-1] & bool(len(used))
    masks = truth.nonspeech
    other = pairs & truth.speech[1:]
    for mask in masks.values():
        other = other & ~mask[1:]
    out: Sums = {}
    for key, motion in (("p", prediction), ("g", truth.motion)):
        speed = np.zeros(len(pairs))
        if len(used):
            speed = np.abs(np.diff(np.asarray(motion[:, used], np.float64), axis=0)).mean(1)
        usual = speed[other].mean() if other.any() else 0.0
        usable = usual >= MIN_SPEED
        for kind in KINDS:
            inside = pairs & masks[kind][1:] & usable
            ratio = speed[inside].sum() / usual if usable else 0.0
            out[f"nonspeech/{kind}_{key}"] = np.asarray(ratio)
            out[f"nonspeech/{kind}_frames_{key}"] = np.asarray(float(inside.sum()))
    for kind in KINDS:
        counted = pairs & masks[kind][1:]
        out[f"nonspeech/{kind}_found"] = np.asarray(float(counted.sum()))
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the figures [...] of merged sums; NaN without such a sound."""
    out = {}
    for kind in KINDS:
        for key, suffix in (("p", ""), ("g", "_truth")):
            out[f"{kind}_motion{suffix}"] = divide(
                total[f"nonspeech/{kind}_{key}"], total[f"nonspeech/{kind}_frames_{key}"]
            )
        seconds = total[f"nonspeech/{kind}_found"] / rig.FPS
        out[f"{kind}_seconds"] = np.where(seconds > 0, seconds, np.nan)
    return out
