"""Figures of a model's samples: sums over clips, and distances of their motion to the truth's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import conditions, eval_clips, eval_data
from a2fjax.metrics import distribution, suite
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.sums import Sums, divide, merge

TRAINING_HOP = 50
SPREADS = {
    "mouth": WEIGHT_GROUPS["jaw_mouth"],
    "upper": WEIGHT_GROUPS["upper_face"],
    "blink": np.array([rig.INDEX["eyeBlinkLeft"], rig.INDEX["eyeBlinkRight"]]),
}


@dataclasses.dataclass
class SampleSums:
    """Sums over the clips of a row."""

    single: list[Sums] = dataclasses.field(default_factory=list)
    mean: list[Sums] = dataclasses.field(default_factory=list)
    best: list[Sums] = dataclasses.field(default_factory=list)
    spread: list[Sums] = dataclasses.field(default_factory=list)
    samples: list[Sums] = dataclasses.field(default_factory=list)
    windows: list[list[np.ndarray]] = dataclasses.field(default_factory=list)


def feature_groups() -> dict[str, np.ndarray]:
    """Returns the channels of each distance of motion by its name."""
    return {"fd": WEIGHT_GROUPS["all"], "fd_mouth": WEIGHT_GROUPS["jaw_mouth"]}


def fit_features(data: eval_data.EvalData, group: np.ndarray) -> distribution.Features:
    """Returns features of the training motion of a group of channels.

    Raises:
      ValueError: as `distribution.fit`.
    """
    source: ClipSource = data.known.takes
    wanted = np.linspace(0, len(source) - 1, min(len(source), distribution.MAX_WINDOWS)).astype(int)
    windows = []
    for i in np.unique(wanted):
        clip = source[int(i)]
        windows.append(distribution.windows(clip.motion, clip.frame_mask, TRAINING_HOP))
    return distribution.fit(np.concatenate(windows), group)


def fully_observed(sample: eval_clips.EvalClip) -> np.ndarray:
    """Returns [T] bool, true if every weight is observed; distributions use such clips only."""
    return np.full(sample.clip.frames, bool(sample.clip.channel_mask[rig.WEIGHT_CHANNELS].all()))


def add_samples(
    model: eval_data.Model,
    count: int,
    chunk: Sequence[eval_clips.EvalClip],
    data: eval_data.EvalData,
    out: SampleSums,
) -> None:
    """Draws samples of clips and adds their figures to `out`.

    Args:
      model: draws the samples.
      count: number of samples a clip.
      chunk: the clips.
      data: the data that were loaded for the model.
      out: sums of the clips so far.
    """
    requests = [conditions.request(s, data.points, data.trained) for s in chunk]
    samples = [
        model.batch([dataclasses.replace(r, sample_index=k) for r in requests] if k else requests)
        for k in range(count)
    ]
    for i, sample in enumerate(chunk):
        motions = np.stack([motions[i] for motions in samples]).astype(np.float64)
        mean = np.broadcast_to(data.known.mean, sample.truth.motion.shape)
        constant = suite.sums(mean, sample.truth)

        def sums(motion: np.ndarray, sample=sample, constant=constant) -> Sums:
            totals = suite.sums(motion, sample.truth)
            eval_data.add_reference(totals, constant)
            return totals

        each = [sums(motion) for motion in motions]
        out.single += each
        out.mean.append(sums(motions.mean(0)))
        errors = [float(eval_data.values(s)["rmse_ratio"]) for s in each]
        out.best.append(each[int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0])
        out.spread.append(_spread(motions, sample))
        out.samples.append(suite.sample_sums(motions, sample.truth))
        valid_mask = sample.clip.frame_mask & fully_observed(sample)
        out.windows.append([distribution.windows(motion, valid_mask) for motion in motions])


def _spread(motions: np.ndarray, sample: eval_clips.EvalClip) -> Sums:
    """Returns the variance over samples and the truth's variance over time, per channel."""
    valid_mask = sample.clip.frame_mask
    mask = np.asarray(sample.clip.channel_mask, np.float64)
    over_samples = np.zeros(rig.NUM_CHANNELS)
    if len(motions) > 1:
        over_samples = motions[:, valid_mask].var(0, ddof=1).sum(0)
    truth = sample.clip.motion[valid_mask].astype(np.float64)
    over_time = ((truth - truth.mean(0)) ** 2).sum(0) if len(truth) else np.zeros_like(over_samples)
    return {"samples": over_samples * mask, "truth": over_time * mask}


def values(
    sums: SampleSums, truth: np.ndarray, features: dict[str, distribution.Features]
) -> dict[str, float | None]:
    """Returns the figures of a row.

    Args:
      sums: sums of its clips.
      truth: [N, WINDOW, 72] windows of the true motion.
      features: by name of the distance.
    """
    single = eval_data.values(merge(sums.single))
    spread = merge(sums.spread)
    out: dict[str, Any] = {
        "mean": eval_data.values(merge(sums.mean))["rmse_ratio"],
        "single": single["rmse_ratio"],
        "best": eval_data.values(merge(sums.best))["rmse_ratio"],
        "amp": single["amp_ratio/jaw_mouth"],
        "hf": single["hf_ratio"],
        "acc": single["acc_ratio"],
        "recall": single["closure_recall"],
        "prec": single["closure_precision"],
        "lag_ms": single["xcorr_lag_ms"],
        "pause": single["pause_aperture"],
        **suite.sample_values(merge(sums.samples)),
    }
    samples = len(sums.windows[0])
    drawn = [np.concatenate([clip[k] for clip in sums.windows]) for k in range(samples)]
    for name, feature in features.items():
        if len(truth) < 2:
            out[name] = float("nan")
            continue
        codes = [feature.encode(x) for x in drawn]
        out[name] = _distance(feature.encode(truth), codes)
        if name == "fd":
            out["multi"] = distribution.multimodality(codes, feature)
    if samples > 1:
        for name, group in SPREADS.items():
            ratio = divide(spread["samples"][group].sum(), spread["truth"][group].sum())
            out[name] = np.sqrt(ratio)
    return {k: float(v) if math.isfinite(float(v)) else None for k, v in out.items()}


def _distance(truth: np.ndarray, codes: Sequence[np.ndarray]) -> float:
    """Returns the mean distance over samples, each with as many windows as the truth."""
    return float(np.mean([distribution.frechet(truth, code) for code in codes]))


def floor(
    truth: Sequence[np.ndarray], features: dict[str, distribution.Features]
) -> dict[str, float | None]:
    """Returns the distance between odd and even clips: the resolution for this window count."""
    halves = [np.concatenate(list(truth[k::2]) or [np.zeros((0,))]) for k in (0, 1)]
    if min(len(half) for half in halves) < 2:
        return dict.fromkeys(features)
    return {
        name: distribution.frechet(*(feature.encode(half) for half in halves))
        for name, feature in features.items()
    }
