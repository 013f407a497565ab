"""Lips by phone: closed in /p b m/, lower lip to teeth in /f v/, rounded in /u w o/, open in /a/.

For each class, `gestures` defines a curve and a bound. A phone shows the gesture if the curve
reaches the bound in a frame from 20 ms before its start to 20 ms after its end. Phones that touch
an invalid frame do not count, nor do clips without an alignment.

    rate      share of the class's phones that show the gesture
    false     share of the phones of other classes that show it; phones next to one of the class
              are left out, since lips move early, and so is silence
    chance    the rate of the same curve, from the first to the last phone that is not silence,
              rolled by 30, 67 and 101 frames: what the lips reach without listening

A rate means something by its distance from chance, and beside the truth's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import SHARE, Column
from a2fjax.metrics.phones import gestures, labels
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, divide

REACH = 0.02
"""Seconds before and after a phone."""

ROLLS = (30, 67, 101)

_LABELS = {"closed": "pbm", "teeth": "fv", "rounded": "uwo", "open": "a"}
_MASK = "phones whose frames are valid, channels of the gesture observed"
_MEANINGS = {
    "closed": "lips closed in /p b m/",
    "teeth": "lower lip to teeth in /f v/",
    "rounded": "lips rounded in /u w o/",
    "open": "mouth open in /a/",
}


def _columns(name: str) -> list[Column]:
    base = f"phone_{name}"
    what = _MEANINGS[name]

    def column(suffix: str, better: str, formula: str, label: str = "") -> Column:
        meaning = f"share of phones with {what}" if label else ""
        return Column(
            base + suffix, label, meaning, "{:.2f}", better=better, formula=formula, mask=_MASK,
            range=SHARE,
        )  # fmt: skip

    return [
        column("_rate", "higher", f"rate: {what}", _LABELS[name]),
        column("_rate_truth", "", f"rate: {what}; of the truth"),
        column("_false", f"{base}_false_truth", f"false: {what}"),
        column("_false_truth", "", f"false: {what}; of the truth"),
        column("_chance", "", f"chance: {what}"),
    ]


columns = tuple(column for name in labels.CLASSES for column in _columns(name))


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip; see `Metric.sums`."""
    out: Sums = {
        f"phones/{name}_{key}": np.zeros(())
        for name in labels.CLASSES
        for key in ("phones", "others", "rate_p", "rate_g", "false_p", "false_g", "chance")
    }
    first, last, kinds, spoken = _phones(truth)
    if not len(first):
        return out
    p, g = (gestures.curves(m, truth.channel_mask) for m in (prediction, truth.motion))
    valid = ~_any(~truth.frame_mask, first, last)
    span = slice(first[spoken].min(), last[spoken].max() + 1) if spoken.any() else slice(0)

    def rolled(made: np.ndarray) -> Iterator[np.ndarray]:
        for frames in ROLLS:
            out = made & truth.frame_mask
            out[span] = np.roll(out[span], frames)
            yield out

    for name in truth.bounds.keys() & p.keys():
        own = kinds == name
        beside = np.concatenate([own[1:], [False]]) | np.concatenate([[False], own[:-1]])
        own, other = own & valid, spoken & valid & ~own & ~beside

        made_p, made_g = (c[name] >= truth.bounds[name] for c in (p, g))
        for key, value in (
            ("phones", own.sum()), ("others", other.sum()),
            ("rate_p", _shown(made_p, first[own], last[own])),
            ("rate_g", _shown(made_g, first[own], last[own])),
            ("false_p", _shown(made_p, first[other], last[other])),
            ("false_g", _shown(made_g, first[other], last[other])),
            ("chance", np.mean([_shown(r, first[own], last[own]) for r in rolled(made_p)])),
        ):  # fmt: skip
            out[f"phones/{name}_{key}"] = np.asarray(float(value))
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the rates [...] of merged sums; NaN without phones of the class."""
    out = {}
    for name in labels.CLASSES:
        count, others = total[f"phones/{name}_phones"], total[f"phones/{name}_others"]
        base = f"phone_{name}"
        out[f"{base}_rate"] = divide(total[f"phones/{name}_rate_p"], count)
        out[f"{base}_rate_truth"] = divide(total[f"phones/{name}_rate_g"], count)
        out[f"{base}_false"] = divide(total[f"phones/{name}_false_p"], others)
        out[f"{base}_false_truth"] = divide(total[f"phones/{name}_false_g"], others)
        out[f"{base}_chance"] = divide(total[f"phones/{name}_chance"], count)
    return out


def _phones(truth: Reference) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns first and last frame, class and whether it is speech, of the phones in the clip."""
    frames = len(truth.motion)
    inside = [phone for phone in truth.phones if phone.start * rig.FPS < frames]
    times = np.array([(phone.start, phone.end) for phone in inside]).reshape(-1, 2)
    first = np.clip(np.ceil((times[:, 0] - REACH) * rig.FPS - 1e-6).astype(int), 0, frames - 1)
    last = np.clip(np.floor((times[:, 1] + REACH) * rig.FPS + 1e-6).astype(int), 0, frames - 1)
    kinds = np.array([labels.phone_class(phone.label) for phone in inside], dtype="U8")
    spoken = np.array(
        [
            not (labels.is_silence(phone.label) or labels.nonspeech_kind(phone.label))
            for phone in inside
        ],
        dtype=bool,
    )
    return first, last, kinds, spoken


def _shown(made: np.ndarray, first: np.ndarray, last: np.ndarray) -> float:
    """Returns the number of phones in which a gesture [T] bool is made."""
    return float(_any(made, first, last).sum())


def _any(mask: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Returns [N] whether a mask [T] is true somewhere from `first` [N] to `last` [N]."""
    count = np.concatenate([[0], np.cumsum(mask)])
    return count[last + 1] > count[first]
