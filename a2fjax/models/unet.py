"""Model v3.0: what is heard (`Listener`, once a clip), and denoising (`UNet`, once a step).

The U-Net runs over time: each level has half the rate of the one before. Levels are joined by
folding two frames into one and back, so a frame always stands at the same place of a clip. All
norms are over channels, never over time, and attention has a limited reach: what a frame becomes
depends on its neighbourhood alone, whatever the length of the clip or chunk around it.

Sources: Ho et al. 2020 (U-Net with steps), Rombach et al. 2022, "High-Resolution Image Synthesis
with Latent Diffusion Models" (cross-attention in each level), Perez et al. 2018 (FiLM).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.config import AudioConfig, DiffusionConfig
from a2fjax.models import conditioning
from a2fjax.models.attention import Attention, keys_and_values
from a2fjax.models.backbone import backbone, drop_channels

STEP_WIDTH = 128
"""Of the embedding of the noise level."""

_FREQUENCIES = 16
_SNR_RANGE = 8.0

Conditions = dict[str, Any]
"""Inputs of the U-Net that stay the same from step to step: "coarse_prediction" [B, T, 72],
"audio" [B, T, A], "valid" [B, T] bool, "identity" [B, D] where there is one, "emotion" a list of
[B, T / 2^l, E] by level, "sources" of keys and values by name of the attention.

