"""Backbone of both model families: maps audio features and conditions to frame vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import BackboneConfig, EncoderConfig
from a2fjax.models import conditioning
from a2fjax.models.condition_embeddings import embed_conditions
from a2fjax.models.feature_fusion import AudioFeatures, FeatureFusion
from a2fjax.models.gru import GRU, BidirectionalGRU


def frames_per_layer(frames: int, layers: int) -> list[int]:
    """Distributes context `frames` over the layers; earlier layers get the remainder.

    Example:
        >>> frames_per_layer(5, 3)
        [2, 2, 1]
    """
    return [frames // layers + (i < frames % layers) for i in range(layers)]


class Backbone(nn.Module):
    """Convolutions with a configured context, FiLM by identity and emotion, and a GRU.

    Attributes:
      config: sizes, conditions and dropout.
      fusion: fusion of encoders' hidden states; used only with encoders.
      dtype: dtype of activations.
    """

    config: BackboneConfig
    fusion: EncoderConfig = EncoderConfig()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: AudioFeatures,
        batch: Batch,
        constants: Mapping[str, Array],
        *,
        train: bool = False,
    ) -> tuple[Array, list[Array]]:
        """Returns frame vectors and condition embeddings.

        Args:
          features: audio features of the batch.
          batch: uses length, identity, identity_mask, emotion and subject.
          constants: constants of the model; see `regression.default_constants`.
          train: enables dropout and noise.

        Returns:
          [T, B, W], time-major, and the embeddings of the conditions: identity [B, D] if the model
          uses it, then emotion [B, T, D].
        """
        config, dtype = self.config, self.dtype
        conditions = embed_conditions(config, batch, constants, train)

        # Frames outside a clip are silent within the reach of the convolutions. The layers in
        # between then need no mask, and padding, chunk edges and stream starts are equivalent.
        valid = (jnp.arange(features.signals.shape[1]) < batch.length[:, None])[..., None]
        x, silence = features.signals, features.silence
        if features.hidden_states:
            fusion = FeatureFusion(self.fusion, name="feature_fusion")
            x, silence = fusion(features, valid, constants, train=train)
        x = jnp.where(valid, x, silence) - silence
        x = jnp.pad(x, ((0, 0), (config.past_frames, config.future_frames), (0, 0))) + silence
        x = x.astype(dtype)
        past = frames_per_layer(config.past_frames, config.conv_layers)
        future = frames_per_layer(config.future_frames, config.conv_layers)
        for i in range(config.conv_layers):
            kernel = (past[i] + 1 + future[i],)
            conv = nn.Conv(
                config.conv_width, kernel, padding="VALID", dtype=dtype, name=f"conv_{i}"
            )
            x = nn.gelu(nn.LayerNorm(dtype=dtype, name=f"norm_{i}")(conv(x)))
            x = channel_dropout(config.dropout, train)(x)
        x = conditioning.FiLM(name="film")(x, conditions, dtype)

        # Time-major from here, so that the recurrence reads contiguous frames.
        x = x.swapaxes(0, 1)
        if config.recurrent == "bidirectional":
            x = BidirectionalGRU(config.recurrent_width, dtype, name="gru")(x, batch.length)
        else:
            x = GRU(config.recurrent_width, dtype=dtype, name="gru")(x, batch.length)
        return x, conditions


def channel_dropout(rate: float, train: bool) -> nn.Dropout:
    """Returns a dropout layer for whole channels of [B, T, C] (Tompson et al. 2015).

    With spatial dropout the network cannot recover dropped values from neighbouring, redundant
    frames; and one random number per channel costs less than one per value.
    """
    return nn.Dropout(rate, broadcast_dims=(1,), deterministic=not train)
