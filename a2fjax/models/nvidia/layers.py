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
    """Returns PyTorch's default initialiser, uniform in ±1/sqrt(fan_in), also for biases.

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
    """Returns a linear layer with `depth` inputs, initialised like `torch.nn.Linear` or to zero."""
    start = nn.initializers.zeros_init() if zero else uniform(depth)
    return nn.Dense(width, use_bias=bias, kernel_init=start, bias_init=start, dtype=dtype)


def convolution(
    depth: int, width: int, taps: int, *, stride: int = 1, padding: int, dtype: Any = jnp.float32
) -> nn.Conv:
    """Returns a convolution [..., N, depth] → [..., N', width] with PyTorch's initialisation."""
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
    """Returns relu(x) * sqrt(2), which preserves the mean square of a symmetric input."""
    return jax.nn.relu(x) * math.sqrt(2.0)


class ChannelNoise(nn.Module):
    """Multiplies each channel of an item by noise 1.4 ** N(0, 1) ("GDropout").

    Each item and channel has one noise value for all frames, normalised by its root mean square
    over the channels, so that an item keeps its power. Without `train` the layer is the identity.
    It draws from the stream "noise".
    """

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `x` [B, ..., C] multiplied by noise."""
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

    Layer `i` has `ih_l<i>` and `hh_l<i>` with the gates r, z, n side by side, each with a bias;
    `a2fjax.models.gru.GRU` has a single bias where only the sum of these two matters.

    Attributes:
      width: number of units H.
      layers: number of stacked layers.
      dropout: dropout rate between layers in training.
      dtype: dtype of matrix product operands; the state is float32.
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
        """Runs the recurrence over `inputs`.

        Args:
          inputs: [B, T, D].
          length: [B] int, number of valid frames; later frames do not affect them.
          initial: [layers, B, H] state before the first frame; None for zero.
          train: enables dropout.

        Returns:
          States of the last layer [B, T, H] float32, and the states [layers, B, H] after frame
          `length - 1` (the initial states if `length` is 0).
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
