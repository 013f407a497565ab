"""Contrastive losses: the right one of several candidates (InfoNCE, van den Oord et al. 2018)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.losses.weighted_sum import WeightedSum, masked_mean

_LOW = -1e9


def info_nce(logits: Array, right: Array, candidates: Array, counts: Array) -> WeightedSum:
    """Returns the mean cross-entropy of choosing the right candidate, ln N for equal logits.

    Args:
      logits: [..., N].
      right: [...] int, index of the right candidate.
      candidates: [..., N] bool, candidates that take part; the right one always does.
      counts: [...] bool, choices that count.

    Example:
        >>> even = info_nce(jnp.zeros((1, 4)), jnp.array([2]), jnp.ones((1, 4), bool),
        ...                 jnp.array([True]))
        >>> round(float(even.value), 4)  # ln 4
        1.3863
    """
    chosen = jax.nn.one_hot(right, logits.shape[-1], dtype=bool)
    logits = jnp.where(candidates | chosen, logits, _LOW)
    own = jnp.sum(jnp.where(chosen, logits, 0.0), axis=-1)
    return masked_mean(jax.nn.logsumexp(logits, axis=-1) - own, counts)


def chance(right: Array, candidates: Array, counts: Array) -> WeightedSum:
    """Returns the mean ln N: what `info_nce` is for equal logits; arguments as there."""
    chosen = jax.nn.one_hot(right, candidates.shape[-1], dtype=bool)
    number = jnp.sum((candidates | chosen).astype(jnp.float32), axis=-1)
    return masked_mean(jnp.log(number), counts)


def match(logits: Array, right: Array, candidates: Array, counts: Array) -> WeightedSum:
    """Returns the binary cross-entropy of each candidate; right and wrong ones weigh the same."""
    chosen = jax.nn.one_hot(right, logits.shape[-1], dtype=bool)
    wrong = candidates & ~chosen
    good = jnp.sum(jnp.where(chosen, jax.nn.softplus(-logits), 0.0), axis=-1)
    bad = jnp.sum(jnp.where(wrong, jax.nn.softplus(logits), 0.0), axis=-1)
    bad = bad / jnp.maximum(wrong.sum(-1), 1)
    return masked_mean(0.5 * (good + bad), counts)
