"""Model v2.3: features, convolutions of a stated reach, recurrence, and a linear map to the rig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import mesh_descriptor, rig
from a2fjax.audio import SAMPLE_RATE
from a2fjax.batch import Batch
from a2fjax.config import AudioConfig, BackboneConfig, Config
from a2fjax.models import conditioning
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.backbone import backbone
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders


def default_constants(config: BackboneConfig | None = None) -> dict[str, np.ndarray]:
    """Returns constants of the right shapes that say nothing about any data.

    "motion_mean" [72] and "motion_std" [72] in rig units, "identity_mean" and
    "identity_projection" of `conditioning.standardisation`; with `model.identity_residual` also
    "subjects", the `conditioning.encode_names` of the people of the training set.
    """
    config = config or BackboneConfig()
    width = mesh_descriptor.width(config.identity_normals)
    mean, projection = conditioning.standardisation(np.zeros((0, width)))
    subjects = {"subjects": conditioning.encode_names([])} if config.identity_residual else {}
    return {
        **subjects,
        "motion_mean": np.zeros(rig.NUM_CHANNELS, np.float32),
        "motion_std": 0.1 * rig.SCALE,
        "identity_mean": mean,
        "identity_projection": projection,
    }


class Network(nn.Module):
    """Features and conditions to motion; see `Regression`.

    Attributes:
      config: of the model.
      audio: how encoders are heard.
      dtype: of activations; parameters, sums, the recurrent state and the output are float32.
    """

    config: BackboneConfig
    audio: AudioConfig = AudioConfig()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: Array,
        silence: Array,
        batch: Batch,
        constants: Mapping[str, Array],
        key: Array | None = None,
        states: Mapping[str, Array] | None = None,
    ) -> Array:
        """Returns the motion [B, T, 72] float32, not clipped.

        Args:
          features: [B, T, F], signals.
          silence: [F], signals of a frame of silence, which stands before and after each clip.
          batch: length, identity, identity_mask, emotion and, for the residual, subject are read.
          constants: as `default_constants`, with the statistics of the states.
          key: of dropout and noise; None when not training.
          states: of encoders by key, [B, T, S, D].
        """
        x, conditions = backbone(
            self.config,
            self.audio,
            features,
            silence,
            batch,
            constants,
            key,
            states,
            dtype=self.dtype,
        )
        # In float32 whatever the precision: the recurrence gives that, the product is small, and
        # eight bits of a bfloat16 would show as steps in slow motion.
        x = nn.Dense(rig.NUM_CHANNELS, name="head")(x).swapaxes(0, 1)
        x = conditioning.FiLM(name="head_film")(x, conditions)
        return constants["motion_mean"] + constants["motion_std"] * x


class Regression(AudioModel):
    """The regression model behind `init` and `apply`; see `a2fjax.models.base.Model`.

    Level-normalised audio → signals and encoders' states (`hearing`) → convolutions that together
    reach exactly `past_frames` back and `future_frames` ahead, each with layer normalisation and
    GELU → modulation by identity and emotion → GRU → linear → 72 channels, modulated once more, in
    units of each channel's standard deviation about its mean.
    """

    def __init__(
        self,
        config: Config,
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Makes the model.

        Args:
          config: whole experiment.
          constants: as `default_constants`, which stand in for None, with the statistics of the
            encoders' states.
          encoders: by key; None reads those that `config.audio` names.

        Raises:
          InputError: an encoder cannot be read.
        """
        assert isinstance(config.model, BackboneConfig)
        super().__init__(config, default_constants(config.model), constants, encoders)
        self.config = config.model
        self.network = Network(config.model, config.audio, self.dtype)

    @property
    def lookahead_frames(self) -> int | None:
        """Future frames a frame depends on; None for all of them (bidirectional, or encoders)."""
        if self.config.recurrent == "bidirectional" or self.audio_features.encoders:
            return None
        return self.config.future_frames

    @property
    def lookahead_seconds(self) -> float | None:
        """Future audio a frame depends on, analysis window included; None for all of it."""
        if self.lookahead_frames is None:
            return None
        samples = self.audio_features.frontend.lookahead_samples
        return self.lookahead_frames / rig.FPS + samples / SAMPLE_RATE

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters, with the constants under "constants", without the encoders'."""
        constants = self.device_constants()
        features, silence, states = self.zero_features(batch)
        variables = self.network.init(key, features, silence, batch, constants, None, states)
        return {**variables["params"], "constants": constants}

    def features(self, batch: Batch) -> Array:
        """Returns the signals [B, T, F] of the batch's audio; padding is heard as silence."""
        return self.audio_features.signals(batch)

    def apply(
        self, params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]}; clipped to the rig's ranges unless training."""
        return self.apply_features(params, self.features(batch), batch, key=key, train=train)

    def apply_features(
        self,
        params: Params,
        features: Array,
        batch: Batch,
        *,
        key: Array | None = None,
        train: bool = False,
    ) -> dict[str, Array]:
        """Is `apply` from signals [B, T, F] on, for signals that were computed before.

        Raises:
          ValueError: training without a key.
        """
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        key = key if train else None
        number = self.config.conv_layers + 2  # Of no key inside the network.
        for_encoders = None if key is None else jax.random.fold_in(key, number)
        states = self.audio_features.hidden_states(params, batch, key=for_encoders)
        weights = {k: v for k, v in params.items() if k not in ("constants", "encoders")}
        motion: Any = self.network.apply(
            {"params": weights},
            features,
            self.audio_features.silence(),
            batch,
            params["constants"],
            key,
            states,
        )
        if not train:
            motion = jnp.clip(motion, rig.MIN, rig.MAX)
        return {"motion": motion}
