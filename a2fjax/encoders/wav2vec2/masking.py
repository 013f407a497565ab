"""SpecAugment as in wav2vec 2.0: masks over frames and channels in training.

Sources: Park et al. 2019, "SpecAugment"; Baevski et al. 2020, "wav2vec 2.0".
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config


def sample_mask_spans(
    key: Array, size: int, lengths: Array, share: float, length: int, least: int = 0
) -> Array:
    """Samples masked spans along an axis.

    The number of spans is `share * lengths / length`, rounded up or down at random so that its mean
    is exact, and at least `least`. Starts are drawn without replacement, so spans may overlap but
    do not begin together.

    Args:
      key: random key.
      size: size of the axis.
      lengths: [B] valid size of the axis in each example.
      share: share of the axis that the spans would cover if none overlapped.
      length: length of a span; a shorter axis is not masked.
      least: minimum number of spans.

    Returns:
      [B, size] bool, True where masked.

    Example:
        >>> mask = sample_mask_spans(jax.random.key(0), 100, jnp.array([100]), 0.2, 10)
        >>> mask.shape, bool(mask.any())
        ((1, 100), True)
    """
    most = min(max(int(share * size / length) + 1, least), size // length)
    if most == 0:
        return jnp.zeros((lengths.shape[0], size), bool)
    for_count, for_starts = jax.random.split(key)
    rounding = jax.random.uniform(for_count, lengths.shape)
    count = jnp.floor(share * lengths / length + rounding).astype(jnp.int32)
    starts = jnp.maximum(lengths - length + 1, 0)
    count = jnp.minimum(jnp.clip(count, least, most), starts)
    score = jax.random.uniform(for_starts, (lengths.shape[0], size))
    score = jnp.where(jnp.arange(size) < starts[:, None], score, -1.0)
    chosen = jax.lax.top_k(score, most)[1][..., None]
    drawn = (jnp.arange(most) < count[:, None])[..., None]
    index = jnp.arange(size)
    return jnp.any(drawn & (chosen <= index) & (index < chosen + length), axis=1)


def spec_augment(
    config: Wav2Vec2Config, params: dict[str, Any], x: Array, lengths: Array, keys: list[Array]
) -> Array:
    """Replaces spans of frames by the learned vector and spans of channels by zero."""
    batch, frames, width = x.shape
    if config.mask_time_prob > 0:
        masked = sample_mask_spans(
            keys[0],
            frames,
            lengths,
            config.mask_time_prob,
            config.mask_time_length,
            config.mask_time_min_masks,
        )
        fill = params.get("masked_spec_embed", jnp.zeros(width)).astype(x.dtype)
        x = jnp.where(masked[..., None], fill, x)
    if config.mask_feature_prob > 0:
        masked = sample_mask_spans(
            keys[1],
            width,
            jnp.full(batch, width),
            config.mask_feature_prob,
            config.mask_feature_length,
            config.mask_feature_min_masks,
        )
        x = jnp.where(masked[:, None], jnp.zeros((), x.dtype), x)
    return x
