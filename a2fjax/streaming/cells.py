"""Layers of one frame, as the modules of `models` compute them for sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax

Weights = dict[str, Any]
"""Arrays by flat name."""


def layer_norm(x: Array, scale: Array, bias: Array) -> Array:
    """As `flax.linen.LayerNorm`, over the last axis."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-6) * scale + bias


def film(kernel: Array, x: Array, conditions: Array) -> Array:
    """As `conditioning.FiLM`."""
    scale, shift = jnp.split(jnp.matmul(conditions, kernel), 2, axis=-1)
    return x * (1.0 + scale) + shift


def gru(weights: Weights, x: Array, h: Array) -> Array:
    """One step of `gru.GRU`."""
    inputs = jnp.matmul(x, weights["gru.i"]) + weights["gru.i_bias"]
    x_r, x_z, x_n = jnp.split(inputs, 3, axis=-1)
    h_r, h_z, h_n = jnp.split(jnp.matmul(h, weights["gru.h"]), 3, axis=-1)
    r, z = nn.sigmoid(x_r + h_r), nn.sigmoid(x_z + h_z)
    n = jnp.tanh(x_n + r * (h_n + weights["gru.hn_bias"]))
    return (1.0 - z) * n + z * h


def rows(mask: Array, like: Array) -> Array:
    """Returns a mask [B] with the axes of `like`."""
    return mask.reshape(-1, *[1] * (like.ndim - 1))


def restarted(state: Mapping[str, Array], reset: Array) -> dict[str, Array]:
    """Returns a state with zeros in the rows of `reset` [B]."""
    return {name: jnp.where(rows(reset, x), jnp.zeros_like(x), x) for name, x in state.items()}


def advanced(
    state: Mapping[str, Array], new: Mapping[str, Array], active: Array
) -> dict[str, Array]:
    """Returns a state with the new values in the rows of `active` [B]."""
    return {name: jnp.where(rows(active, x), new[name], x) for name, x in state.items()}
