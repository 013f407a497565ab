"""Scores of windows over offsets, from the frame vectors of audio and motion."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

KINDS = ("cosine", "correlation", "agreement")
"""What a score is: the cosine of the two windows; their correlation, which is the cosine about
their means; or their agreement 2 <a, b> / (|a|^2 + |b|^2), which also asks for one size."""

_TINY = 1e-6


def box(values: Array, frames: int) -> Array:
    """Returns the sums [..., T - frames + 1] over `frames` neighbours of the last axis.

    Example:
        >>> box(jnp.arange(4.0), 2).tolist()
        [1.0, 3.0, 5.0]
    """
    ones = (1,) * (values.ndim - 1)
    return jax.lax.reduce_window(values, 0.0, jax.lax.add, (*ones, frames), (*ones, 1), "VALID")


def shifted(values: Array, offsets: Sequence[int]) -> Array:
    """Returns [B, K, T]: values [B, T] of frame t + offset at frame t, 0 beyond the ends."""
    frames = values.shape[1]
    place = jnp.asarray(offsets)[:, None] + jnp.arange(frames)
    inside = (place >= 0) & (place < frames)
    return jnp.where(inside, values[:, jnp.clip(place, 0, frames - 1)], 0)


def diagonals(products: Array, offsets: Sequence[int]) -> Array:
    """Returns [B, K, T]: products [B, T, T] at (t + offset, t), 0 beyond the ends."""
    frames = products.shape[1]
    place = jnp.asarray(offsets)[:, None] + jnp.arange(frames)
    inside = (place >= 0) & (place < frames)
    values = products[:, jnp.clip(place, 0, frames - 1), jnp.arange(frames)]
    return jnp.where(inside, values, 0.0)


def scores(
    heard: Array, seen: Array, frames: int, offsets: Sequence[int], *, kind: str = "cosine"
) -> Array:
    """Returns the score of every window at every offset.

    Args:
      heard: [B, T, D] vectors of the audio's frames.
      seen: [B, T, D] vectors of the motion's frames.
      frames: vectors of a window, at most T.
      offsets: frames that the audio is taken later than the motion; 0 is as recorded.
      kind: one of `KINDS`.

    Returns:
      [B, K, T - frames + 1] in [-1, 1]: offset k of the window whose first vector is t. Windows
      whose audio is not inside the clip have values without a meaning.

    Example:
        >>> track = jax.random.normal(jax.random.key(0), (1, 40, 8))
        >>> found = scores(track, track, 10, (-5, 0, 5))
        >>> found.shape, bool((found[:, 1] > 0.999).all())
        ((1, 3, 31), True)
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    precise = jax.lax.Precision.HIGHEST
    products = jnp.einsum("btd,bsd->bts", heard, seen, precision=precise)
    inner = box(diagonals(products, offsets), frames)
    sizes = [jnp.sum(x**2, -1) for x in (heard, seen)]
    if kind == "correlation":
        means = [box(x.swapaxes(1, 2), frames).swapaxes(1, 2) / frames for x in (heard, seen)]
        centre = jnp.einsum("btd,bsd->bts", *means, precision=precise)
        inner = inner - frames * diagonals(centre, offsets)
        size = [
            box(s, frames) - frames * jnp.sum(m**2, -1) for s, m in zip(sizes, means, strict=True)
        ]
    else:
        size = [box(s, frames) for s in sizes]
    heard_size = jnp.maximum(shifted(jnp.maximum(size[0], 0.0), offsets), 0.0)
    seen_size = jnp.maximum(size[1], 0.0)[:, None]
    if kind == "agreement":
        return 2.0 * inner / (heard_size + seen_size + _TINY)
    return inner * jax.lax.rsqrt(heard_size * seen_size + _TINY**2)
