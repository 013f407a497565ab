"""The diffusion model's networks: `ConditionEncoder` (once per clip), `UNet` (once per step).

The U-Net operates over time; each level has half the frame rate of the previous one. Levels are
connected by folding two frames into one and back, which preserves the position of frames in the
clip. All norms are over channels, never over time, and attention has a limited reach, so a frame
depends only on its neighbourhood, regardless of the length of the surrounding clip or chunk.

Sources: Ho et al. 2020 (U-Net with steps), Rombach et al. 2022, "High-Resolution Image Synthesis
with Latent Diffusion Models" (cross-attention in each level), Perez et al. 2018 (FiLM).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.configuration import DiffusionConfig, EncoderConfig, UNetConfig
from a2fjax.models import conditioning
from a2fjax.models.attention import Attention, keys_and_values
from a2fjax.models.backbone import Backbone, channel_dropout
from a2fjax.models.feature_fusion import AudioFeatures

STEP_WIDTH = 128
"""Width of the embedding of the noise level."""

FREQUENCIES = np.exp2(np.linspace(-1.0, 5.0, 16))
"""Of the sines and cosines in the embedding of the noise level, in half turns."""

SNR_RANGE = 8.0
"""Largest |log(alpha / sigma)| that the embedding tells apart."""

LEAST_SHARE = 1e-6
"""Smaller shares of signal or noise count as this."""

Conditions = dict[str, Any]
"""Inputs of the U-Net that are constant over the steps.

