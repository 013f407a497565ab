"""Speech level of live audio in JAX: `level.speech_level_of_frames` of what was heard so far.

A live stream knows no utterance, so its level is measured on the way. The measure is that of
`level`, with histograms in place of lists of frames: they have a fixed size and forget with a time
constant of `MEMORY_SECONDS`. Three histograms of levels in dB are kept: of the differences, whose
10th percentile is the noise floor; of all audible frames; and of speech frames, those whose
differences were 6 dB above the noise floor when they arrived. Silence forgets nothing.

The gain is a number for each frame; it scales windows, not samples, so that its steps make no
clicks.
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.audio.level import CONTRAST, ENOUGH, FLOOR, INAUDIBLE, TARGET

MEMORY_SECONDS = 60.0
"""Time constant with which audible frames are forgotten."""

BINS = 64
"""Bins of a histogram, each `STEP_DB` wide, from `LOWEST_DB` to 0 dB of full scale."""

LOWEST_DB = -96.0
STEP_DB = -LOWEST_DB / BINS

SHAPE = (3, BINS)
"""Shape of a stream's state; zeros are the start."""

KEEP = 1.0 - 1.0 / (MEMORY_SECONDS * rig.FPS)
"""Share of a histogram that is left after one more audible frame."""

_UP_TO = np.tril(np.ones((BINS, BINS), np.float32)).T  # [from, to]: from <= to.


def _db(rms: float) -> float:
    return 20.0 * math.log10(rms)


def update(state: Array, frame: Array) -> tuple[Array, Array]:
    """Hears one frame.

    Args:
      state: [B, 3, `BINS`] float32.
      frame: [B, 320] float32 samples as recorded.

    Returns:
      The next state, and the gain [B] float32 from the level so far to `level.TARGET`.

    Example:
        >>> state = jnp.zeros((1, *SHAPE))
        >>> state, gain = update(state, jnp.zeros((1, HOP)))
        >>> float(gain[0])
        1.0
    """
    rms = jnp.std(frame, axis=-1)
    brisk = jnp.sqrt(jnp.mean((frame[:, 1:] - frame[:, :-1]) ** 2, axis=-1))
    audible = rms > INAUDIBLE
    kept = jnp.where(audible[:, None, None], state * KEEP, state)
    # The noise floor includes this frame, as it does in a list of all frames.
    differences = kept[:, 0] + _one_hot(brisk) * audible[:, None]
    floor = _percentile(differences, 0.10)
    speech = audible & (20.0 * jnp.log10(jnp.maximum(brisk, 1e-9)) > floor + _db(CONTRAST))
    here = _one_hot(rms)
    every = kept[:, 1] + here * audible[:, None]
    spoken = kept[:, 2] + here * speech[:, None]
    share = jnp.minimum(jnp.sum(spoken, axis=-1) / ENOUGH, 1.0)
    quiet = jnp.maximum(_percentile(every, 0.95), _db(TARGET))
    loud = jnp.maximum(_percentile(spoken, 0.95), _db(FLOOR))
    level_db = share * loud + (1.0 - share) * quiet
    gain = jnp.exp((_db(TARGET) - level_db) * (math.log(10.0) / 20.0))
    return jnp.stack([differences, every, spoken], axis=1), gain


def gains(audio: Array) -> Array:
    """Returns the gain [B, T] of each frame of audio [B, T * 320] that starts with this frame."""
    frames = audio.reshape(audio.shape[0], -1, HOP).swapaxes(0, 1)
    start = jnp.zeros((audio.shape[0], *SHAPE))
    found: Array = lax.stop_gradient(lax.scan(update, start, frames)[1])
    return found.swapaxes(0, 1)


def _one_hot(rms: Array) -> Array:
    """Returns [B, `BINS`] with 1 in the bin of each level [B]."""
    db = 20.0 * jnp.log10(jnp.maximum(rms, 1e-9))
    index = jnp.clip(jnp.floor((db - LOWEST_DB) / STEP_DB), 0, BINS - 1)
    return (jnp.arange(BINS) == index[:, None]).astype(jnp.float32)


def _percentile(histogram: Array, share: float) -> Array:
    """Returns a percentile [B] in dB of [B, `BINS`], linear inside a bin; the lowest if empty."""
    up_to = jnp.matmul(histogram, _UP_TO, precision=lax.Precision.HIGHEST)
    wanted = share * up_to[:, -1:]
    filled = (wanted - (up_to - histogram)) / jnp.maximum(histogram, 1e-9)
    return LOWEST_DB + STEP_DB * jnp.sum(jnp.clip(filled, 0.0, 1.0), axis=-1)
