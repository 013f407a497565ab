"""Channels that a sync expert sees, standardised by person or by the window itself.

Upper-face channels are left out: they tell emotion and person, not the moment.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from a2fjax import rig

CHANNELS = np.concatenate([rig.GROUPS["jaw_mouth"], rig.GROUPS["tongue"]])
"""Indices of the C channels that experts see: jaw, mouth and tongue."""

LEAST_DEVIATION = 0.01 * rig.SCALE
"""Lowest deviation [72] that a channel is divided by: below it is the noise of a capture."""

LIMIT = 5.0
"""Standard deviations at which values are cut: a solver's outlier must not decide a window."""

_TONGUE = np.isin(CHANNELS, rig.GROUPS["tongue"])


class Statistics(struct.PyTreeNode):
    """Mean and deviation of a person's channels.

    Attributes:
      mean: [B, 72] in rig units.
      deviation: [B, 72] in rig units, at least `LEAST_DEVIATION`.
    """

    mean: Any
    deviation: Any


def own_statistics(motion: Array, valid: Array) -> Statistics:
    """Returns the statistics of windows of data by themselves.

    Args:
      motion: [B, T, 72] in rig units.
      valid: [B, T] bool, frames that count.

    Example:
        >>> motion = jnp.zeros((1, 2, 72)).at[0, 1].set(1.0)
        >>> own = own_statistics(motion, jnp.ones((1, 2), bool))
        >>> float(own.mean[0, 0]), float(own.deviation[0, 0])
        (0.5, 0.5)
    """
    weight = valid[..., None].astype(jnp.float32)
    count = jnp.maximum(weight.sum(1), 1.0)
    motion = jnp.where(valid[..., None], motion, 0.0)
    mean = motion.sum(1) / count
    square = jnp.where(valid[..., None], motion - mean[:, None], 0.0) ** 2
    deviation = jnp.sqrt(jnp.maximum(square.sum(1) / count, LEAST_DEVIATION**2))
    return Statistics(mean, deviation)


def standardise(motion: Array, statistics: Statistics) -> Array:
    """Returns the channels [B, T, C] of `CHANNELS` in standard deviations, within `LIMIT`."""
    mean = statistics.mean[:, None, CHANNELS]
    deviation = statistics.deviation[:, None, CHANNELS]
    # The hard limit has no gradient beyond it, where an expert has learned nothing.
    return jnp.clip((motion[..., CHANNELS] - mean) / deviation, -LIMIT, LIMIT)


def hide(key: Array, mask: Array, share: float, tongue: float) -> Array:
    """Hides channels of each window of data at random; one with none left stays as it was.

    Args:
      key: random key.
      mask: [B, C] bool, observed channels.
      share: largest share hidden.
      tongue: share of windows without the tongue.
    """
    keys = jax.random.split(key, 3)
    items = (mask.shape[0], 1)
    rate = jax.random.uniform(keys[0], items, maxval=max(share, 1e-9))
    kept = jax.random.uniform(keys[1], mask.shape) >= rate
    kept &= ~(_TONGUE & (jax.random.uniform(keys[2], items) < tongue))
    kept &= mask
    return jnp.where(kept.any(1, keepdims=True), kept, mask)
