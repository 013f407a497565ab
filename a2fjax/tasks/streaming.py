"""Regression for live audio: every window of a batch has a look-ahead of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import Config, StreamingConfig
from a2fjax.losses import WeightedSum
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.streaming import StreamingRegression
from a2fjax.tasks.regression import RegressionTask

T = TypeVar("T", bound="StreamingTask")


class StreamingTask(RegressionTask):
    """Task of the model for live audio; see `a2fjax.tasks.base.Task`.

    Attributes:
      model: the network.
    """

    model: StreamingRegression

    @classmethod
    def build(
        cls: type[T],
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> T:
        """Builds the task with its model; arguments as in `a2fjax.tasks.build`.

        Raises:
          InputError: the audio features include a speech encoder.
        """
        assert isinstance(config.model, StreamingConfig)
        model = StreamingRegression(
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
        """Returns the scalar and its terms.

        The last frames of a window have a future that the window does not hold; they do not count.
        """
        size, frames = batch.frame_mask.shape
        lookahead: Array | int = self.model.lookahead_frames
        if train:
            lookahead = self.model.draw_lookahead(key, size)[:, None]
        # After a clip shorter than its window is silence, which the window does hold.
        complete = jnp.arange(frames) < frames - lookahead
        batch = batch.replace(frame_mask=batch.frame_mask & complete)
        return super().loss(variables, batch, key, step=step, train=train)
