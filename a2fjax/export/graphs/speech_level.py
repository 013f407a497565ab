"""Level normalisation as a JAX function; `a2fjax.audio.level` in NumPy is the reference."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP, level


def normalise(audio: Array, samples: Array, speech_level: Array) -> Array:
    """Returns audio [B, 320 T] scaled to speech at `level.TARGET`, zero from `samples` on.

    Args:
      audio: [B, 320 T], as recorded.
      samples: [B] int32, number of samples of each recording.
      speech_level: [B], RMS of the speech; it is measured where this is 0.
    """
    inside = jnp.arange(audio.shape[1]) < samples[:, None]
    audio = jnp.where(inside, audio, 0.0)
    found = jnp.where(speech_level > 0, speech_level, measure(audio, samples))
    return audio * (level.TARGET / found)[:, None]


def measure(audio: Array, samples: Array) -> Array:
    """Returns the speech levels [B] of recordings [B, 320 T], zero from `samples` on."""
    rows = audio.reshape(audio.shape[0], -1, HOP)
    first = HOP * jnp.arange(rows.shape[1])
    left = samples[:, None] - first
    count = jnp.clip(left, 0, HOP).astype(jnp.float32)
    # A part shorter than a frame counts only if it is all there is.
    whole = (count == HOP) | ((first == 0) & (left > 0))
    inside = jnp.arange(HOP) < count[..., None]
    number = jnp.maximum(count, 1.0)
    centred = jnp.where(inside, rows - (rows.sum(-1) / number)[..., None], 0.0)
    loud = jnp.sqrt((centred**2).sum(-1) / number)
    steps = jnp.where(inside[..., 1:], rows[..., 1:] - rows[..., :-1], 0.0)
    brisk = jnp.sqrt((steps**2).sum(-1) / jnp.maximum(count - 1.0, 1.0))
    audible = whole & (loud > level.INAUDIBLE)
    speech = audible & (brisk > level.CONTRAST * _percentile(brisk, audible, 10)[:, None])
    number_speech = speech.sum(-1)
    share = jnp.minimum(1.0, number_speech / level.ENOUGH)
    quiet = jnp.maximum(_percentile(loud, audible, 95), level.TARGET)
    of_speech = jnp.maximum(_percentile(loud, speech, 95), level.FLOOR)
    of_speech = jnp.where(number_speech > 0, of_speech, quiet)
    found = jnp.exp(share * jnp.log(of_speech) + (1.0 - share) * jnp.log(quiet))
    return jnp.where(audible.any(-1), found, level.TARGET)


def _percentile(values: Array, chosen: Array, percent: float) -> Array:
    """Returns [B]: NumPy's linear percentile over the chosen ones of values [B, T]."""
    ascending = jnp.sort(jnp.where(chosen, values, jnp.float32(1e30)), axis=1)
    last = jnp.maximum(chosen.sum(-1) - 1, 0)
    position = last * jnp.float32(percent / 100)
    low = jnp.floor(position).astype(jnp.int32)
    high = jnp.minimum(low + 1, last)
    below, above = (
        jnp.take_along_axis(ascending, index[:, None], axis=1)[:, 0] for index in (low, high)
    )
    return below + (above - below) * (position - low)
