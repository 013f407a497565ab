"""Constants of an expert's loss, measured once on training clips, so that all experts' compare."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import scipy.special

from a2fjax.batch import Batch
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError
from a2fjax.models.syncnet import channels, timing
from a2fjax.sync import clips
from a2fjax.sync.expert import NetworkExpert

CLIPS = 64
"""Most clips measured, spread evenly over the split."""

SCALES = np.geomspace(1.0, 1000.0, 61)
"""Scales of the scores that are tried."""

LEAST_GAP = 0.05
"""Least mean excess in nats for other clips' motion; below, an expert tells nothing apart."""


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Constants of an expert's loss.

    Attributes:
      scale: scale of the scores at which the true motion's timing is most probable on average.
      gap: mean of max(0, e(motion of another clip) - e(truth)) over windows, in nats, with the
        improbability e of `timing` at this scale.
      right: mean score of true motion with its audio.
      wrong: mean score of the motion of another clip in its place.
    """

    scale: float
    gap: float
    right: float
    wrong: float


def measure(expert: NetworkExpert, source: ClipSource, *, name: str) -> Normalisation:
    """Measures the constants on at most `CLIPS` clips; the same clips give the same constants.

    Each clip also gets the motion of the next one, from its middle on and in its own units.

    Args:
      expert: the expert.
      source: training clips.
      name: of the expert, for messages.

    Raises:
      InputError: no clip with speech and motion, or an expert that does not tell them apart.
    """
    statistics = jax.jit(channels.own_statistics)
    takes = []
    for index in source.spread(CLIPS):
        try:
            clip = source.load(int(index))
        except records.BadRecord:
            continue  # Training reports it, or stops, as `data.on_bad_record` says.
        batch = clips.to_batch(clip)
        own = statistics(batch.motion, batch.valid_frames())
        takes.append(
            clips.Take(clip.id, clip.subject, "", "", batch, jax.tree.map(np.asarray, own))
        )

    @jax.jit
    def compare(variables: Any, batch: Batch, motion: Batch, own: Any) -> Any:
        right = timing.compare(expert.model, variables, batch, own)
        wrong = timing.compare(expert.model, variables, motion, own)
        counts = timing.countable(expert.model, batch, own) & right.audible[:, 0]
        return right, wrong, counts

    rows: list[tuple[np.ndarray, ...]] = []
    for i, take in enumerate(takes):
        other = clips.other_motion(take, takes[(i + 1) % len(takes)])
        right, wrong, counts = compare(expert.variables, take.batch, other, take.statistics)
        chosen = np.asarray(counts)[0]
        rows.append(
            tuple(
                np.asarray(values)[0][:, chosen].T
                for values in (right.scores, wrong.scores, right.audible)
            )
        )
    right, wrong, audible = (
        np.concatenate([row[k] for row in rows] or [np.zeros((0, 1))]) for k in range(3)
    )
    if not len(right):
        raise InputError(
            f"{name}: no clip with speech and motion in split {source.split!r} of "
            f"{', '.join(source.folders)}; expected at least one"
        )
    return _fitted(right, wrong, audible, name)


def _fitted(right: np.ndarray, wrong: np.ndarray, audible: np.ndarray, name: str) -> Normalisation:
    """Returns the constants of scores [windows, offsets] of true and of other motion."""
    cost = [_improbability(right, audible, scale).mean() for scale in SCALES]
    scale = float(SCALES[int(np.argmin(cost))])
    excess = _improbability(wrong, audible, scale) - _improbability(right, audible, scale)
    if not excess.mean() >= LEAST_GAP:
        raise InputError(
            f"{name}: finds the motion of other clips only {excess.mean():.3f} nats less in step "
            f"with the speech of the training data than the true one; expected at least {LEAST_GAP}"
        )
    gap = float(np.maximum(excess, 0.0).mean())
    return Normalisation(scale, gap, float(right[:, 0].mean()), float(wrong[:, 0].mean()))


def _improbability(scores: np.ndarray, audible: np.ndarray, scale: float) -> np.ndarray:
    """Returns `timing.improbability` [windows] in double precision."""
    logits = np.where(audible, scale * scores.astype(np.float64), -np.inf)
    total: np.ndarray = scipy.special.logsumexp(logits, axis=1)
    return total - logits[:, 0]
