"""Dynamics metrics: amplitude, acceleration and high-frequency power relative to the truth.

Deviations are relative to each clip's mean, so that a static offset (an emotion, a face) does not
count as motion. An amplitude ratio of 1 is right, below 1 is too little; acceleration and
high-frequency power above the truth's mean jitter.

FDD (CodeTalker, arXiv 2301.02379) is the mean over clips of a signed difference of standard
deviations in the upper face: a model with too much motion in half of the clips and too little in
the others has none, so the mean of absolute differences stands beside it. A ratio of pooled
variances has no unit and can be read without knowing the data.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import WHOLE_LINE, Column, by_group
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.runs import find_runs
from a2fjax.metrics.sums import Sums, deviations, divide

HIGH_FREQUENCY = 10.0
"""In Hz. Speech moves lips and jaw at up to about 8 Hz; faster movement is mostly jitter."""
MIN_SPECTRUM_FRAMES = 16
GROUP = WEIGHT_GROUPS["jaw_mouth"]
UPPER = WEIGHT_GROUPS["upper_face"]

COLUMNS = (
    *by_group(
        "amp_ratio",
        label="amp",
        meaning="amplitude of the motion over the truth's",
        form="{:.2f}",
        better="1",
        formula="sqrt(sum_c var_t p / sum_c var_t g), summed over clips",
    ),
    Column(
        "acc_ratio",
        "acc",
        "acceleration over the truth's",
        "{:.2f}",
        better="1",
        formula="sum |p_{t+1} - 2 p_t + p_{t-1}| / the same of g, jaw and mouth",
        mask="triples of valid frames, observed channels",
    ),
    Column(
        "hf_ratio",
        "hf",
        "power above 10 Hz over the truth's",
        "{:.2f}",
        better="1",
        formula="power above 10 Hz of jaw and mouth, p over g (Hann window, mean removed)",
        mask="runs of at least 16 valid frames, observed channels",
    ),
    Column(
        "fdd_signed",
        unit="weight",
        form="{:+.4f}",
        better="0",
        formula="mean over clips of d = mean_c (std_t g - std_t p) in the upper face",
        source="FDD of CodeTalker, arXiv 2301.02379, on weights (FRD of MEDTalk, in rig space)",
        range=WHOLE_LINE,
    ),
    Column(
        "fdd_abs",
        unit="weight",
        form="{:.4f}",
        formula="mean over clips of |d|",
        source="'ABS FDD' of FaceDiffuser's evaluation code, on weights",
    ),
)


def sums(
    prediction: np.ndarray,
    truth: np.ndarray,
    *,
    channel_mask: np.ndarray,
    frame_mask: np.ndarray,
) -> Sums:
    """Reduces a clip to per-channel sums; arguments as in `fidelity.sums`."""
    mask = np.asarray(channel_mask, np.float64)
    triples = frame_mask[2:] & frame_mask[1:-1] & frame_mask[:-2]
    out: Sums = {}
    for key, motion in (("p", prediction), ("g", truth)):
        x = np.asarray(motion, np.float64)
        out[f"dynamics/var_{key}"] = (deviations(x[frame_mask]) ** 2).sum(0) * mask
        acceleration = np.abs(np.diff(x[:, GROUP], n=2, axis=0)[triples]).sum(0)
        out[f"dynamics/acc_{key}"] = (acceleration * mask[GROUP]).sum()
        out[f"dynamics/hf_{key}"] = (_high_power(x[:, GROUP], frame_mask) * mask[GROUP]).sum()
    frames, channels = frame_mask.sum(), UPPER[mask[UPPER] > 0]
    measured = len(channels) > 0 and frames > 1
    difference = 0.0
    if measured:
        p, g = (np.sqrt(out[f"dynamics/var_{key}"][channels] / frames) for key in "pg")
        difference = float((g - p).mean())
    out["dynamics/fdd"] = np.asarray(difference)
    out["dynamics/fdd_abs"] = np.asarray(abs(difference))
    out["dynamics/clips"] = np.asarray(float(measured))
    return out


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the metrics [...] of merged sums; NaN where the truth does not move."""
    out = {}
    for name, group in WEIGHT_GROUPS.items():
        p, g = (group_sum(total[f"dynamics/var_{key}"], group) for key in "pg")
        # A variance below rounding means a motionless truth, for which the ratio is undefined.
        out[f"amp_ratio/{name}"] = np.sqrt(divide(p, np.where(g > 1e-9, g, 0.0)))
    out["acc_ratio"] = divide(total["dynamics/acc_p"], total["dynamics/acc_g"])
    out["hf_ratio"] = divide(total["dynamics/hf_p"], total["dynamics/hf_g"])
    out["fdd_signed"] = divide(total["dynamics/fdd"], total["dynamics/clips"])
    out["fdd_abs"] = divide(total["dynamics/fdd_abs"], total["dynamics/clips"])
    return out


def _high_power(x: np.ndarray, frame_mask: np.ndarray) -> np.ndarray:
    """Returns the energy [C] above `HIGH_FREQUENCY` in runs of valid frames, Hann-windowed."""
    power = np.zeros(x.shape[1])
    for start, stop in find_runs(frame_mask):
        n = stop - start
        if n < MIN_SPECTRUM_FRAMES:
            continue
        part = x[start:stop]
        spectrum = np.fft.rfft((part - part.mean(0)) * np.hanning(n)[:, None], axis=0)
        above = np.fft.rfftfreq(n, 1.0 / rig.FPS) > HIGH_FREQUENCY
        power += (np.abs(spectrum[above]) ** 2).sum(0) / n
    return power
