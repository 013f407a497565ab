"""Local attention, with memory and computation linear in the sequence length."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

_MASKED = -1e9
_PRICE_START = 0.2


def local_attention(
    query: Array, key: Array, value: Array, valid: Array, bias: Array, window: int
) -> Array:
    """Attends to frames at a distance of at most `window`.

    Frames are processed in blocks of `window`, each together with its two neighbouring blocks
    (Beltagy et al. 2020, "Longformer"). The result does not depend on the block boundaries.

    Args:
      query: [B, T, H, D].
      key: [B, T, H, D].
      value: [B, T, H, D].
      valid: [B, T] bool, frames that may be attended to.
      bias: [H, 2 window + 1] added to the logits, indexed by the distance of key from query.
      window: frames in either direction.

    Returns:
      [B, T, H, D], zero for frames without a valid frame in the window.
    """
    items, frames, heads, depth = query.shape
    blocks = -(-frames // window)
    if blocks == 1:
        # One block covers the whole clip; distant frames are masked.
        distance = jnp.arange(frames)[None] - jnp.arange(frames)[:, None]
        query, key, value = (x[:, None] for x in (query, key, value))
        near = valid[:, None]
    else:
        pad = blocks * window - frames

        def neighbours(x: Array) -> Array:
            x = jnp.pad(x, ((0, 0), (window, window + pad), *[(0, 0)] * (x.ndim - 2)))
            x = x.reshape(items, blocks + 2, window, *x.shape[2:])
            return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)

        key, value, near = neighbours(key), neighbours(value), neighbours(valid)
        query = jnp.pad(query, ((0, 0), (0, pad), (0, 0), (0, 0)))
        query = query.reshape(items, blocks, window, heads, depth)
        distance = jnp.arange(3 * window)[None] - window - jnp.arange(window)[:, None]
    inside = jnp.abs(distance) <= window
    logits = jnp.einsum("bnqhd,bnkhd->bnhqk", query, key, preferred_element_type=jnp.float32)
    logits = logits / depth**0.5 + bias[:, jnp.clip(distance + window, 0, 2 * window)]
    allowed = inside & near[:, :, None, None, :]
    weights = jax.nn.softmax(jnp.where(allowed, logits, _MASKED), axis=-1)
    weights = jnp.where(allowed, weights, 0.0).astype(value.dtype)
    out = jnp.einsum("bnhqk,bnkhd->bnqhd", weights, value)
    return out.reshape(items, -1, heads, depth)[:, :frames]


class Attention(nn.Module):
    """Pre-norm multi-head attention to nearby frames, with a residual connection.

    Positions enter as a learned bias per distance and head, so clips may have any length. Beyond
    `reach`, every further frame lowers the logit by a learned positive amount.

    Attributes:
      heads: number of heads; divides the number of channels.
      window: see `local_attention`.
      reach: number of frames without that reduction.
      dtype: dtype of activations.
    """

    heads: int
    window: int
    reach: float
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, source: tuple[Array, Array] | None = None) -> Array:
        """Returns x [B, T, C] plus the output of the attention.

        Args:
          x: [B, T, C].
          valid: [B, T] bool.
          source: keys and values [B, T, H, D] from `keys_and_values`; None attends to x itself.
        """
        width = x.shape[-1]
        normed = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        if source is None:
            source = keys_and_values(normed, width, self.heads, self.dtype, "self")
        query = nn.Dense(width, use_bias=False, dtype=self.dtype, name="query")(normed)
        table = self.param(
            "by_distance", nn.initializers.zeros_init(), (self.heads, 2 * self.window + 1)
        )
        bias = jnp.asarray(table)
        if self.reach < self.window:
            start = jnp.log(jnp.expm1(_PRICE_START))
            price = self.param("price", nn.initializers.constant(start), (self.heads, 1))
            distance = jnp.abs(jnp.arange(-self.window, self.window + 1))
            bias = bias - jax.nn.softplus(price) * jnp.maximum(distance - self.reach, 0.0)
        query = query.reshape(*x.shape[:-1], self.heads, width // self.heads)
        out = local_attention(query, *source, valid, bias, self.window).reshape(x.shape)
        out = nn.Dense(
            width, dtype=self.dtype, kernel_init=nn.initializers.zeros_init(), name="out"
        )(out)
        return x + out


def keys_and_values(x: Array, width: int, heads: int, dtype: Any, name: str) -> tuple[Array, Array]:
    """Returns keys and values [B, T, H, D]; call it inside a compact method."""
    both = nn.Dense(2 * width, use_bias=False, dtype=dtype, name=f"{name}_keys_values")(x)
    shape = (*x.shape[:-1], heads, width // heads)
    key, value = jnp.split(both, 2, axis=-1)
    return key.reshape(shape), value.reshape(shape)
