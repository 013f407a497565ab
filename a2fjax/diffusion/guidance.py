"""Guidance: how much more a condition shall matter than it did in the data.

Source: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance". With several conditions, each
has its own strength: the prediction is moved along what leaving out that condition alone changes,

    D + sum over c of (w_c - 1) (D - D without c),

which for one condition is theirs (their w counts from 0). Strength 1 leaves the prediction as it is
and costs nothing; 0 takes the condition's effect away. All predictions of one level are one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array

CONDITIONS = ("audio", "emotion", "identity")


def guided_conditions(strengths: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the conditions whose strength is not 1, without which predictions are needed."""
    return tuple(name for name in CONDITIONS if strengths.get(name, 1.0) != 1.0)


def combine(predictions: Array, names: Sequence[str], strengths: Mapping[str, float]) -> Array:
    """Returns the guided prediction [B, ...].

    Args:
      predictions: [(1 + N) B, ...], with all conditions first, then without each of `names`.
      names: the N conditions left out, in their order.
      strengths: by condition; 1 where it is missing.
    """
    whole, *without = jnp.split(predictions, 1 + len(names))
    out = whole
    for name, other in zip(names, without, strict=True):
        out = out + (strengths[name] - 1.0) * (whole - other)
    return out
