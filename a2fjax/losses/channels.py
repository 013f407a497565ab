"""Terms of the channels themselves: their error and that of their rate."""

from __future__ import annotations

import jax.numpy as jnp

from a2fjax.configuration import LossConfig
from a2fjax.losses.inputs import LossInputs
from a2fjax.losses.weighted_sum import WeightedSum


def position(inputs: LossInputs, config: LossConfig) -> WeightedSum:
    """Squared error of the channels, in units of `rig.SCALE`."""
    del config
    return WeightedSum(
        jnp.sum(inputs.error_weights * inputs.error**2),
        jnp.sum(jnp.where(inputs.mask, inputs.channel_weights, 0.0)),
    )


def velocity(inputs: LossInputs, config: LossConfig) -> WeightedSum:
    """Squared error of the difference between neighbouring frames, in the same units."""
    del config
    error, pairs = inputs.error, inputs.pairs
    difference = jnp.where(pairs, error[:, 1:] - error[:, :-1], 0.0)
    return WeightedSum(
        jnp.sum(inputs.error_weights * difference**2),
        jnp.sum(jnp.where(pairs, inputs.channel_weights, 0.0)),
    )
