"""Gated recurrent unit in the fastest formulation measured on a CPU, with a custom backward pass.

The cell is that of `flax.linen.GRUCell` and `torch.nn.GRU` (Cho et al. 2014, in the cuDNN form
where the reset gate multiplies the recurrent term after its matrix product):

    r = sigmoid(x W_ir + b_ir + h W_hr)
    z = sigmoid(x W_iz + b_iz + h W_hz)
    n = tanh(x W_in + b_in + r * (h W_hn + b_hn))
    h' = (1 - z) * n + z * h

It is fast for two reasons (measured by `benchmarks/gru.py`). The input projections are matrix
products outside the scan, with one array per gate, because slicing gates out of one array inside
the scan costs more than the hoisting saves. The backward scan carries only the sequential part, the
gradient of the state; all gate gradients and one weight product per gate are computed after it.
"""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

Gates = tuple[Array, Array, Array]
"""Arrays of the reset gate, the update gate and the candidate."""

_HOLD = 1e4
"""Offset of the update gate's input that makes its sigmoid exactly 1 and so keeps the state.

Every gradient of such a step is multiplied by 1 - z = 0, so these frames need no mask in the scan.
"""


def _dot(a: Array, b: Array, dtype: Any) -> Array:
    return jnp.dot(a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)


def _outer(a: Array, b: Array, dtype: Any) -> Array:
    """Sums the outer products of a [T, B, H] and b [T, B, K] over time and items: [H, K]."""
    # Contract both axes at once: reshaping to rows [T * B, H] would gather a batch that is sharded
    # over devices.
    return jnp.tensordot(
        a.astype(dtype), b.astype(dtype), ((0, 1), (0, 1)), preferred_element_type=jnp.float32
    )


def _scan(
    inputs: Gates, weights: Gates, bias: Array, initial: Array, reverse: bool, dtype: Any
) -> tuple[Array, Gates, Array]:
    w_r, w_z, w_n = (w.astype(dtype) for w in weights)

    def step(h: Array, x: Gates) -> tuple[Array, tuple[Array, ...]]:
        r = jax.nn.sigmoid(x[0] + _dot(h, w_r, dtype))
        z = jax.nn.sigmoid(x[1] + _dot(h, w_z, dtype))
        a = _dot(h, w_n, dtype) + bias
        n = jnp.tanh(x[2] + r * a)
        h = (1.0 - z) * n + z * h
        return h, (h, r, z, n, a)

    _, (states, r, z, n, a) = lax.scan(step, initial, inputs, reverse=reverse)
    return states, (r, z, n), a


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def recurrence(
    inputs: Gates,
    weights: Gates,
    bias: Array,
    initial: Array,
    reverse: bool = False,
    dtype: Any = jnp.float32,
) -> Array:
    """Runs the recurrence over projected inputs.

    Args:
      inputs: (r, z, n), each [T, B, H] float32: the input projections including biases.
      weights: (r, z, n), each [H, H].
      bias: [H], bias of the candidate's recurrent term.
      initial: [B, H] float32 state before the first step.
      reverse: run from the last frame to the first.
      dtype: dtype of matrix product operands; state and sums remain float32.

    Returns:
      States [T, B, H] float32, in time order for both directions.
    """
    return _scan(inputs, weights, bias, initial, reverse, dtype)[0]


def _forward(
    inputs: Gates, weights: Gates, bias: Array, initial: Array, reverse: bool, dtype: Any
) -> tuple[Array, tuple[Any, ...]]:
    states, gates, a = _scan(inputs, weights, bias, initial, reverse, dtype)
    return states, (states, gates, a, weights, initial)


