"""Fusion of acoustic signals and encoders' hidden states into one vector per frame.

Source of the mix of layers: Peters et al. 2018, "Deep contextualized word representations"; as
used on speech encoders by Yang et al. 2021, "SUPERB". Of the masks: Park et al. 2019,
"SpecAugment".
"""

from __future__ import annotations

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.config import EncoderConfig
from a2fjax.encoders.wav2vec2.masking import sample_mask_spans

_LIMIT = 10.0  # Deviations: a few of Whisper's units stray by far more on single frames.


class FeatureFusion(nn.Module):
    """States and signals to one vector a frame.

    Each encoder: standardised by constants → learned mix of its states → linear. Signals: linear.
    All side by side. Outside its clip a frame hears silence of the signals and, of an encoder, a
    learned vector.

    Attributes:
      config: widths and what training adds.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        signals: Array,
        silence: Array,
        states: Mapping[str, Array],
        valid: Array,
        constants: Mapping[str, Array],
        key: Array | None = None,
    ) -> tuple[Array, Array]:
        """Returns the features [B, T, W] and those of a frame outside its clip [W].

        Args:
          signals: [B, T, F]; F may be 0.
          silence: [F], signals of silence.
          states: by key, [B, T, S, D].
          valid: [B, T, 1] bool, frames that exist.
          constants: "<key>_mean" and "<key>_std" [S, D] of the states.
          key: of noise, masks and dropout; None when not training.
        """
        config = self.config
        parts: list[Array] = []
        outside: list[Array] = []
        names = [*(["signals"] if signals.shape[-1] else []), *states]
        for_parts = None if key is None else jax.random.fold_in(key, len(names))
        for i, name in enumerate(names):
            for_part = None if key is None else jax.random.fold_in(key, i)
            if name == "signals":
                linear = nn.Dense(config.width, name="signals")
                x, out = linear(signals), linear(silence)
            else:
                x = self._mixed(states[name], name, constants, for_part)
                x = nn.Dense(config.width, name=name)(x)
                out = self.param(f"{name}_outside", nn.initializers.zeros_init(), (config.width,))
            if for_part is not None and config.time_mask > 0:
                masked = sample_mask_spans(
                    jax.random.fold_in(for_part, 2),
                    x.shape[1],
                    jnp.sum(valid[..., 0], axis=1),
                    config.time_mask,
                    config.time_mask_frames,
                )
                x = jnp.where(masked[..., None], out, x)
            parts.append(jnp.where(valid, x, out))
            outside.append(out)
        if for_parts is not None and config.feature_dropout > 0 and len(parts) > 1:
            which, whether = jax.random.split(for_parts)
            batch = (parts[0].shape[0],)
            left_out = jnp.where(
                jax.random.bernoulli(whether, config.feature_dropout, batch),
                jax.random.randint(which, batch, 0, len(parts)),
                -1,
            )
            for i, out in enumerate(outside):
                parts[i] = jnp.where((left_out == i)[:, None, None], out, parts[i])
        return jnp.concatenate(parts, axis=-1), jnp.concatenate(outside)

    def _mixed(
        self, states: Array, name: str, constants: Mapping[str, Array], key: Array | None
    ) -> Array:
        """Returns [B, T, D] of states [B, T, S, D]."""
        config = self.config
        states = (states - constants[f"{name}_mean"]) / constants[f"{name}_std"]
        states = jnp.clip(states, -_LIMIT, _LIMIT)
        x = states[:, :, 0]
        if states.shape[2] > 1:
            logits = self.param(f"{name}_mix", nn.initializers.zeros_init(), (states.shape[2],))
            x = jnp.einsum("btsd,s->btd", states, jax.nn.softmax(logits))
        if key is None:
            return x
        for_noise, for_dropout = jax.random.split(key)
        if config.noise > 0:
            x = x + config.noise * jax.random.normal(for_noise, x.shape)
        if config.dropout > 0:
            keep = jax.random.bernoulli(
                for_dropout, 1 - config.dropout, (x.shape[0], 1, x.shape[2])
            )
            x = x * keep / (1 - config.dropout)
        return x
