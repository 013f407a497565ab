"""Whisper's transformer in Flax: spectrogram to hidden states.

Sources: A. Radford et al., "Robust Speech Recognition via Large-Scale Weak Supervision", 2022 (the
model); A. Vaswani et al., "Attention Is All You Need", 2017 (positions).
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_EPSILON = 1e-5  # Of every layer norm.


def sinusoids(positions: int, width: int) -> np.ndarray:
    """Returns [positions, width] float32: sines, then cosines, of periods 2 pi to 20000 pi."""
    rates = np.exp(-np.log(10_000.0) * np.arange(width // 2) / max(width // 2 - 1, 1))
    angle = np.arange(positions)[:, None] * rates
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def _precision(dtype: Any) -> jax.lax.Precision:
    """Returns full precision for float32; accelerators use fewer bits by default."""
    full = jnp.dtype(dtype) == jnp.float32
    return jax.lax.Precision.HIGHEST if full else jax.lax.Precision.DEFAULT


class Layer(nn.Module):
    """A pre-norm transformer layer; the residual, the norms and the softmax are float32.

    Attributes:
      heads: of attention.
      hidden: units inside the perceptron.
      dtype: of the operands of matrix products.
    """

    heads: int
    hidden: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """Returns the layer's output for x [B, T, D]; mask [B, T] marks frames to attend to."""
        batch, frames, width = x.shape

        def norm(name: str) -> nn.LayerNorm:
            # A few of Whisper's units are thousands of times larger than the others: a variance as
            # a difference of two large numbers would lose all digits.
            return nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, name=name)

        def linear(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, dtype=self.dtype, precision=_precision(self.dtype), name=name)

        qkv = linear(3 * width, "qkv")(norm("attention_norm")(x))
        q, k, v = jnp.moveaxis(qkv.reshape(batch, frames, 3, self.heads, -1), 2, 0)
        product = functools.partial(jnp.einsum, precision=_precision(self.dtype))
        scores = product(
            "bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32
        )
        if mask is not None:
            scores = jnp.where(mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
        attended = product("bhqk,bkhd->bqhd", nn.softmax(scores).astype(v.dtype), v)
        x = x + linear(width, "out")(attended.reshape(x.shape)).astype(jnp.float32)
        up = nn.gelu(linear(self.hidden, "up")(norm("mlp_norm")(x)), approximate=False)
        return x + linear(width, "down")(up).astype(jnp.float32)


class WhisperNetwork(nn.Module):
    """Spectrogram to hidden states; see `WhisperEncoder.apply`.

    Attributes:
      width: units D of a frame.
      heads: of attention.
      hidden: units inside a layer's perceptron.
      positions: frames that have a position.
      layers: transformer layers that run.
      final_norm: applies the norm after the last layer.
      all_layers: returns every state rather than the last.
      dtype: of the operands of matrix products.
      remat: recomputes the inside of layers for gradients.
    """

    width: int
    heads: int
    hidden: int
    positions: int
    layers: int
    final_norm: bool
    all_layers: bool = False
    dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x: Array, valid: Array | None, first: Array | int) -> Array:
        """Returns the hidden states.

        Args:
          x: [B, 2 T, mels] log-mel spectra.
          valid: [B, 2 T] bool, spectra that exist; None: all.
          first: [B] int or one, position of a clip's first frame.

        Returns:
          [B, T, D] float32; with `all_layers` [layers + 1, B, T, D].
        """

        def conv(x: Array, stride: int, name: str) -> Array:
            layer = nn.Conv(
                self.width,
                (3,),
                (stride,),
                padding=((1, 1),),
                dtype=self.dtype,
                precision=_precision(self.dtype),
                name=name,
            )
            if valid is not None:  # Equal to the zeros that a convolution has beyond its input.
                x = x * valid[:, :, None]
            return nn.gelu(layer(x), approximate=False)

        x = conv(conv(x, 1, "conv1"), 2, "conv2").astype(jnp.float32)
        table = self.param(
            "positions", lambda _: jnp.asarray(sinusoids(self.positions, self.width))
        )
        position = jnp.arange(x.shape[1]) + jnp.reshape(jnp.asarray(first), (-1, 1))
        x = x + jnp.take(table, position, axis=0, mode="clip")
        mask = None if valid is None else valid[:, ::2]
        layer = nn.remat(Layer) if self.remat else Layer
        states = [x]
        for i in range(self.layers):
            x = layer(self.heads, self.hidden, self.dtype, name=f"layers_{i}")(x, mask)
            states.append(x)
        if self.final_norm:
            final = nn.LayerNorm(epsilon=_EPSILON, use_fast_variance=False, name="final_norm")
            states[-1] = final(x)
        return jnp.stack(states) if self.all_layers else states[-1]
