"""The term: a mean over frames and channels that count."""

import jax.numpy as jnp

from a2fjax import losses, rig


def jerk(inputs, config):
    size = jnp.abs(jnp.diff(inputs.prediction / rig.SCALE, n=3, axis=1))
    mask = inputs.pairs[:, :-2] & inputs.pairs[:, 1:-1] & inputs.pairs[:, 2:]
    return losses.masked_mean(jnp.maximum(size - config.tolerance, 0.0) ** 2, mask)
