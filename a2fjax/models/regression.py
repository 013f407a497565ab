"""Model v2.3: features, convolutions of a stated reach, recurrence, and a linear map to the rig."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig, shape
from a2fjax.audio import SAMPLE_RATE
from a2fjax.config import AudioConfig, Config, ModelConfig
from a2fjax.models import conditioning
from a2fjax.models.base import Batch
from a2fjax.models.gru import GRU, BidirectionalGRU
from a2fjax.models.hearing import Encoders, Hearing, Mix
from a2fjax.models.params import FROZEN, Params


def default_constants(config: ModelConfig | None = None) -> dict[str, np.ndarray]:
    """Returns constants of the right shapes that say nothing about any data.

    "motion_mean" [72] and "motion_std" [72] in rig units, "identity_mean" and
    "identity_projection" of `conditioning.standardisation`; with `model.identity_residual` also
    "subjects", the `conditioning.encode_names` of the people of the training set.
    """
    config = config or ModelConfig()
    width = shape.width(config.identity_normals)
    mean, projection = conditioning.standardisation(np.zeros((0, width)))
    subjects = {"subjects": conditioning.encode_names([])} if config.identity_residual else {}
    return {
        **subjects,
        "motion_mean": np.zeros(rig.NUM_CHANNELS, np.float32),
        "motion_std": 0.1 * rig.SCALE,
        "identity_mean": mean,
        "identity_projection": projection,
    }


def reach(frames: int, layers: int) -> list[int]:
    """Shares a reach in frames over the layers, the first ones taking what is left over."""
    return [frames // layers + (i < frames % layers) for i in range(layers)]


class Network(nn.Module):
    """Features and conditions to motion; see `Regression`.

    Attributes:
      config: of the model.
      audio: how encoders are heard.
      dtype: of activations; parameters, sums, the recurrent state and the output are float32.
    """

    config: ModelConfig
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
        config = self.config
        keys: list[Array | None] = [None] * (config.conv_layers + 1)
        if key is not None:
            keys = list(jax.random.split(key, config.conv_layers + 1))
        conditions = []
        if config.identity == "mesh":
            encoder = conditioning.IdentityEncoder(config.identity_width, name="identity")
            conditions.append(
                encoder(
                    batch["identity"],
                    batch["identity_mask"],
                    constants["identity_mean"],
                    constants["identity_projection"],
                    key=keys[0],
                    dropout=config.condition_dropout,
                )
            )
        # Keys beside those of the layers, so that what was drawn before stays as it was.
        for_emotion, for_residual = (
            (None, None) if keys[0] is None else (jax.random.fold_in(keys[0], i) for i in (1, 2))
        )
        if config.identity_residual:
            people = constants["subjects"].shape[0]
            own = conditioning.IdentityResidual(people, config.identity_width, name="residual")
            vector = own(batch["subject"], key=for_residual, dropout=config.residual_dropout)
            conditions = [conditions[0] + vector] if conditions else [vector]
        told = batch["emotion"]
        if for_emotion is not None and config.emotion_dropout > 0:
            told = conditioning.drop_emotion(for_emotion, told, config.emotion_dropout)
        emotion = conditioning.EmotionEncoder(config.emotion_width, name="emotion")
        conditions.append(emotion(told))

        # Outside its clip a frame hears silence, as many frames as the convolutions reach. Then
        # nothing between them needs a mask, and padding, a chunk's edge and the start of a stream
        # are all the same thing.
        valid = (jnp.arange(features.shape[1]) < batch["length"][:, None])[..., None]
        if states:
            for_mix = None if key is None else jax.random.fold_in(key, 1)
            mix = Mix(self.audio.encoder, name="hearing")
            features, silence = mix(features, silence, states, valid, constants, for_mix)
        x = jnp.where(valid, features, silence) - silence
        x = jnp.pad(x, ((0, 0), (config.past_frames, config.future_frames), (0, 0))) + silence
        x = x.astype(self.dtype)
        past = reach(config.past_frames, config.conv_layers)
        future = reach(config.future_frames, config.conv_layers)
        for i in range(config.conv_layers):
            x = nn.Conv(
                config.conv_width,
                (past[i] + 1 + future[i],),
                padding="VALID",
                dtype=self.dtype,
                name=f"conv_{i}",
            )(x)
            x = nn.gelu(nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(x))
            for_dropout = keys[i + 1]
            if for_dropout is not None and config.dropout > 0:
                x = _drop_channels(for_dropout, x, config.dropout)
        x = conditioning.Modulation(name="modulation")(x, conditions, self.dtype)

        # Time-major from here: the recurrence then reads contiguous frames.
        x = x.swapaxes(0, 1)
        if config.recurrent == "bidirectional":
            x = BidirectionalGRU(config.recurrent_width, self.dtype, name="gru")(x, batch["length"])
        else:
            x = GRU(config.recurrent_width, dtype=self.dtype, name="gru")(x, batch["length"])
        # In float32 whatever the precision: the recurrence gives that, the product is small, and
        # eight bits of a bfloat16 would show as steps in slow motion.
        x = nn.Dense(rig.NUM_CHANNELS, name="head")(x).swapaxes(0, 1)
        x = conditioning.Modulation(name="head_modulation")(x, conditions)
        return constants["motion_mean"] + constants["motion_std"] * x


def _drop_channels(key: Array, x: Array, rate: float) -> Array:
    """Drops whole channels of an item (spatial dropout, Tompson et al. 2015).

    Neighbouring frames say the same, so dropping single values would be read around; and it
    needs one random number a channel rather than one a value.
    """
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0], 1, x.shape[-1]))
    return x * (keep / (1.0 - rate)).astype(x.dtype)


class Regression:
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
        self.config = config.model
        self.hearing = Hearing(config.audio, encoders)
        self.constants = dict(
            default_constants(config.model) | self.hearing.default_constants()
            if constants is None
            else constants
        )
        dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision]
        self.network = Network(config.model, config.audio, dtype)

    @property
    def lookahead_frames(self) -> int | None:
        """Future frames a frame depends on; None for all of them (bidirectional, or encoders)."""
        if self.config.recurrent == "bidirectional" or self.hearing.encoders:
            return None
        return self.config.future_frames

    @property
    def lookahead_seconds(self) -> float | None:
        """Future audio a frame depends on, analysis window included; None for all of it."""
        if self.lookahead_frames is None:
            return None
        samples = self.hearing.frontend.lookahead_samples
        return self.lookahead_frames / rig.FPS + samples / SAMPLE_RATE

    @property
    def frozen(self) -> tuple[str, ...]:
        """See `a2fjax.models.base.Model`."""
        return (*FROZEN, *self.hearing.frozen)

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters, with the constants under "constants", without the encoders'."""
        constants = {name: jnp.asarray(value) for name, value in self.constants.items()}
        frames = batch["emotion"].shape[:2]
        features = jnp.zeros((*frames, self.hearing.frontend.width))
        silence = jnp.zeros(self.hearing.frontend.width)
        states = {
            name: jnp.zeros((*frames, encoder.states, encoder.width))
            for name, encoder in self.hearing.encoders.items()
        }
        variables = self.network.init(key, features, silence, batch, constants, None, states)
        return {**variables["params"], "constants": constants}

    def features(self, batch: Batch) -> Array:
        """Returns the signals [B, T, F] of the batch's audio; padding is heard as silence."""
        return self.hearing.signals(batch)

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
        for_encoders = None if key is None else jax.random.fold_in(key, 2)
        states = self.hearing.states(params, batch, key=for_encoders)
        weights = {k: v for k, v in params.items() if k not in ("constants", "encoders")}
        motion: Any = self.network.apply(
            {"params": weights},
            features,
            self.hearing.silence(),
            batch,
            params["constants"],
            key,
            states,
        )
        if not train:
            motion = jnp.clip(motion, rig.MIN, rig.MAX)
        return {"motion": motion}
