"""Named random streams for `flax.linen` modules."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import jax
from jax import Array

STREAMS = ("dropout", "noise", "encoders", "noise_level", "motion_noise", "lookahead")
"""Random streams of a training step.

"dropout" and "noise" are used inside networks (`Module.make_rng`), "encoders" seeds the dropout of
trained speech encoders; "noise_level" and "motion_noise" belong to diffusion tasks, "lookahead" to
models for live audio.
"""


def named_keys(key: Array, names: Iterable[str]) -> dict[str, Array]:
    """Returns one key per name, which depends only on `key` and the name."""
    return {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}


def streams(key: Array) -> dict[str, Array]:
    """Returns a key for each of `STREAMS`, for the `rngs` argument of `Module.apply`.

    Example:
        >>> import jax
        >>> sorted(streams(jax.random.key(0)))
        ['dropout', 'encoders', 'lookahead', 'motion_noise', 'noise', 'noise_level']
    """
    return named_keys(key, STREAMS)
