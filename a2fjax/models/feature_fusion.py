"""Fusion of acoustic signals and encoders' hidden states into one vector per frame.

Learned mix of layers: Peters et al. 2018, "Deep contextualized word representations"; for speech
encoders Yang et al. 2021, "SUPERB". Time masks: Park et al. 2019, "SpecAugment".
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.configuration import EncoderConfig
from a2fjax.encoders.wav2vec2.masking import sample_mask_spans

_LIMIT = 10.0  # Standard deviations; some of Whisper's units far exceed it on single frames.


class AudioFeatures(flax.struct.PyTreeNode):
    """Audio features of a batch.

    Attributes:
      signals: [B, T, F] float32 acoustic signals; F may be 0.
      silence: [F] float32 signals of a silent frame, used before and after each clip.
      hidden_states: [B, T, S, D] float32 by encoder key.
    """

    signals: Array
    silence: Array
    hidden_states: Mapping[str, Array]


class FeatureFusion(nn.Module):
    """Projects acoustic signals and hidden states to one vector per frame.

    Each encoder: standardisation by constants → learned mix of its hidden states → linear. Signals:
    linear. The projections are concatenated. Frames outside a clip use the signals of silence and a
    learned vector per encoder.

    Attributes:
      config: widths and regularisation.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        features: AudioFeatures,
        valid: Array,
        constants: Mapping[str, Array],
        *,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Returns the fused features [B, T, W] and the features [W] of a frame outside its clip.

        Args:
          features: acoustic signals and hidden states.
          valid: [B, T, 1] bool, frames inside their clip.
          constants: "<key>_mean" and "<key>_std" [S, D] of each encoder's hidden states.
          train: adds noise, masks and dropout from the streams "noise" and "dropout".
        """
        config = self.config
        projections: list[Array] = []
        fillers: list[Array] = []
        if features.signals.shape[-1]:
            linear = nn.Dense(config.width, name="signals")
            projections.append(linear(features.signals))
            fillers.append(linear(features.silence))
        for key, hidden_states in features.hidden_states.items():
            mixed = self._mix(hidden_states, key, constants, train)
            projections.append(nn.Dense(config.width, name=key)(mixed))
            fillers.append(
                self.param(f"{key}_outside", nn.initializers.zeros_init(), (config.width,))
            )
        if train and config.time_mask > 0:
            length = jnp.sum(valid[..., 0], axis=1)
            for i, filler in enumerate(fillers):
                masked = sample_mask_spans(
                    self.make_rng("dropout"),
                    projections[i].shape[1],
                    length,
                    config.time_mask,
                    config.time_mask_frames,
                )
                projections[i] = jnp.where(masked[..., None], filler, projections[i])
        projections = [
            jnp.where(valid, x, filler) for x, filler in zip(projections, fillers, strict=True)
        ]
        if train and config.feature_dropout > 0 and len(projections) > 1:
            items = (valid.shape[0],)
            drops = jax.random.bernoulli(self.make_rng("dropout"), config.feature_dropout, items)
            choice = jax.random.randint(self.make_rng("dropout"), items, 0, len(projections))
            for i, filler in enumerate(fillers):
                dropped = (drops & (choice == i))[:, None, None]
                projections[i] = jnp.where(dropped, filler, projections[i])
        return jnp.concatenate(projections, axis=-1), jnp.concatenate(fillers)

    def _mix(
        self, hidden_states: Array, key: str, constants: Mapping[str, Array], train: bool
    ) -> Array:
        """Standardises and mixes `hidden_states` [B, T, S, D] to [B, T, D]."""
        config = self.config
        scaled = (hidden_states - constants[f"{key}_mean"]) / constants[f"{key}_std"]
        scaled = jnp.clip(scaled, -_LIMIT, _LIMIT)
        x = scaled[:, :, 0]
        if scaled.shape[2] > 1:
            logits = self.param(f"{key}_mix", nn.initializers.zeros_init(), (scaled.shape[2],))
            x = jnp.einsum("btsd,s->btd", scaled, jax.nn.softmax(logits))
        if train and config.noise > 0:
            x = x + config.noise * jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dropout(config.dropout, broadcast_dims=(1,), deterministic=not train)(x)
