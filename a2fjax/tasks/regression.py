"""Regression: predicts one motion per recording, trained with masked squared errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from jax import Array

from a2fjax import losses
from a2fjax.batch import Batch
from a2fjax.configuration import BackboneConfig, Config, LossConfig
from a2fjax.losses import WeightedSum
from a2fjax.models.base import Model
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.regression import Regression
from a2fjax.tasks.sync_loss import SyncedMotionTask

T = TypeVar("T", bound="RegressionTask")


class RegressionTask(SyncedMotionTask):
    """Task of models that predict one motion per recording; see `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
      config: weights of the loss terms.
    """

    def __init__(self, config: LossConfig, model: Model) -> None:
        """Combines `model` with the losses of `config`."""
        self.model = model
        self.config = config

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Builds the task with its regression model; arguments as in `a2fjax.tasks.build`."""
        assert isinstance(config.model, BackboneConfig)
        model = Regression(
            config.model,
            config.audio,
            precision=config.precision,
            constants=constants,
            encoders=encoders,
        )
        return cls(config.loss, model)

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms."""
        motion = self.model.apply(variables, batch, key=key, train=train)["motion"]
        factors = None
        if self.config.balance > 0:
            std = variables["constants"]["motion_std"]
            factors = losses.balance(std, self.config.balance)
        terms = losses.compute_terms(motion, batch, self.config, factors)
        terms |= self.sync_terms(variables, motion, batch, step=step, train=train)
        return self.total(terms), terms

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the weighted sum of the terms' values."""
        return losses.total(self.others(terms), self.config) + self.sync_total(terms)
