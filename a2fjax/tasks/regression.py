"""Regression: one motion for one recording, by masked squared errors."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jax import Array

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.config import Config
from a2fjax.losses import WeightedSum
from a2fjax.models.base import Model
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.regression import Regression
from a2fjax.tasks.base import SingleModelTask


class RegressionTask(SingleModelTask):
    """See `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
      config: weights of the loss terms.
    """

    def __init__(self, config: Config, model: Model) -> None:
        """Joins `model` to the losses of `config`."""
        self.model = model
        self.config = config.loss

    def loss(
        self, params: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms; `step` changes nothing here."""
        del step
        motion = self.model.apply(params, batch, key=key if train else None, train=train)["motion"]
        factors = None
        if self.config.balance > 0:
            factors = losses.balance(params["constants"]["motion_std"], self.config.balance)
        terms = losses.regression_losses(motion, batch, self.config, factors)
        return self.total(terms), terms

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the weighted sum of the terms' values."""
        return losses.total(terms, self.config)


def build(
    config: Config,
    constants: Mapping[str, np.ndarray] | None = None,
    encoders: Encoders | None = None,
) -> RegressionTask:
    """Returns the task of model.kind='regression'; arguments as `a2fjax.tasks.build`."""
    return RegressionTask(config, Regression(config, constants, encoders))
