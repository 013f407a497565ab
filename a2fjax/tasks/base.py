"""What training, evaluation and inference know of a model and its losses."""

from __future__ import annotations

from typing import Protocol

from jax import Array

from a2fjax.batch import Batch
from a2fjax.losses import WeightedSum
from a2fjax.models.base import Model
from a2fjax.models.params import Params


class Task(Protocol):
    """A model joined to its losses: pure functions of their arguments.

    Attributes:
      model: the network.
    """

    model: Model

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the parameters that are not trained, for `params.split`."""
        ...

    @property
    def pretrained(self) -> Params:
        """Weights that are read rather than drawn; `init` leaves them out."""
        ...

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters, constants included, without `pretrained`; runs under `eval_shape`."""
        ...

    def warm_start(self, params: Params) -> Params:
        """Returns the parameters that a run with `init_from` begins with, of those found there."""
        ...

    def loss(
        self, params: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar to minimise and its terms, not yet divided, by name.

        Args:
          params: as `init` returns them.
          batch: see `a2fjax.models.base.Batch`.
          key: of dropout and noise; unused when not training.
          step: number of finished updates, for terms that change while training.
          train: whether dropout and noise are on.
        """
        ...

    def predict(self, params: Params, batch: Batch) -> Array:
        """Returns the motion [B, T, 72] in rig units, inside the rig's ranges."""
        ...

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the scalar of merged terms, as `loss` does for those of one batch."""
        ...


class SingleModelTask:
    """What every task does that has one model and hears through it.

    Attributes:
      model: the network.
    """

    model: Model

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the parameters that are not trained."""
        return self.model.frozen

    @property
    def pretrained(self) -> Params:
        """Weights of encoders as read."""
        return self.model.audio_features.pretrained

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters of the model, without `pretrained`."""
        return self.model.init(key, batch)

    def warm_start(self, params: Params) -> Params:
        """Returns the parameters as they are."""
        return params

    def predict(self, params: Params, batch: Batch) -> Array:
        """Returns the motion [B, T, 72]."""
        return self.model.apply(params, batch)["motion"]
