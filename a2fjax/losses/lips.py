"""Terms of the lip aperture, a linear map of the channels (`rig.APERTURE`).

Where only some channels of the aperture were observed, it is that of the observed ones; where
jawOpen was not, the terms skip the item.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from a2fjax import rig
from a2fjax.configuration import LossConfig
from a2fjax.losses.inputs import LossInputs
from a2fjax.losses.weighted_sum import WeightedSum


def aperture(inputs: LossInputs, config: LossConfig) -> WeightedSum:
    """Squared error of the aperture."""
    del config
    known, square = _squared_error(inputs)
    return WeightedSum(jnp.sum(square), jnp.sum(known.astype(jnp.float32)))


def closure(inputs: LossInputs, config: LossConfig) -> WeightedSum:
    """The same, weighted by exp(-max(gap, 0) / closure_width) with the true gap.

    Nearly closed lips then count. The form of NVIDIA's lip-distance loss, as a mean over the
    weights: its size does not depend on how often the lips close.
    """
    known, square = _squared_error(inputs)
    gap = rig.aperture(jnp.where(inputs.mask, inputs.batch.motion, 0.0))
    near = jnp.where(known, jnp.exp(-jnp.maximum(gap, 0.0) / config.closure_width), 0.0)
    return WeightedSum(jnp.sum(near * square), jnp.sum(near))


def _squared_error(inputs: LossInputs) -> tuple[Array, Array]:
    known = inputs.valid & inputs.batch.channel_mask[:, rig.INDEX["jawOpen"], None]
    return known, jnp.where(known, rig.aperture(inputs.error), 0.0) ** 2
