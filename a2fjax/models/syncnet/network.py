"""The two branches of a sync expert: audio features and channels to frame vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from a2fjax.configuration import EncoderConfig, SyncConfig
from a2fjax.models.backbone import channel_dropout, frames_per_layer
from a2fjax.models.feature_fusion import AudioFeatures, FeatureFusion


class Branch(nn.Module):
    """Convolutions that together see `reach` frames on both sides, and a linear map.

    Attributes:
      config: width, layers and dropout.
      reach: frames seen before and after a frame.
      size: values of a frame's vector.
      dtype: dtype of activations.
    """

    config: SyncConfig
    reach: int
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False) -> Array:
        """Maps [B, T + 2 reach, F] to [B, T, size] float32."""
        config = self.config
        x = x.astype(self.dtype)
        for i, frames in enumerate(frames_per_layer(self.reach, config.layers)):
            conv = nn.Conv(
                config.width, (2 * frames + 1,), padding="VALID", dtype=self.dtype, name=f"conv_{i}"
            )
            x = nn.gelu(nn.LayerNorm(dtype=self.dtype, name=f"norm_{i}")(conv(x)))
            x = channel_dropout(config.dropout, train)(x)
        return nn.Dense(self.size, name="vector")(x.astype(jnp.float32))


class AudioBranch(nn.Module):
    """Audio features to frame vectors; before and after the audio is silence.

    Attributes:
      config: reach, width, layers and dropout.
      fusion: fusion of encoders' hidden states; used only with encoders.
      size: values of a frame's vector.
      dtype: dtype of activations.
    """

    config: SyncConfig
    fusion: EncoderConfig
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: AudioFeatures,
        valid: Array,
        constants: Mapping[str, Array],
        *,
        train: bool = False,
    ) -> Array:
        """Returns [B, T, size]; `valid` [B, T] are the frames inside the audio."""
        reach = self.config.audio_reach
        x, silence = features.signals, features.silence
        if features.hidden_states:
            fusion = FeatureFusion(self.fusion, name="feature_fusion")
            x, silence = fusion(features, valid[..., None], constants, train=train)
        x = jnp.where(valid[..., None], x, silence) - silence
        x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0))) + silence
        return Branch(self.config, reach, self.size, self.dtype, name="branch")(x, train=train)


class MotionBranch(nn.Module):
    """Standardised channels and their differences to frame vectors.

    Attributes:
      config: reach, width, layers and dropout.
      size: values of a frame's vector.
      dtype: dtype of activations.
    """

    config: SyncConfig
    size: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, motion: Array, mask: Array, *, train: bool = False) -> Array:
        """Returns [B, T, size]; frames nearer than the reach to an end have no meaning.

        Args:
          motion: [B, T, C] in deviations, anything where masked.
          mask: [B, C] bool, channels to look at.
          train: enables dropout.
        """
        motion = jnp.where(mask[:, None], motion, 0.0)
        change = 0.5 * (motion[:, 2:] - motion[:, :-2])
        change = jnp.pad(change, ((0, 0), (1, 1), (0, 0)))
        known = jnp.broadcast_to(mask[:, None].astype(motion.dtype), motion.shape)
        # A difference is a third of the value's size at the rate of syllables.
        x = jnp.concatenate([motion, 3.0 * change, known], axis=-1)
        reach = self.config.motion_reach - 1  # The differences see one frame on both sides.
        x = jnp.pad(x, ((0, 0), (reach, reach), (0, 0)))
        return Branch(self.config, reach, self.size, self.dtype, name="branch")(x, train=train)
