"""Loss terms as sums with weights, found by name in `registry.losses`.

A term is a function of the masked error of a batch and its settings. A package adds one without a
change here:

    @registry.losses.register("jerk", settings=JerkConfig)
    def jerk(inputs: losses.LossInputs, config: JerkConfig) -> losses.WeightedSum: ...

and an experiment names it: `config.loss.terms = {"jerk": {"weight": 0.1}}`.

weighted_sum     means before their division
inputs           masked error and channel weights
channels, lips   the built-in terms
"""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from a2fjax import registry
from a2fjax.batch import Batch
from a2fjax.configuration import LossConfig
from a2fjax.losses.inputs import LossInputs, balance, channel_weights, prepare
from a2fjax.losses.weighted_sum import WeightedSum, masked_mean, merge

__all__ = [
    "LossInputs",
    "WeightedSum",
    "balance",
    "channel_weights",
    "masked_mean",
    "merge",
    "compute_terms",
    "term_weights",
    "total",
]


def compute_terms(
    prediction: Array,
    batch: Batch,
    config: LossConfig,
    factors: Array | None = None,
    item_weights: Array | None = None,
) -> dict[str, WeightedSum]:
    """Computes the terms whose weight is not 0: the built-in ones, then those of `config.terms`.

    Channels and frames that are masked or padded do not count, whatever they hold.

    Args:
      prediction: [B, T, 72] in rig units, need not be in range.
      batch: motion, channel_mask, frame_mask and length are read; added terms may read more.
      config: weights and settings.
      factors: [72] of the squared errors of position and velocity, as `balance`; None for ones.
      item_weights: [B], factors of the squared errors of each item; None for ones. The weights
        that sums are divided by do not depend on them.

    Returns:
      Weighted sums by name; channels count by their group weights.
    """
    inputs = prepare(prediction, batch, config.group_weights, factors, item_weights)
    terms = {}
    for name, weight in term_weights(config).items():
        if weight:
            term = registry.losses.get(name, where="loss.terms: ").load()
            terms[name] = term(inputs, config.terms.get(name, config))
    return terms


def term_weights(config: LossConfig) -> dict[str, float]:
    """Returns the weight of every term by name.

    Example:
        >>> term_weights(LossConfig(velocity=0.5))
        {'position': 1.0, 'velocity': 0.5, 'aperture': 1.0, 'closure': 1.0}
    """
    built_in = {name: getattr(config, name) for name in LossConfig.BUILT_IN}
    return built_in | {name: settings.weight for name, settings in config.terms.items()}


def total(terms: Mapping[str, WeightedSum], config: LossConfig) -> Array:
    """Returns the scalar that is minimised: each term's value times its weight in `config`."""
    weights = term_weights(config)
    return sum((weights[name] * term.value for name, term in terms.items()), jnp.zeros(()))
