"""Lip vertex error (LVE) in its four definitions, and upper-face dynamics (FDD) of vertices.

With the distance d_t = max over lip vertices v of |p_tv - g_tv| in millimetres:

    lve_squared    mean_t d_t^2, over the frames of all clips
    lve_max        mean_t d_t, over the frames of all clips
    lve_clip       mean over clips of mean_t d_t
    lve_rms        sqrt(mean_t d_t^2), over the frames of all clips

Papers print all four as "LVE", and the first as millimetres though it is their square. Vertices
come from the face that is given to the evaluation (`face`); without one there are no values.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import WHOLE_LINE, Column
from a2fjax.metrics.face import dynamics, squares
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, divide

_MASK = "valid frames; unobserved channels move no vertex; clips with an observed weight"


def _lve(value: str, unit: str, formula: str, source: str) -> Column:
    return Column(value, unit=unit, formula=formula, source=source, mask=_MASK)


columns = (
    _lve(
        "lve_squared",
        "mm^2",
        "mean_t d_t^2 over all frames",
        "CodeTalker, FaceDiffuser, ScanTalk; torchmetrics.multimodal.LipVertexError",
    ),
    _lve("lve_max", "mm", "mean_t d_t over all frames", "second value of UniTalker's code"),
    _lve("lve_clip", "mm", "mean over clips of mean_t d_t", "lip_max_l2 of Imitator's code"),
    _lve("lve_rms", "mm", "sqrt(mean_t d_t^2) over all frames", "ARTalk's code"),
    Column(
        "fdd_vertices_signed",
        unit="mm^2",
        better="0",
        form="{:+.3f}",
        formula="mean over clips of d = mean_v (std_t |g_tv - n_v|^2 - std_t |p_tv - n_v|^2) in "
        "the upper face, n the neutral face",
        source="FDD of CodeTalker, arXiv 2301.02379",
        mask=_MASK,
        range=WHOLE_LINE,
    ),
    Column(
        "fdd_vertices_abs",
        unit="mm^2",
        formula="mean over clips of |d|",
        source="'ABS FDD' of FaceDiffuser's evaluation code",
        mask=_MASK,
    ),
)


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a clip; see `Metric.sums`."""
    names = ("squared", "distance", "frames", "clip_mean", "clips", "fdd", "fdd_abs")
    out: Sums = {f"vertices/{name}": np.zeros(()) for name in names}
    mask, valid = truth.channel_mask, truth.frame_mask
    if truth.face is None or not mask[rig.WEIGHT_CHANNELS].any() or not valid.any():
        return out
    p, g = (np.asarray(m[valid], np.float64) for m in (prediction, truth.motion))
    parts = squares(truth.face.lips, p - g, mask)
    distance = np.sqrt(np.concatenate([part.max(1) for part in parts]))
    difference = truth.upper_dynamics - dynamics(truth.face.upper, p, mask)
    found = (
        (distance**2).sum(), distance.sum(), len(distance), distance.mean(), 1.0,
        difference.mean(), abs(difference.mean()),
    )  # fmt: skip
    return {f"vertices/{n}": np.asarray(float(v)) for n, v in zip(names, found, strict=True)}


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the errors [...] of merged sums; NaN without a face."""
    squared = divide(total["vertices/squared"], total["vertices/frames"])
    clips = total["vertices/clips"]
    return {
        "lve_squared": squared,
        "lve_max": divide(total["vertices/distance"], total["vertices/frames"]),
        "lve_clip": divide(total["vertices/clip_mean"], clips),
        "lve_rms": np.sqrt(squared),
        "fdd_vertices_signed": divide(total["vertices/fdd"], clips),
        "fdd_vertices_abs": divide(total["vertices/fdd_abs"], clips),
    }