def _backward(
    reverse: bool, dtype: Any, residuals: tuple[Any, ...], cotangent: Array
) -> tuple[Gates, Gates, Array, Array]:
    states, (r, z, n), a, weights, initial = residuals
    if reverse:
        previous = jnp.concatenate([states[1:], initial[None]])
    else:
        previous = jnp.concatenate([initial[None], states[:-1]])
    # Each gate's gradient is the state's gradient times a factor known from the forward pass, so
    # only the state's gradient must be carried from step to step.
    by_n = (1.0 - z) * (1.0 - n * n)
    by_a = by_n * r
    by_r = by_a * a * (1.0 - r)
    by_z = (previous - n) * z * (1.0 - z)
    t_r, t_z, t_n = (w.T.astype(dtype) for w in weights)

    def step(carry: Array, x: tuple[Array, ...]) -> tuple[Array, Array]:
        g, f_r, f_z, f_a, z = x
        d = g + carry
        carry = d * z + _dot(d * f_r, t_r, dtype) + _dot(d * f_z, t_z, dtype)
        return carry + _dot(d * f_a, t_n, dtype), d

    d_initial, d = lax.scan(
        step, jnp.zeros_like(initial), (cotangent, by_r, by_z, by_a, z), reverse=not reverse
    )
    d_r, d_z, d_n, d_a = d * by_r, d * by_z, d * by_n, d * by_a
    d_weights = tuple(_outer(previous, g, dtype) for g in (d_r, d_z, d_a))
    return (d_r, d_z, d_n), d_weights, d_a.sum((0, 1)), d_initial  # type: ignore[return-value]


recurrence.defvjp(_forward, _backward)


class _Gate(nn.Module):
    """Parameters of one gate's product, with the names of `flax.linen.GRUCell`."""

    width: int
    use_bias: bool
    kernel_init: Any

    @nn.compact
    def __call__(self, inputs: int) -> tuple[Array, Array]:
        kernel = self.param("kernel", self.kernel_init, (inputs, self.width), jnp.float32)
        if not self.use_bias:
            return kernel, jnp.zeros(self.width)
        return kernel, self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)


class GRU(nn.Module):
    """A unidirectional gated recurrent unit over time-major sequences.

    Its parameters have the same names as those of `flax.linen.GRUCell`.

    Example:
        >>> import jax
        >>> gru = GRU(width=8)
        >>> inputs = jnp.zeros((5, 2, 3))  # [T, B, D]
        >>> params = gru.init(jax.random.key(0), inputs)
        >>> gru.apply(params, inputs, length=jnp.array([5, 3])).shape
        (5, 2, 8)

    Attributes:
      width: number of units H.
      reverse: run from each sequence's last valid frame to its first.
      dtype: dtype of matrix product operands; parameters and state are float32.
    """

    width: int
    reverse: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Array, length: Array | None = None, initial: Array | None = None
    ) -> Array:
        """Runs the recurrence over `inputs`.

        Args:
          inputs: [T, B, D].
          length: [B] int, number of valid frames; later frames keep the state unchanged, so the
            reverse direction starts at `length - 1` with the initial state. None: all are valid.
          initial: [B, H] state; None for zero.

        Returns:
          States [T, B, H] float32. With `reverse=False`, the last state can continue the sequence.
        """
        frames, batch, depth = inputs.shape

        def project(name: str) -> Array:
            kernel, bias = _Gate(self.width, True, nn.initializers.lecun_normal(), name=name)(depth)
            return _dot(inputs, kernel, self.dtype) + bias

        x_r, x_z, x_n = project("ir"), project("iz"), project("in")
        orthogonal = nn.initializers.orthogonal()
        w_r, _ = _Gate(self.width, False, orthogonal, name="hr")(self.width)
        w_z, _ = _Gate(self.width, False, orthogonal, name="hz")(self.width)
        w_n, bias = _Gate(self.width, True, orthogonal, name="hn")(self.width)
        if length is not None:
            x_z = x_z + _HOLD * (jnp.arange(frames)[:, None] >= length)[..., None]
        if initial is None:
            initial = jnp.zeros((batch, self.width))
        return recurrence((x_r, x_z, x_n), (w_r, w_z, w_n), bias, initial, self.reverse, self.dtype)


class BidirectionalGRU(nn.Module):
    """Both directions of a `GRU`, concatenated.

    Attributes:
      width: number of units per direction.
      dtype: dtype of matrix product operands.
    """

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, inputs: Array, length: Array | None = None) -> Array:
        """Returns states [T, B, 2 * width] float32 for `inputs` [T, B, D]; see `GRU`."""
        forward = GRU(self.width, dtype=self.dtype, name="forward")(inputs, length)
        backward = GRU(self.width, reverse=True, dtype=self.dtype, name="backward")(inputs, length)
        return jnp.concatenate([forward, backward], axis=-1)
