"""The two experts: contrastive (`Syncnet`) and inverse (`SyncnetInverse`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.audio import mel
from a2fjax.batch import Batch
from a2fjax.configuration import (
    AudioConfig,
    EncoderConfig,
    SyncConfig,
    SyncnetConfig,
    SyncnetInverseConfig,
)
from a2fjax.errors import InputError
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.feature_fusion import AudioFeatures
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.rngs import named_keys
from a2fjax.models.syncnet import channels
from a2fjax.models.syncnet.network import AudioBranch, MotionBranch

FIRST_SCALE = 10.0
"""Scale of the scores in the loss before training; Radford et al. 2021 begin at 14."""

MATCH_SCALE = 10.0
"""Unit of the learned scale of "match": parameters near 1 learn as fast as the others."""

LARGEST_SCALE = 100.0
"""Limit of the learned scale, as in Radford et al. 2021 ("CLIP")."""


def default_constants() -> dict[str, np.ndarray]:
    """Returns data-independent constants: the statistics of one person."""
    return {
        "people_mean": np.zeros((1, rig.NUM_CHANNELS), np.float32),
        "people_deviation": (0.1 * rig.SCALE)[None],
    }


class SyncModel(AudioModel):
    """Base class of the experts: what becomes of a batch before the branches see it.

    Attributes:
      config: reach, sizes and masks.
      similarity: kind of the score, of `similarity.KINDS`.
    """

    similarity: ClassVar[str]
    config: SyncConfig

    def __init__(
        self,
        config: SyncConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the model; arguments as in `a2fjax.models.regression.Regression`.

        Raises:
          InputError: an encoder cannot be read.
        """
        super().__init__(audio, precision, default_constants(), constants, encoders)
        self.config = config

    def statistics(
        self, variables: Params, batch: Batch, *, key: Array | None = None
    ) -> channels.Statistics:
        """Returns the statistics of each item: of its person if known, else its own.

        Args:
          variables: with the constants "people_mean" and "people_deviation" [N, 72].
          batch: `subject` numbers the people of the expert's own training; -1 is unknown.
          key: with one, a share of items (`model.own_statistics`) counts as unknown.
        """
        constants, subject = variables["constants"], batch.subject
        known = (subject >= 0) & (subject < constants["people_mean"].shape[0])
        if key is not None:
            known &= jax.random.uniform(key, subject.shape) >= self.config.own_statistics
        own = channels.own_statistics(batch.motion, batch.valid_frames())
        row = jnp.where(known, subject, 0)
        return channels.Statistics(
            jnp.where(known[:, None], constants["people_mean"][row], own.mean),
            jnp.where(known[:, None], constants["people_deviation"][row], own.deviation),
        )

    def apply(
        self,
        variables: Params,
        batch: Batch,
        *,
        key: Array | None = None,
        train: bool = False,
        statistics: channels.Statistics | None = None,
    ) -> dict[str, Array]:
        """Returns the frame vectors {"heard": [B, T, D], "seen": [B, T, D]}.

        "heard" is of the audio and sees `audio_reach` frames on both sides; "seen" is of the
        motion, sees `motion_reach`, and has no meaning nearer to an end.

        Args:
          variables: variables of the model.
          batch: audio, motion, masks and subject.
          key: random key of dropout and hidden channels.
          train: enables both.
          statistics: of the motion; None for `statistics` of the batch.

        Raises:
          ValueError: training without a key.
        """
        streams = self.streams(key, train)
        more = named_keys(key, ("channels", "people")) if train and key is not None else {}
        if statistics is None:
            statistics = self.statistics(variables, batch, key=more.get("people"))
        mask = jnp.asarray(batch.channel_mask)[:, channels.CHANNELS]
        if "channels" in more:
            share, tongue = self.config.channel_dropout, self.config.tongue_dropout
            mask = channels.hide(more["channels"], mask, share, tongue)
        motion = jnp.where(batch.valid_frames()[..., None], batch.motion, 0.0)
        motion = channels.standardise(motion, statistics)
        features = self.audio_features(variables, batch, rng=streams.get("encoders"))
        return self.vectors(variables, features, batch.length, motion, mask, streams)

    def vectors(
        self,
        variables: Params,
        features: AudioFeatures,
        length: Array,
        motion: Array,
        mask: Array,
        streams: dict[str, Array],
    ) -> dict[str, Array]:
        """Returns `apply`'s result from prepared inputs; `streams` is empty outside training."""
        raise NotImplementedError


def _inside(features: AudioFeatures, length: Array) -> Array:
    frames = next(iter([features.signals, *features.hidden_states.values()])).shape[1]
    return jnp.arange(frames) < length[:, None]


class _ContrastiveNetwork(nn.Module):
    config: SyncnetConfig
    fusion: EncoderConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, features: AudioFeatures, length: Array, motion: Array, mask: Array, *, train: bool
    ) -> dict[str, Array]:
        constants = self.variables["constants"]
        size = self.config.embedding
        audio = AudioBranch(self.config, self.fusion, size, self.dtype, name="audio")
        seen = MotionBranch(self.config, size, self.dtype, name="motion")
        inside = _inside(features, length)
        for name, value in (
            ("log_scale", np.log(FIRST_SCALE)),
            ("match_scale", 1.0),
            ("match_bias", -0.5),
        ):
            self.param(name, nn.initializers.constant(value), ())
        return {
            "heard": audio(features, inside, constants, train=train),
            "seen": seen(motion, mask, train=train),
        }


