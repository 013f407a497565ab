"""How improbable the timing of motion is to an expert; the loss of motion models is made of it.

A window of motion is compared with its audio at N `OFFSETS`. With scores s and a scale c the
probability of offset k is exp(c s_k) / sum_j exp(c s_j). The improbability of the window is -log of
that of offset 0: 0 for a window in step, about ln N for one that fits no offset better.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from a2fjax.batch import Batch
from a2fjax.models.params import Params
from a2fjax.models.syncnet import channels, similarity, windows
from a2fjax.models.syncnet.channels import Statistics
from a2fjax.models.syncnet.model import SyncModel

FARTHEST = 25
"""Largest offset in frames: 0.5 s."""

NEAREST = 3
"""Smallest offset in frames. Nearer ones look alike, and telling them apart rewards jitter."""

OFFSETS = (0, *(k for k in range(-FARTHEST, FARTHEST + 1) if abs(k) >= NEAREST))
"""N offsets in frames by which audio is taken later than motion, the right one first."""

_LOW = -1e9


class Compared(struct.PyTreeNode):
    """Windows of motion against their audio at every offset.

    Attributes:
      scores: [B, N, W] in [-1, 1], window w being that whose first frame is w.
      audible: [B, N, W] bool, offsets whose audio is in the batch.
    """

    scores: Array
    audible: Array


def beside_truth(
    batch: Batch, motion: Array, features: Mapping[str, str]
) -> tuple[Batch, Batch, Statistics]:
    """Returns the truth and other motion as an expert sees them, and the truth's statistics.

    Args:
      batch: audio, true motion and masks. Masked and unobserved values may be anything.
      motion: [B, T, 72] the other motion, in rig units; need not be in range.
      features: for each of the expert's speech encoders the key in `Batch.cached_features`.
    """
    valid = batch.valid_frames()
    observed = valid[..., None] & batch.channel_mask[:, None]
    cached = batch.cached_features
    truth = batch.replace(
        motion=jnp.where(observed, batch.motion, 0.0),
        cached_features={key: cached[own] for key, own in features.items()},
    )
    other = truth.replace(motion=jnp.where(observed, motion.astype(jnp.float32), 0.0))
    return truth, other, channels.own_statistics(truth.motion, valid)


def compare(model: SyncModel, variables: Params, batch: Batch, statistics: Statistics) -> Compared:
    """Compares every window of `model.window_frames` frames of the batch's motion."""
    vectors = model.apply(variables, batch, statistics=statistics)
    return compare_vectors(model, vectors["heard"], vectors["seen"], batch)


def compare_vectors(model: SyncModel, heard: Array, seen: Array, batch: Batch) -> Compared:
    """Compares windows as `compare` does, from the vectors [B, T, D] of `SyncModel.apply`."""
    config = model.config
    reach, inner = config.motion_reach, config.window_frames - 2 * config.motion_reach
    count = batch.frame_mask.shape[1] - config.window_frames + 1
    scores = similarity.scores(heard, seen, inner, OFFSETS, kind=model.similarity)
    whole = windows.all_of(windows.heard_frames(batch, config.audio_reach), inner)
    audible = similarity.shifted(jnp.pad(whole, ((0, 0), (0, inner - 1))), OFFSETS) > 0
    kept = slice(reach, reach + count)
    return Compared(scores[..., kept], audible[..., kept])


def countable(model: SyncModel, batch: Batch, statistics: Statistics) -> Array:
    """Returns [B, W] bool: windows with speech and motion whose frames all count."""
    config = model.config
    return windows.countable(
        batch,
        statistics,
        config.window_frames,
        least_speech=config.least_speech,
        least_motion=config.least_motion,
    )


def improbability(compared: Compared, scale: Array | float) -> Array:
    """Returns -log of the probability of offset 0 [B, W], in nats; see the module.

    Offsets that are not audible do not take part; where offset 0 is not, the value has no meaning.

    Example:
        >>> even = Compared(jnp.zeros((1, len(OFFSETS), 1)), jnp.ones((1, len(OFFSETS), 1), bool))
        >>> round(float(improbability(even, 10.0)[0, 0]), 4), len(OFFSETS)  # ln 47
        (3.8501, 47)
    """
    logits = jnp.where(compared.audible, scale * compared.scores, _LOW)
    return jax.nn.logsumexp(logits, axis=1) - logits[:, 0]
