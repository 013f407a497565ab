"""Base class of the models that take audio features."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.config import Config
from a2fjax.models.audio_features import AudioFeatureExtractor
from a2fjax.models.params import FROZEN, Params
from a2fjax.models.pretrained import Encoders


class AudioModel:
    """What models have in common that hear through `Hearing`: by default, whole clips.

    Attributes:
      hearing: signals and encoders.
      constants: that `init` puts into the parameters.
      dtype: of activations.
    """

    def __init__(
        self,
        config: Config,
        default: Mapping[str, np.ndarray],
        constants: Mapping[str, np.ndarray] | None,
        encoders: Encoders | None,
    ) -> None:
        """Makes the hearing.

        Args:
          config: whole experiment.
          default: constants that say nothing, for None in their place.
          constants: of the training data or of a checkpoint.
          encoders: by key; None reads those that `config.audio` names.

        Raises:
          InputError: an encoder cannot be read.
        """
        self.audio_features = AudioFeatureExtractor(config.audio, encoders)
        neutral = {**default, **self.audio_features.default_constants()}
        self.constants = dict(neutral if constants is None else constants)
        self.dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision]

    @property
    def lookahead_frames(self) -> int | None:
        """See `a2fjax.models.base.Model`."""
        return None

    @property
    def lookahead_seconds(self) -> float | None:
        """See `a2fjax.models.base.Model`."""
        return None

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`."""
        return (*FROZEN, *self.audio_features.frozen)

    def device_constants(self) -> Params:
        """Returns the constants as arrays of jax."""
        return {name: jnp.asarray(value) for name, value in self.constants.items()}

    def zero_features(self, batch: Batch) -> tuple[Array, Array, dict[str, Array]]:
        """Returns zeros of the shapes of signals [B, T, F], silence [F] and encoders' states."""
        frames, width = batch.emotion.shape[:2], self.audio_features.frontend.width
        states = {
            name: jnp.zeros((*frames, encoder.num_states, encoder.width))
            for name, encoder in self.audio_features.encoders.items()
        }
        return jnp.zeros((*frames, width)), jnp.zeros(width), states