class Syncnet(SyncModel):
    """The contrastive expert: a window's score is the cosine of its audio and motion vectors.

    After SyncNet (Chung and Zisserman 2016), with rig channels in the place of images.

    Example:
        >>> from a2fjax.configuration import AudioConfig, SyncnetConfig
        >>> model = Syncnet(SyncnetConfig(width=8, layers=1, embedding=4), AudioConfig())
        >>> batch = Batch.zeros(size=2, frames=50, points=0)
        >>> variables = model.init(jax.random.key(0), batch)
        >>> model.apply(variables, batch)["seen"].shape
        (2, 50, 4)
    """

    similarity = "cosine"
    config: SyncnetConfig

    def __init__(self, config: SyncnetConfig, audio: AudioConfig, **options: Any) -> None:
        """Creates the model; options as in `SyncModel`."""
        super().__init__(config, audio, **options)
        self.network = _ContrastiveNetwork(config, audio.encoder, self.dtype)

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns {"params": ..., "constants": ...}; see `a2fjax.models.base.Model`."""
        rows, frames = batch.frame_mask.shape
        size = len(channels.CHANNELS)
        motion, mask = jnp.zeros((rows, frames, size)), jnp.ones((rows, size), bool)
        zeros = self.audio_features.zeros(batch)
        length = jnp.full((rows,), frames)
        params = self.draw_params(self.network, key, zeros, length, motion, mask, train=False)
        return {"params": params, "constants": self.device_constants()}

    def vectors(
        self,
        variables: Params,
        features: AudioFeatures,
        length: Array,
        motion: Array,
        mask: Array,
        streams: dict[str, Array],
    ) -> dict[str, Array]:
        """Returns {"heard", "seen"}; see `SyncModel.vectors`."""
        own = {name: variables[name] for name in ("params", "constants")}
        train = bool(streams)
        out: Any = self.network.apply(
            own, features, length, motion, mask, train=train, rngs=streams or None
        )
        return dict(out)


class _InverseNetwork(nn.Module):
    config: SyncnetInverseConfig
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, motion: Array, mask: Array, *, train: bool) -> Array:
        return MotionBranch(self.config, self.size, self.dtype, name="motion")(
            motion, mask, train=train
        )


class SyncnetInverse(SyncModel):
    """The inverse expert: the speech features that motion suggests, against those heard.

    The idea of THUNDER (arXiv 2504.13386). Log-mel is split into the shape of the spectrum and its
    loudness, so that an envelope alone explains little. Frames of the audio are compared as they
    are: `model.audio_reach` only says which frames count.

    Example:
        >>> from a2fjax.configuration import AudioConfig, SyncnetInverseConfig
        >>> model = SyncnetInverse(SyncnetInverseConfig(width=8, layers=1), AudioConfig())
        >>> batch = Batch.zeros(size=2, frames=50, points=0)
        >>> variables = model.init(jax.random.key(0), batch)
        >>> model.apply(variables, batch)["heard"].shape
        (2, 50, 41)
    """

    similarity = "agreement"
    config: SyncnetInverseConfig

    def __init__(self, config: SyncnetInverseConfig, audio: AudioConfig, **options: Any) -> None:
        """Creates the model; options as in `SyncModel`.

        Raises:
          InputError: `audio.features` has signals other than log-mel.
        """
        super().__init__(config, audio, **options)
        signals = self.audio_features.frontend.signals
        if set(signals) - {"mel"}:
            raise InputError(
                f"audio.features={audio.features!r}: the inverse expert predicts mel and encoders' "
                "states; leave out the others"
            )
        self.size = (mel.BINS // 2 + 1) * ("mel" in signals)
        self.size += sum(encoder.width for encoder in self.audio_features.encoders.values())
        self.network = _InverseNetwork(config, self.size, self.dtype)

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns {"params": ..., "constants": ...}; see `a2fjax.models.base.Model`."""
        rows, frames = batch.frame_mask.shape
        size = len(channels.CHANNELS)
        motion, mask = jnp.zeros((rows, frames, size)), jnp.ones((rows, size), bool)
        params = self.draw_params(self.network, key, motion, mask, train=False)
        return {"params": params, "constants": self.device_constants()}

    def targets(self, variables: Params, features: AudioFeatures) -> Array:
        """Returns the speech features [B, T, D], each of about unit deviation on speech."""
        parts = []
        if features.signals.shape[-1]:
            bands = features.signals.reshape(*features.signals.shape[:2], -1, 2).mean(-1)
            loudness = bands.mean(-1, keepdims=True)
            parts += [bands - loudness, self.config.loudness * loudness]
        for key, states in features.hidden_states.items():
            constants = variables["constants"]
            scaled = (states - constants[f"{key}_mean"]) / constants[f"{key}_std"]
            parts.append(jnp.clip(scaled, -channels.LIMIT, channels.LIMIT).mean(2))
        return jnp.concatenate(parts, axis=-1)

    def vectors(
        self,
        variables: Params,
        features: AudioFeatures,
        length: Array,
        motion: Array,
        mask: Array,
        streams: dict[str, Array],
    ) -> dict[str, Array]:
        """Returns {"heard", "seen"}; see `SyncModel.vectors`."""
        del length
        own = {name: variables[name] for name in ("params", "constants")}
        train = bool(streams)
        seen: Any = self.network.apply(own, motion, mask, train=train, rngs=streams or None)
        return {"heard": self.targets(variables, features), "seen": seen}