T is a multiple of `stride`."""


def stride(widths: Sequence[int]) -> int:
    """Returns the frames that become one at the lowest level."""
    return int(2 ** (len(widths) - 1))


def padded(x: Array, multiple: int) -> Array:
    """Returns x [B, T, ...] with zeros behind it to a multiple of frames."""
    more = -x.shape[1] % multiple
    return jnp.pad(x, ((0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)))


def fold(x: Array) -> Array:
    """Returns [B, T / 2, 2 C] of x [B, T, C]: two frames beside each other."""
    return x.reshape(x.shape[0], x.shape[1] // 2, 2 * x.shape[2])


def unfold(x: Array) -> Array:
    """Returns [B, 2 T, C / 2] of x [B, T, C], what `fold` was given."""
    return x.reshape(x.shape[0], 2 * x.shape[1], x.shape[2] // 2)


def valid_by_level(valid: Array, levels: int) -> list[Array]:
    """Returns [B, T / 2^l] bool by level: frames of which any part exists."""
    out = [valid]
    for _ in range(levels - 1):
        out.append(jnp.any(fold(out[-1][..., None]), axis=-1))
    return out


def pooled(x: Array, valid: Array) -> Array:
    """Returns [B, T / 2, C]: means of pairs of frames of x [B, T, C], of those that exist."""
    pairs = x.reshape(x.shape[0], -1, 2, x.shape[-1])
    weight = valid.reshape(valid.shape[0], -1, 2, 1).astype(x.dtype)
    return jnp.sum(pairs * weight, axis=2) / jnp.maximum(jnp.sum(weight, axis=2), 1.0)


def attentions(widths: Sequence[int], blocks: int) -> list[tuple[str, int]]:
    """Returns the names of the attentions to audio with their levels."""
    return [(f"down_{i}_{b}", i) for i in range(len(widths)) for b in range(blocks)]


class ConditionEncoder(nn.Module):
    """All of a clip that does not change from step to step; see `Heard`.

    Attributes:
      config: of the model.
      audio: how encoders are heard.
      dtype: of activations.
    """

    config: DiffusionConfig
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
        audio_dropped: Array | None = None,
    ) -> Conditions:
        """Returns what is heard; arguments as `regression.Network`.

        Args:
          features: [B, T, F], signals.
          silence: [F].
          batch: length, identity, identity_mask, emotion and, for the residual, subject are read.
          constants: of the model.
          key: of dropout and noise; None when not training.
          states: of encoders by key.
          audio_dropped: [B] bool, items whose audio reaches neither prediction nor features.
        """
        own = self.config.unet
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
        draft = nn.Dense(rig.NUM_CHANNELS, name="coarse_prediction")(x).swapaxes(0, 1)
        draft = conditioning.FiLM(name="coarse_prediction_film")(draft, conditions)
        audio = nn.LayerNorm(dtype=self.dtype, name="norm")(x.swapaxes(0, 1))
        nothing = self.param("audio_dropped", nn.initializers.zeros_init(), audio.shape[-1:])
        if audio_dropped is not None:
            draft = jnp.where(audio_dropped[:, None, None], 0.0, draft)
            audio = jnp.where(audio_dropped[:, None, None], nothing.astype(audio.dtype), audio)

        step = stride(own.widths)
        valid = padded(jnp.arange(features.shape[1]) < batch.length[:, None], step)
        audio, draft = (
            jnp.where(valid[..., None], padded(each, step), 0.0) for each in (audio, draft)
        )
        *identity, emotion = conditions
        by_level = valid_by_level(valid, len(own.widths))
        told, heard = [padded(emotion, step)], [audio]
        for level in range(len(own.widths) - 1):
            told.append(pooled(told[level], by_level[level]))
            heard.append(pooled(heard[level], by_level[level]))
        sources = {
            name: keys_and_values(heard[level], own.widths[level], own.heads, self.dtype, name)
            for name, level in attentions(own.widths, own.blocks)
        }
        out: Conditions = {
            "coarse_prediction": draft,
            "audio": audio,
            "valid": valid,
            "emotion": told,
        }
        if identity:
            out["identity"] = identity[0]
        return {**out, "sources": sources}


class ResidualBlock(nn.Module):
    """Two convolutions of three frames with modulation between them, and a way around.

    Attributes:
      width: of what comes out.
      dropout: share of channels dropped before the second convolution.
      dtype: of activations.
    """

    width: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, valid: Array, conditions: Sequence[Array], key: Array | None = None
    ) -> Array:
        """Returns [B, T, width] of x [B, T, C].

        Args:
          x: [B, T, C].
          valid: [B, T] bool; convolutions see zeros elsewhere.
          conditions: [B, D] or [B, T, D] each.
          key: of dropout; None when not training.
        """
        exists = valid[..., None].astype(self.dtype)
        h = nn.silu(nn.LayerNorm(dtype=self.dtype, name="norm_0")(x)) * exists
        h = nn.Conv(self.width, (3,), dtype=self.dtype, name="conv_0")(h)
        h = nn.LayerNorm(dtype=self.dtype, name="norm_1")(h)
        h = conditioning.FiLM(name="film")(h, conditions, self.dtype)
        h = nn.silu(h)
        if key is not None and self.dropout > 0:
            h = drop_channels(key, h, self.dropout)
        h = nn.Conv(
            self.width,
            (3,),
            dtype=self.dtype,
            kernel_init=nn.initializers.zeros_init(),
            name="conv_1",
        )(h * exists)
        if x.shape[-1] != self.width:
            x = nn.Dense(self.width, dtype=self.dtype, name="around")(x)
        return x + h


class UNet(nn.Module):
    """One step of denoising: what is to be added to the best guess from draft and noise.

    Attributes:
      config: of the model.
      dtype: of activations; what comes out is float32.
    """

    config: DiffusionConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, alpha: Array, sigma: Array, heard: Conditions, key: Array | None = None
    ) -> Array:
        """Returns [B, T, 72], in the unit of the target.

        Args:
          x: [B, T, 72], noisy.
          alpha: [B], share of the clean motion.
          sigma: [B], of the noise.
          heard: see `Heard`.
          key: of dropout; None when not training.
        """
        own, dtype = self.config.unet, self.dtype
        block_kind = nn.remat(ResidualBlock) if own.remat else ResidualBlock
        levels = range(len(own.widths))
        valid = valid_by_level(heard["valid"], len(own.widths))
        step = nn.Dense(STEP_WIDTH, name="step_0")(level_embedding(alpha, sigma))
        step = nn.silu(nn.Dense(STEP_WIDTH, name="step_1")(nn.silu(step)))
        identity = [heard["identity"]] if "identity" in heard else []
        drawn = 0

        def block(h: Array, level: int, name: str) -> Array:
            nonlocal drawn
            drawn += 1
            return block_kind(own.widths[level], own.dropout, dtype, name=name)(
                h,
                valid[level],
                [step, *identity, heard["emotion"][level]],
                None if key is None else jax.random.fold_in(key, drawn),
            )

        def attend(h: Array, level: int, name: str, source: Any = None) -> Array:
            # Among itself any frame of the window is as good as another; audio is to be near.
            reach = own.window if source is None else own.reach / 2**level
            return Attention(own.heads, own.window, reach, dtype, name=name)(
                h, valid[level], source
            )

        length = x.shape[1]
        x = padded(x, stride(own.widths))
        h = jnp.concatenate([x, heard["coarse_prediction"], heard["audio"]], axis=-1).astype(dtype)
        h = nn.Dense(own.widths[0], dtype=dtype, name="enter")(h)
        skips = []
        for level in levels:
            for b in range(own.blocks):
                name = f"down_{level}_{b}"
                h = block(h, level, f"{name}_block")
                if level:
                    h = attend(h, level, f"{name}_self")
                h = attend(h, level, f"{name}_audio", heard["sources"][name])
            if level < levels[-1]:
                skips.append(h)
                h = fold(h * valid[level][..., None].astype(dtype))
                h = nn.Dense(own.widths[level + 1], dtype=dtype, name=f"fold_{level}")(h)
        h = block(h, levels[-1], "middle_block")
        for level in reversed(levels[:-1]):
            h = unfold(nn.Dense(2 * own.widths[level], dtype=dtype, name=f"unfold_{level}")(h))
            h = block(jnp.concatenate([h, skips[level]], axis=-1), level, f"up_{level}_block")
            if level:
                h = attend(h, level, f"up_{level}_self")
        h = nn.silu(nn.LayerNorm(name="norm")(h))
        # Nothing at the start: the first guess is the draft and the noise seen.
        out = nn.Dense(rig.NUM_CHANNELS, kernel_init=nn.initializers.zeros_init(), name="leave")(h)
        return out[:, :length]


def level_embedding(alpha: Array, sigma: Array) -> Array:
    """Returns sines and cosines [B, 2 F + 1] of log(alpha / sigma), limited to +-8, with it."""
    tiny = 1e-6
    size = jnp.log(jnp.maximum(alpha, tiny)) - jnp.log(jnp.maximum(sigma, tiny))
    size = jnp.clip(size, -_SNR_RANGE, _SNR_RANGE) / _SNR_RANGE
    angles = size[:, None] * jnp.pi * jnp.exp2(jnp.linspace(-1.0, 5.0, _FREQUENCIES))
    return jnp.concatenate([size[:, None], jnp.sin(angles), jnp.cos(angles)], axis=-1)
