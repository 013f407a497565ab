"""Building blocks of NVIDIA's networks, with PyTorch's conventions."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.models.gru import recurrence

DROPOUT_STRENGTH = 0.4


def uniform(fan_in: int) -> nn.initializers.Initializer:
    """Returns PyTorch's default initial values, uniform in ±1/sqrt(fan_in), biases included.

    Kaiming initialisation with a = sqrt(5) (He et al. 2015) reduces to that.
    """
    bound = 1.0 / math.sqrt(fan_in)

    def draw(key: Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> Array:
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def linear(
    depth: int, width: int, *, bias: bool = True, zero: bool = False, dtype: Any = jnp.float32
) -> nn.Dense:
    """Returns a linear layer of `depth` inputs that starts as `torch.nn.Linear`, or at zero."""
    start = nn.initializers.zeros_init() if zero else uniform(depth)
    return nn.Dense(width, use_bias=bias, kernel_init=start, bias_init=start, dtype=dtype)


def convolution(
    depth: int, width: int, taps: int, *, stride: int = 1, padding: int, dtype: Any = jnp.float32
) -> nn.Conv:
    """Returns a convolution [..., N, depth] → [..., N', width] that starts as `torch.nn.Conv1d`."""
    start = uniform(depth * taps)
    return nn.Conv(
        width,
        (taps,),
        strides=(stride,),
        padding=((padding, padding),),
        kernel_init=start,
        bias_init=start,
        dtype=dtype,
    )


def norm_relu(x: Array) -> Array:
    """Returns relu(x) * sqrt(2), which keeps the mean square of a symmetric input."""
    return jax.nn.relu(x) * math.sqrt(2.0)


class ChannelNoise(nn.Module):
    """Multiplies each channel of an item by noise ("GDropout"): 1.4 ** N(0, 1).

    One number per item and channel, the same for all frames of the item, divided by the root of its
    mean square over the channels, so that an item keeps its power. Without `train` it changes
    nothing. Draws from the stream "noise".
    """

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `x` [B, ..., C] times noise."""
        if not train:
            return x
        shape = (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1])
        noise = (1.0 + DROPOUT_STRENGTH) ** jax.random.normal(self.make_rng("noise"), shape)
        noise = noise / (1e-6 + jnp.sqrt(jnp.mean(noise**2, axis=-1, keepdims=True)))
        return x * noise.astype(x.dtype)


class _Projection(nn.Module):
    """A matrix [depth, width] and a bias [width], both uniform in ±1/sqrt(scale)."""

    depth: int
    width: int
    scale: int

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        kernel = self.param("kernel", uniform(self.scale), (self.depth, self.width))
        return kernel, self.param("bias", uniform(self.scale), (self.width,))


class GRU(nn.Module):
    """Unidirectional recurrent layers with `torch.nn.GRU`'s parameters.

    Layer `i` has `ih_l<i>` and `hh_l<i>`, gates r, z, n side by side, each with a bias;
    `a2fjax.models.gru.GRU` has one bias where these have two that only act as their sum.

    Attributes:
      width: units H.
      layers: number of stacked layers.
      dropout: share of the values that training drops between layers.
      dtype: of the operands of matrix products; the state is float32.
    """

    width: int
    layers: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        inputs: Array,
        length: Array,
        initial: Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Runs over `inputs`.

        Args:
          inputs: [B, T, D].
          length: [B] int, valid frames; later frames change nothing before them.
          initial: [layers, B, H] state before the first frame; None for zero.
          train: whether dropout is on.

        Returns:
          States of the last layer [B, T, H] float32, and the states [layers, B, H] after frame
          `length - 1` (the initial ones where `length` is 0).
        """
        batch, frames, _ = inputs.shape
        if initial is None:
            initial = jnp.zeros((self.layers, batch, self.width))
        x = inputs.swapaxes(0, 1)
        last = jnp.maximum(length - 1, 0)
        final = []
        for i in range(self.layers):
            depth = x.shape[-1]
            kernel, bias = _Projection(depth, 3 * self.width, self.width, name=f"ih_l{i}")()
            hidden = _Projection(self.width, 3 * self.width, self.width, name=f"hh_l{i}")
            weights, shift = hidden()
            w_r, w_z, w_n = jnp.split(weights, 3, axis=-1)
            b_r, b_z, b_n = jnp.split(shift, 3)
            product = jnp.dot(
                x.astype(self.dtype), kernel.astype(self.dtype), preferred_element_type=jnp.float32
            )
            x_r, x_z, x_n = jnp.split(product + bias, 3, axis=-1)
            states = recurrence(
                (x_r + b_r, x_z + b_z, x_n), (w_r, w_z, w_n), b_n, initial[i], False, self.dtype
            )
            ended = jnp.take_along_axis(states, last[None, :, None], axis=0)[0]
            final.append(jnp.where(length[:, None] > 0, ended, initial[i]))
            x = states
            if i < self.layers - 1:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return x.swapaxes(0, 1), jnp.stack(final)