"coarse_prediction" [B, T, 72], "audio" [B, T, A], "valid" [B, T] bool, "identity" [B, D] if used,
"emotion" a list of [B, T / 2^l, E] by level, "sources" with keys and values by attention name.
T is a multiple of `stride`.
"""


def stride(widths: Sequence[int]) -> int:
    """Returns the number of frames per frame of the lowest level.

    Example:
        >>> stride((96, 128, 192))
        4
    """
    return int(2 ** (len(widths) - 1))


def padded(x: Array, multiple: int) -> Array:
    """Pads x [B, T, ...] with zeros to a multiple of `multiple` frames."""
    more = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)))


def fold(x: Array) -> Array:
    """Reshapes x [B, T, C] to [B, T / 2, 2 C], with pairs of frames side by side."""
    return x.reshape(x.shape[0], x.shape[1] // 2, 2 * x.shape[2])


def unfold(x: Array) -> Array:
    """Reshapes x [B, T, C] to [B, 2 T, C / 2], the inverse of `fold`."""
    return x.reshape(x.shape[0], 2 * x.shape[1], x.shape[2] // 2)


def valid_by_level(valid: Array, levels: int) -> list[Array]:
    """Returns masks [B, T / 2^l] bool per level: folded frames with at least one valid frame."""
    out = [valid]
    for _ in range(levels - 1):
        out.append(jnp.any(fold(out[-1][..., None]), axis=-1))
    return out


def pooled(x: Array, valid: Array) -> Array:
    """Averages the valid frames in pairs of x [B, T, C] to [B, T / 2, C]."""
    pairs = x.reshape(x.shape[0], -1, 2, x.shape[-1])
    weight = valid.reshape(valid.shape[0], -1, 2, 1).astype(x.dtype)
    return jnp.sum(pairs * weight, axis=2) / jnp.maximum(jnp.sum(weight, axis=2), 1.0)


def attentions(widths: Sequence[int], blocks: int) -> list[tuple[str, int]]:
    """Returns (name, level) of each attention layer over the audio."""
    return [(f"down_{i}_{b}", i) for i in range(len(widths)) for b in range(blocks)]


def assembled(
    config: UNetConfig,
    coarse: Array,
    audio: Array,
    valid: Array,
    emotion: Array,
    identity: Sequence[Array],
    project: Callable[[str, int, Array], tuple[Array, Array]],
) -> Conditions:
    """Returns the inputs of the U-Net; T is a multiple of `stride`.

    Args:
      config: of the U-Net.
      coarse: [B, T, 72], coarse prediction.
      audio: [B, T, A], zero where not valid.
      valid: [B, T] bool.
      emotion: [B, T, E], embedding.
      identity: its embedding [B, D], or nothing.
      project: (name of an attention layer, level, audio of the level) -> keys and values.
    """
    valid_at = valid_by_level(valid, len(config.widths))
    emotion_at, audio_at = [emotion], [audio]
    for level in range(len(config.widths) - 1):
        emotion_at.append(pooled(emotion_at[level], valid_at[level]))
        audio_at.append(pooled(audio_at[level], valid_at[level]))
    sources = {
        name: project(name, level, audio_at[level])
        for name, level in attentions(config.widths, config.blocks)
    }
    out: Conditions = {
        "coarse_prediction": coarse, "audio": audio, "valid": valid, "emotion": emotion_at,
    }  # fmt: skip
    if identity:
        out["identity"] = identity[0]
    return {**out, "sources": sources}


class ConditionEncoder(nn.Module):
    """Computes everything that is constant over the steps; uses the collection "constants".

    Attributes:
      config: configuration of the model.
      fusion: fusion of encoders' hidden states.
      dtype: dtype of activations.
    """

    config: DiffusionConfig
    fusion: EncoderConfig = EncoderConfig()
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        features: AudioFeatures,
        batch: Batch,
        audio_dropped: Array | None = None,
        *,
        train: bool = False,
    ) -> Conditions:
        """Returns the conditions of the U-Net.

        Args:
          features: audio features of the batch.
          batch: uses length, identity, identity_mask, emotion and subject.
          audio_dropped: [B] bool, items whose audio is hidden from coarse prediction and features.
          train: enables dropout and noise.
        """
        unet = self.config.unet
        backbone = Backbone(self.config, self.fusion, self.dtype, name="backbone")
        x, embeddings = backbone(features, batch, self.variables["constants"], train=train)
        coarse = nn.Dense(rig.NUM_CHANNELS, name="coarse_prediction")(x).swapaxes(0, 1)
        coarse = conditioning.FiLM(name="coarse_prediction_film")(coarse, embeddings)
        audio = nn.LayerNorm(dtype=self.dtype, name="norm")(x.swapaxes(0, 1))
        no_audio = self.param("audio_dropped", nn.initializers.zeros_init(), audio.shape[-1:])
        if audio_dropped is not None:
            dropped = audio_dropped[:, None, None]
            coarse = jnp.where(dropped, 0.0, coarse)
            audio = jnp.where(dropped, no_audio.astype(audio.dtype), audio)

        multiple = stride(unet.widths)
        frames = jnp.arange(features.signals.shape[1])
        valid = padded(frames < batch.length[:, None], multiple)
        audio, coarse = (
            jnp.where(valid[..., None], padded(each, multiple), 0.0) for each in (audio, coarse)
        )
        *identity, emotion = embeddings

        def project(name: str, level: int, x: Array) -> tuple[Array, Array]:
            return keys_and_values(x, unet.widths[level], unet.heads, self.dtype, name)

        return assembled(unet, coarse, audio, valid, padded(emotion, multiple), identity, project)


class ResidualBlock(nn.Module):
    """Two convolutions of three frames with FiLM between them, and a skip connection.

    Attributes:
      width: number of output channels.
      dropout: share of channels dropped before the second convolution.
      train: enables dropout.
      dtype: dtype of activations.
    """

    width: int
    dropout: float = 0.0
    train: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, valid: Array, conditions: Sequence[Array]) -> Array:
        """Returns [B, T, width].

        Args:
          x: [B, T, C].
          valid: [B, T] bool; other frames are zeros in convolutions.
          conditions: each [B, D] or [B, T, D].
        """
        mask = valid[..., None].astype(self.dtype)
        h = nn.silu(nn.LayerNorm(dtype=self.dtype, name="norm_0")(x)) * mask
        h = nn.Conv(self.width, (3,), dtype=self.dtype, name="conv_0")(h)
        h = nn.LayerNorm(dtype=self.dtype, name="norm_1")(h)
        h = conditioning.FiLM(name="film")(h, conditions, self.dtype)
        h = channel_dropout(self.dropout, self.train)(nn.silu(h))
        zero = nn.initializers.zeros_init()
        conv_1 = nn.Conv(self.width, (3,), dtype=self.dtype, kernel_init=zero, name="conv_1")
        if x.shape[-1] != self.width:
            x = nn.Dense(self.width, dtype=self.dtype, name="skip")(x)
        return x + conv_1(h * mask)


class UNet(nn.Module):
    """One denoising step: corrects the best guess from coarse prediction and noisy motion.

    Attributes:
      config: configuration of the model.
      dtype: dtype of activations; the output is float32.
    """

    config: DiffusionConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Array,
        alpha: Array,
        sigma: Array,
        conditions: Conditions,
        *,
        train: bool = False,
    ) -> Array:
        """Returns [B, T, 72] in the units of the target.

        Args:
          x: [B, T, 72], noisy motion.
          alpha: [B], share of the clean motion.
          sigma: [B], share of the noise.
          conditions: result of `ConditionEncoder`.
          train: enables dropout.
        """
        unet, dtype = self.config.unet, self.dtype
        block_class = nn.remat(ResidualBlock) if unet.remat else ResidualBlock
        levels = range(len(unet.widths))
        valid = valid_by_level(conditions["valid"], len(unet.widths))
        step = nn.Dense(STEP_WIDTH, name="step_0")(level_embedding(alpha, sigma))
        step = nn.silu(nn.Dense(STEP_WIDTH, name="step_1")(nn.silu(step)))
        identity = [conditions["identity"]] if "identity" in conditions else []

        def block(h: Array, level: int, name: str) -> Array:
            layer = block_class(unet.widths[level], unet.dropout, train, dtype, name=name)
            return layer(h, valid[level], [step, *identity, conditions["emotion"][level]])

        def attend(h: Array, level: int, name: str, source: Any = None) -> Array:
            # Distance is not penalised among motion frames; attention to audio should stay near.
            reach = unet.window if source is None else unet.reach / 2**level
            return Attention(unet.heads, unet.window, reach, dtype, name=name)(
                h, valid[level], source
            )

        length = x.shape[1]
        x = padded(x, stride(unet.widths))
        h = jnp.concatenate([x, conditions["coarse_prediction"], conditions["audio"]], axis=-1)
        h = nn.Dense(unet.widths[0], dtype=dtype, name="input")(h.astype(dtype))
        skips = []
        for level in levels:
            for b in range(unet.blocks):
                name = f"down_{level}_{b}"
                h = block(h, level, f"{name}_block")
                if level:
                    h = attend(h, level, f"{name}_self")
                h = attend(h, level, f"{name}_audio", conditions["sources"][name])
            if level < levels[-1]:
                skips.append(h)
                h = fold(h * valid[level][..., None].astype(dtype))
                h = nn.Dense(unet.widths[level + 1], dtype=dtype, name=f"fold_{level}")(h)
        h = block(h, levels[-1], "middle_block")
        for level in reversed(levels[:-1]):
            h = unfold(nn.Dense(2 * unet.widths[level], dtype=dtype, name=f"unfold_{level}")(h))
            h = block(jnp.concatenate([h, skips[level]], axis=-1), level, f"up_{level}_block")
            if level:
                h = attend(h, level, f"up_{level}_self")
        h = nn.silu(nn.LayerNorm(name="norm")(h))
        # Initialised to zero, so that the initial output is the best guess itself.
        zero = nn.initializers.zeros_init()
        return nn.Dense(rig.NUM_CHANNELS, kernel_init=zero, name="output")(h)[:, :length]


def level_embedding(alpha: Array, sigma: Array) -> Array:
    """Returns log(alpha / sigma), clipped to ±8, with its sines and cosines [B, 2 F + 1]."""
    signal, noise = (jnp.log(jnp.maximum(share, LEAST_SHARE)) for share in (alpha, sigma))
    size = jnp.clip(signal - noise, -SNR_RANGE, SNR_RANGE) / SNR_RANGE
    angles = size[:, None] * jnp.asarray(jnp.pi * FREQUENCIES, jnp.float32)
    return jnp.concatenate([size[:, None], jnp.sin(angles), jnp.cos(angles)], axis=-1)
