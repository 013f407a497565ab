"""Means as sums with weights, so that masks, microbatches and hosts add up exactly."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax.numpy as jnp
from jax import Array


@flax.struct.dataclass
class WeightedSum:
    """A mean before the division.

    Example:
        >>> first, second = WeightedSum(jnp.array(6.0), jnp.array(2.0)), WeightedSum(
        ...     jnp.array(0.0), jnp.array(1.0)
        ... )
        >>> float((first + second).value)
        2.0

    Attributes:
      total: sum of weight times value.
      weight: sum of weights.
    """

    total: Array
    weight: Array

    def __add__(self, other: WeightedSum) -> WeightedSum:
        """Returns the sum over both sets of values."""
        return WeightedSum(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> Array:
        """The weighted mean; 0 when nothing was observed."""
        empty = self.weight <= 0
        return jnp.where(empty, 0.0, self.total / jnp.where(empty, 1.0, self.weight))


def masked_mean(values: Array, mask: Array) -> WeightedSum:
    """Returns the mean of `values` where `mask`, which is broadcast to their shape.

    Masked values may be anything, NaN included.

    Example:
        >>> float(masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])).value)
        2.0
    """
    mask = jnp.broadcast_to(mask, values.shape)
    return WeightedSum(jnp.sum(jnp.where(mask, values, 0.0)), jnp.sum(mask.astype(jnp.float32)))


def merge(
    first: Mapping[str, WeightedSum], second: Mapping[str, WeightedSum]
) -> dict[str, WeightedSum]:
    """Returns the terms of two batches as if they had been one."""
    return {name: first[name] + second[name] for name in first}
