"""Loss terms as sums with weights, so that masks, microbatches and hosts add up exactly."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.config import LossConfig


@flax.struct.dataclass
class WeightedSum:
    """A mean that is not divided yet.

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


def merge(
    first: Mapping[str, WeightedSum], second: Mapping[str, WeightedSum]
) -> dict[str, WeightedSum]:
    """Returns the terms of two batches as if they had been one."""
    return {name: first[name] + second[name] for name in first}


def channel_weights(config: LossConfig) -> np.ndarray:
    """Returns the weight of each channel [72]: the product of its groups' weights."""
    weights = np.ones(rig.NUM_CHANNELS, np.float32)
    for group, factor in config.group_weights.items():
        weights[rig.GROUPS[group]] *= factor
    return weights


def balance(deviation: Array, exponent: float) -> Array:
    """Returns factors [72] of squared errors that make channels count more alike.

    Proportional to deviation ** (-2 exponent), and such that predicting the mean costs what it
    costs without: the other terms keep their share.

    Args:
      deviation: [72] of the channels in training, rig units; 0 where none was observed.
      exponent: 0 for ones, 1 for errors in units of the deviation.
    """
    variance = (deviation / rig.SCALE) ** 2
    seen = variance > 0
    factors = jnp.where(seen, jnp.where(seen, variance, 1.0) ** -exponent, 0.0)
    scale = jnp.sum(variance) / jnp.maximum(jnp.sum(factors * variance), 1e-12)
    return jnp.where(seen, factors * scale, 1.0)


def good_frames(batch: Batch) -> Array:
    """Returns [B, T] bool: frames that are neither padding nor marked as bad."""
    frames = jnp.arange(batch.frame_mask.shape[1])
    return batch.frame_mask & (frames < batch.length[:, None])


def regression_losses(
    prediction: Array,
    batch: Batch,
    config: LossConfig,
    factors: Array | None = None,
    items: Array | None = None,
) -> dict[str, WeightedSum]:
    """Computes the terms whose weight in `config` is not 0.

    - "position": squared error of the channels, in units of `rig.SCALE`.
    - "velocity": squared error of the difference between neighbouring frames, the same units.
    - "aperture": squared error of the lip aperture (`rig.APERTURE`).
    - "closure": the same, weighted by exp(-max(gap, 0) / closure_width) with the true gap, so
      that nearly closed lips count. The form of NVIDIA's lip-distance loss, as a mean over the
      weights: its size does not depend on how often the lips close.

    Channels and frames that are masked or padded count for nothing, whatever they hold. Where
    only some channels of the aperture were observed, it is that of the observed ones; where
    jawOpen was not, the aperture terms skip the item.

    Args:
      prediction: [B, T, 72] in rig units, need not be in range.
      batch: motion, channel_mask, frame_mask and length are read.
      config: weights.
      factors: [72] of the squared errors of position and velocity, as `balance`; None for ones.
      items: [B] of the squared errors of each item; None for ones. The weights that sums are
        divided by do not know of them.

    Returns:
      Weighted sums by name; channels count by their group weights.
    """
    prediction = prediction.astype(jnp.float32)
    good = good_frames(batch)
    observed = batch.channel_mask[:, None, :]
    mask = good[..., None] & observed
    # Both are masked before they meet: an unobserved NaN times zero would still be NaN.
    error = jnp.where(mask, prediction - batch.motion, 0.0) / rig.SCALE
    if items is not None:
        error = error * jnp.sqrt(items)[:, None, None]
    weights = channel_weights(config)
    balanced = weights if factors is None else weights * factors
    terms = {}
    if config.position:
        terms["position"] = WeightedSum(
            jnp.sum(balanced * error**2), jnp.sum(jnp.where(mask, weights, 0.0))
        )
    if config.velocity:
        pairs = mask[:, 1:] & mask[:, :-1]
        difference = jnp.where(pairs, error[:, 1:] - error[:, :-1], 0.0)
        terms["velocity"] = WeightedSum(
            jnp.sum(balanced * difference**2), jnp.sum(jnp.where(pairs, weights, 0.0))
        )
    if config.aperture or config.closure:
        known = good & batch.channel_mask[:, rig.INDEX["jawOpen"], None]
        square = jnp.where(known, rig.aperture(error), 0.0) ** 2
        if config.aperture:
            terms["aperture"] = WeightedSum(jnp.sum(square), jnp.sum(known.astype(jnp.float32)))
        if config.closure:
            gap = rig.aperture(jnp.where(mask, batch.motion, 0.0))
            near = jnp.where(known, jnp.exp(-jnp.maximum(gap, 0.0) / config.closure_width), 0.0)
            terms["closure"] = WeightedSum(jnp.sum(near * square), jnp.sum(near))
    return terms


def total(terms: Mapping[str, WeightedSum], config: LossConfig) -> Array:
    """Returns the scalar that is minimised: each term's value times its weight in `config`."""
    return sum((getattr(config, name) * term.value for name, term in terms.items()), jnp.zeros(()))
