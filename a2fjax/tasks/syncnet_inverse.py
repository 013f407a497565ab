"""The inverse sync expert: predicts speech features from motion.

The loss is the squared error over speech, relative to that of the mean: 1 is a prediction that
knows nothing. Windows without speech or motion take no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import Config, SyncnetInverseConfig
from a2fjax.losses import WeightedSum
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.syncnet import similarity, windows
from a2fjax.models.syncnet.model import SyncnetInverse
from a2fjax.tasks import sync_health
from a2fjax.tasks.base import SingleModelTask

T = TypeVar("T", bound="SyncnetInverseTask")


class SyncnetInverseTask(SingleModelTask):
    """Task of the inverse expert; see `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
    """

    model: SyncnetInverse

    def __init__(self, model: SyncnetInverse) -> None:
        """Makes the task of `model`."""
        self.model = model

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Builds the task of a configuration; arguments as in `a2fjax.tasks.build`.

        Raises:
          InputError: features that cannot be predicted, or windows of data that are too short.
        """
        assert isinstance(config.model, SyncnetInverseConfig)
        windows.check_room(config.data.window_frames, config.model, 0)
        model = SyncnetInverse(
            config.model,
            config.audio,
            precision=config.precision,
            constants=constants,
            encoders=encoders,
        )
        return cls(model)

    def loss(
        self, variables: Params, batch: Batch, key: Array, *, step: Array | int, train: bool
    ) -> tuple[Array, dict[str, WeightedSum]]:
        """Returns the scalar and its terms; ignores `step`.

        Terms: "features" (squared error), "features_chance" (that of the mean over speech), and
        "spread" and "rank" of the prediction for `sync_health`.
        """
        del step
        config = self.model.config
        statistics = self.model.statistics(variables, batch)
        out = self.model.apply(variables, batch, key=key, train=train)
        heard, seen = out["heard"], out["seen"]
        window = config.window_frames
        count = windows.countable(
            batch,
            statistics,
            window,
            least_speech=config.least_speech,
            least_motion=config.least_motion,
        )
        # A frame counts as often as windows that count have it between their ends.
        inner = window - 2 * config.motion_reach
        edge = config.motion_reach + inner - 1
        weight = jnp.pad(count.astype(jnp.float32), ((0, 0), (edge, edge)))
        weight = similarity.box(weight, inner)[:, : heard.shape[1]] / inner
        weight = jnp.where(windows.heard_frames(batch, config.audio_reach), weight, 0.0)
        total = jnp.sum(weight) * heard.shape[-1]
        mean = jnp.einsum("btd,bt->d", heard, weight) / jnp.maximum(jnp.sum(weight), 1e-6)

        def square(error: Array) -> WeightedSum:
            return WeightedSum(jnp.sum(weight[..., None] * error**2), total)

        spread, rank = sync_health.shape_terms(
            jax.lax.stop_gradient(seen).reshape(-1, seen.shape[-1]), weight.reshape(-1) > 0
        )
        terms = {
            "features": square(seen - heard),
            "features_chance": square(heard - mean),
            "spread": sync_health.single(spread, count),
            "rank": sync_health.single(rank, count),
        }
        return self.total(terms), terms

    def warm_start(self, variables: Params) -> Params:
        """Returns another run's variables with the people of this one; see `tasks.people`."""
        return {**variables, "constants": self.model.device_constants()}

    def total(self, terms: dict[str, WeightedSum]) -> Array:
        """Returns the squared error."""
        return terms["features"].value

    def warnings(self, step: int, values: Mapping[str, float]) -> dict[str, str]:
        """Returns what looks wrong, by name; see `sync_health`."""
        people = len(self.model.constants["people_mean"])
        return sync_health.warnings(self.model.config, step, values, people=people)
