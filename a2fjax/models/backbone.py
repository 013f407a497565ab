"""From signals, encoders' states and conditions to one vector a frame: what both families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.batch import Batch
from a2fjax.config import AudioConfig, BackboneConfig
from a2fjax.models import conditioning
from a2fjax.models.feature_fusion import FeatureFusion
from a2fjax.models.gru import GRU, BidirectionalGRU


def frames_per_layer(frames: int, layers: int) -> list[int]:
    """Shares a reach in frames over the layers, the first ones taking what is left over."""
    return [frames // layers + (i < frames % layers) for i in range(layers)]


def backbone(
    config: BackboneConfig,
    audio: AudioConfig,
    features: Array,
    silence: Array,
    batch: Batch,
    constants: Mapping[str, Array],
    key: Array | None,
    states: Mapping[str, Array] | None,
    *,
    dtype: Any,
) -> tuple[Array, list[Array]]:
    """Convolutions of a stated reach, modulation by identity and emotion, recurrence.

    To be called inside a compact method: its layers are the calling module's.

    Args:
      config: of the model.
      audio: how encoders are heard.
      features: [B, T, F], signals.
      silence: [F], signals of a frame of silence, which stands before and after each clip.
      batch: length, identity, identity_mask, emotion and, for the residual, subject are read.
      constants: of the model, with the statistics of the states.
      key: of dropout and noise; None when not training.
      states: of encoders by key, [B, T, S, D].
      dtype: of activations.

    Returns:
      [T, B, W], time-major, and the embeddings of the conditions: of the identity [B, D], where
      there is one, and of the emotion [B, T, D].
    """
    keys: list[Array | None] = [None] * (config.conv_layers + 1)
    if key is not None:
        keys = list(jax.random.split(key, config.conv_layers + 1))
    conditions = []
    if config.identity == "mesh":
        encoder = conditioning.IdentityEncoder(config.identity_width, name="identity")
        conditions.append(
            encoder(
                batch.identity,
                batch.identity_mask,
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
        own = conditioning.IdentityResidual(people, config.identity_width, name="identity_residual")
        vector = own(batch.subject, key=for_residual, dropout=config.residual_dropout)
        conditions = [conditions[0] + vector] if conditions else [vector]
    told = batch.emotion
    if for_emotion is not None and config.emotion_dropout > 0:
        told = conditioning.drop_emotion(for_emotion, told, config.emotion_dropout)
    emotion = conditioning.EmotionEncoder(config.emotion_width, name="emotion")
    conditions.append(emotion(told))

    # Outside its clip a frame hears silence, as many frames as the convolutions reach. Then
    # nothing between them needs a mask, and padding, a chunk's edge and the start of a stream
    # are all the same thing.
    valid = (jnp.arange(features.shape[1]) < batch.length[:, None])[..., None]
    if states:
        # Beyond the numbers of `keys`, of which these would otherwise be copies.
        for_mix = None if key is None else jax.random.fold_in(key, config.conv_layers + 1)
        mix = FeatureFusion(audio.encoder, name="feature_fusion")
        features, silence = mix(features, silence, states, valid, constants, for_mix)
    x = jnp.where(valid, features, silence) - silence
    x = jnp.pad(x, ((0, 0), (config.past_frames, config.future_frames), (0, 0))) + silence
    x = x.astype(dtype)
    past = frames_per_layer(config.past_frames, config.conv_layers)
    future = frames_per_layer(config.future_frames, config.conv_layers)
    for i in range(config.conv_layers):
        x = nn.Conv(
            config.conv_width,
            (past[i] + 1 + future[i],),
            padding="VALID",
            dtype=dtype,
            name=f"conv_{i}",
        )(x)
        x = nn.gelu(nn.LayerNorm(dtype=dtype, name=f"norm_{i}")(x))
        for_dropout = keys[i + 1]
        if for_dropout is not None and config.dropout > 0:
            x = drop_channels(for_dropout, x, config.dropout)
    x = conditioning.FiLM(name="film")(x, conditions, dtype)

    # Time-major from here: the recurrence then reads contiguous frames.
    x = x.swapaxes(0, 1)
    if config.recurrent == "bidirectional":
        x = BidirectionalGRU(config.recurrent_width, dtype, name="gru")(x, batch.length)
    else:
        x = GRU(config.recurrent_width, dtype=dtype, name="gru")(x, batch.length)
    return x, conditions


def drop_channels(key: Array, x: Array, rate: float) -> Array:
    """Drops whole channels of an item (spatial dropout, Tompson et al. 2015).

    Neighbouring frames say the same, so dropping single values would be read around; and it
    needs one random number a channel rather than one a value.
    """
    keep = jax.random.bernoulli(key, 1.0 - rate, (x.shape[0], 1, x.shape[-1]))
    return x * (keep / (1.0 - rate)).astype(x.dtype)
