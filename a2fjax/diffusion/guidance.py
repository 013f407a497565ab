"""Guidance: strengthens or weakens the influence of a condition relative to the data.

Source: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance". With several conditions, each
has its own strength: the prediction moves along the difference that this condition alone makes,

    D + sum over c of (w_c - 1) (D - D without c),

which for one condition is theirs (their w counts from 0). Strength 1 leaves the prediction as it is
and costs nothing; 0 removes the condition's effect. All predictions of one level are one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
from jax import Array

CONDITIONS = ("audio", "emotion", "identity")


def guided_conditions(strengths: Mapping[str, float]) -> tuple[str, ...]:
    """Returns the conditions whose strength is not 1; each needs a prediction without it.

    Example:
        >>> guided_conditions({"audio": 1.5, "emotion": 1.0})
        ('audio',)
    """
    return tuple(name for name in CONDITIONS if strengths.get(name, 1.0) != 1.0)


def combine(predictions: Array, names: Sequence[str], strengths: Mapping[str, float]) -> Array:
    """Returns the guided prediction [B, ...].

    Args:
      predictions: [(1 + N) B, ...], with all conditions first, then without each of `names`.
      names: the N conditions left out, in their order.
      strengths: by condition; 1 where it is missing.
    """
    full, *without = jnp.split(predictions, 1 + len(names))
    out = full
    for name, other in zip(names, without, strict=True):
        out = out + (strengths[name] - 1.0) * (full - other)
    return out
