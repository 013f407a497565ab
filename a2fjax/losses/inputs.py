"""Inputs of every loss term: the masked error of a batch and the weights of its channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch


@dataclasses.dataclass(frozen=True)
class LossInputs:
    """A prediction beside its truth.

    Attributes:
      prediction: [B, T, 72] float32 in rig units, need not be in range.
      batch: motion, channel_mask, frame_mask and length; other fields as the loader gives them.
      valid: [B, T] bool, frames that are neither padding nor marked as bad.
      mask: [B, T, 72] bool, observed channels of valid frames.
      error: [B, T, 72], prediction less truth in units of `rig.SCALE`, 0 where masked; already
        multiplied by the square root of the item's weight, where items have weights.
      channel_weights: [72], product of the weights of a channel's groups.
      error_weights: [72], factors of squared errors: `channel_weights`, balanced where
        `loss.balance` asks for it.
    """

    prediction: Array
    batch: Batch
    valid: Array
    mask: Array
    error: Array
    channel_weights: np.ndarray
    error_weights: np.ndarray | Array

    @property
    def pairs(self) -> Array:
        """[B, T - 1, 72] bool, channels observed in a frame and in the one before."""
        return self.mask[:, 1:] & self.mask[:, :-1]


def prepare(
    prediction: Array,
    batch: Batch,
    group_weights: Mapping[str, float],
    factors: Array | None = None,
    item_weights: Array | None = None,
) -> LossInputs:
    """Masks a batch's error; arguments as `a2fjax.losses.compute_terms`."""
    prediction = prediction.astype(jnp.float32)
    valid = batch.valid_frames()
    mask = valid[..., None] & batch.channel_mask[:, None, :]
    # Both are masked before they meet: an unobserved NaN times zero would still be NaN.
    error = jnp.where(mask, prediction - batch.motion, 0.0) / rig.SCALE
    if item_weights is not None:
        error = error * jnp.sqrt(item_weights)[:, None, None]
    weights = channel_weights(group_weights)
    return LossInputs(
        prediction=prediction,
        batch=batch,
        valid=valid,
        mask=mask,
        error=error,
        channel_weights=weights,
        error_weights=weights if factors is None else weights * factors,
    )


def channel_weights(group_weights: Mapping[str, float]) -> np.ndarray:
    """Returns the weight of each channel [72]: the product of its groups' weights."""
    weights = np.ones(rig.NUM_CHANNELS, np.float32)
    for group, factor in group_weights.items():
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
    observed = variance > 0
    factors = jnp.where(observed, jnp.where(observed, variance, 1.0) ** -exponent, 0.0)
    scale = jnp.sum(variance) / jnp.maximum(jnp.sum(factors * variance), 1e-12)
    return jnp.where(observed, factors * scale, 1.0)
