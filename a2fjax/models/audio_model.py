"""Base class of models that use audio features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.configuration import AudioConfig
from a2fjax.models import rngs
from a2fjax.models.audio_features import AudioFeatureExtractor
from a2fjax.models.params import FROZEN, Params
from a2fjax.models.pretrained import Encoders

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
"""Activation dtypes by `precision`."""


class AudioModel:
    """Base class with audio features, constants and precision; by default it needs whole clips.

    Attributes:
      audio_features: acoustic signals and encoders.
      constants: statistics that `init` returns as the collection "constants".
      dtype: dtype of activations.
    """

    stride = 1

    def __init__(
        self,
        audio: AudioConfig,
        precision: str,
        default: Mapping[str, np.ndarray],
        constants: Mapping[str, np.ndarray] | None,
        encoders: Encoders | None,
    ) -> None:
        """Creates the feature extractor.

        Args:
          audio: selected features and the use of encoders.
          precision: precision of activations, a key of `DTYPES`.
          default: data-independent constants, used if `constants` is None.
          constants: constants of the training data or a checkpoint.
          encoders: encoders by key; None reads those that `audio` names.

        Raises:
          InputError: an encoder cannot be read.
        """
        self.audio_features = AudioFeatureExtractor(audio, encoders)
        neutral = {**default, **self.audio_features.default_constants()}
        self.constants = dict(neutral if constants is None else constants)
        self.dtype = DTYPES[precision]

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
        """Returns the constants as JAX arrays."""
        return {name: jnp.asarray(value) for name, value in self.constants.items()}

    def draw_params(self, module: nn.Module, key: Array, *args: Any, **kwargs: Any) -> Params:
        """Initialises the parameters of a module that uses the collection "constants".

        Args:
          module: the network.
          key: random key of the initial values.
          *args: arguments of the module; only their shapes matter.
          **kwargs: keyword arguments of the module; only their shapes matter.
        """
        _, created = module.apply(
            {"constants": self.device_constants()},
            *args,
            **kwargs,
            mutable=["params"],
            rngs={"params": key},
        )
        params: Params = created["params"]
        return params

    def streams(self, key: Array | None, train: bool) -> dict[str, Array]:
        """Returns the random streams of a call; empty unless training.

        Raises:
          ValueError: training without a key.
        """
        if not train:
            return {}
        if key is None:
            raise ValueError("apply(train=True) needs a key")
        return rngs.streams(key)
