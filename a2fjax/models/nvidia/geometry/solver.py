"""Solves for the rig's channels from the output of a geometry head.

The result is the most probable motion within the rig's ranges, assuming that the head's values have
an error of `error` times their RMS deviation and that motion is distributed as in training (normal,
with the training mean and covariance). Channels that the geometry determines are recovered; the
others follow them as in training, and noise in directions that barely move a vertex is not
amplified. A channel without a shape, or one that never moves in training, stays at the training
mean.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from a2fjax import rig
from a2fjax.models.nvidia.geometry.maps import STEP

_ROUNDS = 1000
TOLERANCE = 1e-4
"""Largest violation of the optimality conditions at which `solve` stops, in scaled channels."""


def head_values(constants: Mapping[str, Array], motion: Array) -> Array:
    """Returns the head's values [..., D] of a motion [..., 72]."""
    return constants["base"] + jnp.matmul(
        motion, constants["matrix"], precision=jax.lax.Precision.HIGHEST
    )


def rig_channels(constants: Mapping[str, Array], values: Array) -> Array:
    """Returns the most probable motion [..., 72] of frames [..., D] without range limits.

    It is linear in the frames; channel losses use it to train a geometry head.
    """
    target = _target(constants, values)
    scaled = jnp.matmul(target, constants["inverse"], precision=jax.lax.Precision.HIGHEST)
    return constants["mean"] + scaled * constants["unscale"]


def solve(constants: Mapping[str, Array], values: Array) -> tuple[Array, Array]:
    """Returns the most probable motion [..., 72] of frames [..., D] within the rig's ranges.

    It solves the convex problem min |base + w matrix - frame|^2 / e^2 + (w - mean) C^-1 (w - mean)
    over the rig's box, where e is the error of a value and C the covariance of training motion. It
    uses the alternating direction method of multipliers (Boyd et al. 2011, section 5.2) in channels
    scaled to weight 1, for all frames at once with one factorised matrix. Each frame stops as soon
    as it is optimal, so frames do not depend on each other.

    Returns:
      motion, and the largest violation of the optimality conditions over frames and channels [], |v
      - clip(v - gradient)| in scaled channels: at most `TOLERANCE` if converged.
    """
    target = _target(constants, values)
    system, factor = constants["system"], constants["factor"]
    low, high = constants["low"], constants["high"]
    exact = jax.lax.Precision.HIGHEST

    def violation(v: Array) -> Array:
        gradient = jnp.matmul(v, system, precision=exact) - target
        off = jnp.abs(v - jnp.clip(v - gradient, low, high))
        return jnp.max(off, axis=-1, keepdims=True)

    def proceed(state: tuple[Array, Array, Array, Array]) -> Array:
        return (state[2] < _ROUNDS) & jnp.any(state[3] > TOLERANCE)

    def rounds(state: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        v, dual, count, off = state
        going = off > TOLERANCE

        def once(_: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            v, dual = pair
            free = jnp.matmul(target + STEP * (v - dual), factor, precision=exact)
            relaxed = 1.6 * free - 0.6 * v
            after = jnp.clip(relaxed + dual, low, high)
            return jnp.where(going, after, v), jnp.where(going, dual + relaxed - after, dual)

        v, dual = jax.lax.fori_loop(0, 25, once, (v, dual))
        return v, dual, count + 25, violation(v)

    start = jnp.clip(jnp.matmul(target, constants["inverse"], precision=exact), low, high)
    state = (start, jnp.zeros_like(start), jnp.int32(0), violation(start))
    v, _, _, residual = jax.lax.while_loop(proceed, rounds, state)
    motion = constants["mean"] + v * constants["unscale"]
    return jnp.clip(motion, rig.MIN, rig.MAX), jnp.max(residual, initial=0.0)


def _target(constants: Mapping[str, Array], values: Array) -> Array:
    """Returns the least-squares right-hand side [..., 72] in scaled channels about the mean."""
    exact = jax.lax.Precision.HIGHEST
    difference = values - constants["base"] - constants["mean"] @ constants["matrix"]
    return jnp.matmul(difference, constants["matrix"].T, precision=exact) * constants["unscale"]
