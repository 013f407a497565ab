"""Task interface: a model with its losses, for training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeVar

import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import Config, OptimConfig
from a2fjax.losses import WeightedSum
from a2fjax.models.base import Model
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders

T = TypeVar("T", bound="SingleModelTask")


class Auxiliary(Protocol):
    """A network that a task trains beside its model, on a loss of its own.

    Its parameters are the collection `collection` of `Task.pretrained`, and of the variables that
    `Task.loss` gets in training; evaluation and inference do without. The terms that `Task.loss`
    returns hold those of both losses. Each parameter gets the gradient of the sum of both totals,
    so the terms of one loss must not depend on the other's parameters (`jax.lax.stop_gradient`).
    """

    @property
    def collection(self) -> str:
        """Name of the collection."""
        ...

    @property
    def optim(self) -> OptimConfig:
        """Optimiser of the network; `ema_decay` does not apply."""
        ...

    def total(self, terms: Mapping[str, WeightedSum]) -> Array:
        """Returns the scalar that the network minimises, from merged terms."""
        ...


class Task(Protocol):
    """A model combined with its losses, as pure functions of their arguments.

    A custom task usually changes the loss of an existing one. An experiment selects it with
    `config.task = "my_pkg.module:Smooth"`:

        class Smooth(RegressionTask):
            def loss(self, variables, batch, key, *, step, train):
                total, terms = super().loss(variables, batch, key, step=step, train=train)
                ...

    Attributes:
      model: the network.
    """

    model: Model

    @property
    def auxiliary(self) -> Auxiliary | None:
        """The network that is trained beside the model, if any."""
        ...

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the frozen variables, for `params.split`."""
        ...

    @property
    def pretrained(self) -> Params:
        """Pretrained weights, which `init` omits."""
        ...

    def init(self, key: Array, batch: Batch) -> Params:
        """Initialises the variables, including constants but without `pretrained`; see `Model`."""
        ...

    def warm_start(self, variables: Params) -> Params:
        """Returns the initial variables of a run, given those of its `init_from`."""
        ...

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar to minimise and its terms, before division, by name.

        Args:
          variables: variables of the model; see `a2fjax.models.base.Model`.
          batch: the batch; see `a2fjax.batch.Batch`.
          key: random key of dropout and noise.
          step: number of finished updates, for terms that change during training.
          train: enables dropout and noise.
        """
        ...

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the scalar of merged terms, as `loss` does for the terms of one batch."""
        ...

    def warnings(self, step: int, values: Mapping[str, float]) -> Mapping[str, str]:
        """Returns one line by name for each sign that the training goes wrong.

        Training prints a line once for each name.

        Args:
          step: number of finished updates.
          values: the terms' values, of a training batch or of held-out windows, by name.
        """
        ...


class MotionTask(Task, Protocol):
    """A task whose model predicts motion; inference and evaluation need one."""

    def predict(self, variables: Params, batch: Batch) -> Array:
        """Returns the motion [B, T, 72] in rig units, within the rig's ranges."""
        ...


class SingleModelTask:
    """Base class of tasks with one model that reads audio features.

    Attributes:
      model: the network.
    """

    model: Model

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Builds the task of a configuration; arguments as in `a2fjax.tasks.build`."""
        raise NotImplementedError(f"{cls.__qualname__}.build")

    @property
    def auxiliary(self) -> Auxiliary | None:
        """None: no network is trained beside the model."""
        return None

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the frozen variables."""
        return self.model.frozen

    @property
    def pretrained(self) -> Params:
        """Pretrained weights of the encoders."""
        return self.model.audio_features.pretrained

    def init(self, key: Array, batch: Batch) -> Params:
        """Initialises the variables of the model, without `pretrained`."""
        return self.model.init(key, batch)

    def warm_start(self, variables: Params) -> Params:
        """Returns the variables unchanged."""
        return variables

    def warnings(self, step: int, values: Mapping[str, float]) -> Mapping[str, str]:
        """Returns nothing: no sign is known."""
        del step, values
        return {}


class SingleMotionTask(SingleModelTask):
    """Base class of those whose model predicts motion."""

    def predict(self, variables: Params, batch: Batch) -> Array:
        """Returns the motion [B, T, 72]."""
        return self.model.apply(variables, batch)["motion"]
