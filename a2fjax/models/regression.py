"""The regression model (v2.3): the backbone and a linear map to the rig's channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import mesh_descriptor, rig
from a2fjax.audio import SAMPLE_RATE
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, BackboneConfig, ConditionedConfig, EncoderConfig
from a2fjax.models import conditioning, familiarity
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.backbone import Backbone
from a2fjax.models.feature_fusion import AudioFeatures
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders


def default_constants(config: ConditionedConfig | None = None) -> dict[str, np.ndarray]:
    """Returns data-independent constants of the right shapes.

    "motion_mean" [72] and "motion_std" [72] in rig units, "identity_mean" and
    "identity_projection" of `conditioning.standardisation`, "identity_deviation" and
    "identity_bounds" of `familiarity.spread`; with `model.identity_residual` also
    "subjects", the `conditioning.encode_names` of the training subjects.
    """
    config = config or BackboneConfig()
    width = mesh_descriptor.width(config.identity_normals)
    mean, projection = conditioning.standardisation(np.zeros((0, width)))
    without = np.zeros((0, mesh_descriptor.WIDTH))
    deviation, bounds = familiarity.spread(without, mesh_descriptor.GROUPS)
    subjects = {"subjects": conditioning.encode_names([])} if config.identity_residual else {}
    return {
        **subjects,
        "motion_mean": np.zeros(rig.NUM_CHANNELS, np.float32),
        "motion_std": 0.1 * rig.SCALE,
        "identity_mean": mean,
        "identity_projection": projection,
        "identity_deviation": deviation,
        "identity_bounds": bounds,
    }


class Network(nn.Module):
    """Maps audio features and conditions to motion; uses the collection "constants".

    Attributes:
      config: sizes, conditions and dropout.
      fusion: fusion of encoders' hidden states.
      dtype: dtype of activations; parameters, sums, the recurrent state and the output are float32.
    """

    config: BackboneConfig
    fusion: EncoderConfig = EncoderConfig()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: AudioFeatures, batch: Batch, *, train: bool = False) -> Array:
        """Returns the motion [B, T, 72] float32, not clipped; arguments as in `Backbone`."""
        constants = self.variables["constants"]
        backbone = Backbone(self.config, self.fusion, self.dtype, name="backbone")
        x, conditions = backbone(features, batch, constants, train=train)
        # Always in float32: the recurrence outputs float32, the product is small, and the eight
        # bits of bfloat16 would be visible as steps in slow motion.
        x = nn.Dense(rig.NUM_CHANNELS, name="head")(x).swapaxes(0, 1)
        x = conditioning.FiLM(name="head_film")(x, conditions)
        return constants["motion_mean"] + constants["motion_std"] * x


class Regression(AudioModel):
    """The regression model; see `a2fjax.models.base.Model`.

    Level-normalised audio → acoustic signals and encoders' hidden states → convolutions that
    together cover exactly `past_frames` back and `future_frames` ahead, each with layer
    normalisation and GELU → FiLM by identity and emotion → GRU → linear → 72 channels with another
    FiLM, in units of each channel's standard deviation about its mean.

    Example:
        >>> import jax
        >>> from a2fjax.batch import Batch
        >>> from a2fjax.configuration import AudioConfig, RegressionConfig
        >>> model = Regression(RegressionConfig(conv_width=8, recurrent_width=8), AudioConfig())
        >>> batch = Batch.spec(size=2, frames=50, points=64)
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), batch)
        >>> sorted(variables), sorted(variables["params"])
        (['constants', 'params'], ['backbone', 'head', 'head_film'])
        >>> jax.eval_shape(model.apply, variables, batch)["motion"].shape
        (2, 50, 72)
    """

    def __init__(
        self,
        config: BackboneConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the model.

        Args:
          config: sizes, conditions and dropout.
          audio: selected features and the use of encoders.
          precision: precision of activations, "float32" or "bfloat16".
          constants: as in `default_constants`, with the statistics of the encoders' hidden states;
            None uses the defaults.
          encoders: encoders by key; None reads those that `audio` names.

        Raises:
          InputError: an encoder cannot be read.
        """
        super().__init__(audio, precision, default_constants(config), constants, encoders)
        self.config = config
        self.network = Network(config, audio.encoder, self.dtype)

    @property
    def lookahead_frames(self) -> int | None:
        """Number of future frames a frame depends on; None for all (bidirectional or encoders)."""
        if self.config.recurrent == "bidirectional" or self.audio_features.encoders:
            return None
        return self.config.future_frames

    @property
    def lookahead_seconds(self) -> float | None:
        """Future audio in seconds a frame depends on, including analysis windows; None for all."""
        if self.lookahead_frames is None:
            return None
        samples = self.audio_features.frontend.lookahead_samples
        return self.lookahead_frames / rig.FPS + samples / SAMPLE_RATE

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns {"params": ..., "constants": ...}; see `a2fjax.models.base.Model`."""
        constants = self.device_constants()
        params = self.draw_params(self.network, key, self.audio_features.zeros(batch), batch)
        return {"params": params, "constants": constants}

    def apply(
        self, variables: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]}; clipped to the rig's ranges unless training.

        Raises:
          ValueError: training without a key.
        """
        streams = self.streams(key, train)
        features = self.audio_features(variables, batch, rng=streams.get("encoders"))
        return self.apply_features(variables, features, batch, key=key, train=train)

    def apply_features(
        self,
        variables: Params,
        features: AudioFeatures,
        batch: Batch,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> dict[str, Array]:
        """Applies the model to precomputed audio features; otherwise like `apply`.

        Raises:
          ValueError: training without a key.
        """
        motion: Any = self.network.apply(
            {"params": variables["params"], "constants": variables["constants"]},
            features,
            batch,
            train=train,
            rngs=self.streams(key, train),
        )
        if not train:
            motion = jnp.clip(motion, rig.MIN, rig.MAX)
        return {"motion": motion}
