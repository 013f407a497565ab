"""From noise to a sample, by a function that predicts the clean value.

Both samplers visit the same steps and call the denoiser once at each, from the last to the first.
The work is in float32, the coefficients are computed in float64.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Denoise = Callable[[Array, Array], Array]
"""(x_t [...], t int32 scalar) -> prediction of x_0 [...]."""


def ancestral(
    denoise: Denoise,
    start: Array,
    signal: np.ndarray,
    visited: np.ndarray,
    draw: Callable[[Array], Array],
) -> Array:
    """Samples by Ho et al. 2020, Algorithm 2, with the posterior's variance ("fixed small").

    Between visited steps s < t the mean is eq. 7 with 1 - beta = a_t / a_s, which is what the
    "respaced" process of Nichol and Dhariwal 2021 does.

    Args:
      denoise: see `Denoise`.
      start: x at the last visited step, N(0, 1).
      signal: [steps] a_t, of `schedule.cosine`.
      visited: [count] int, rising, of `schedule.spaced`.
      draw: gives noise of the shape of `start` for the index of a visit, int32 from 0 (the last
        step) on; it is not called for its value at the first step, which adds no noise.

    Returns:
      x_0, of the shape of `start`.
    """
    here = signal[visited]
    before = np.concatenate([[1.0], here[:-1]])
    beta = 1.0 - here / before
    of_clean = beta * np.sqrt(before) / (1.0 - here)
    of_noisy = (1.0 - before) * np.sqrt(here / before) / (1.0 - here)
    deviation = np.sqrt(beta * (1.0 - before) / (1.0 - here))

    def visit(x: Array, step: tuple[Array, ...]) -> tuple[Array, None]:
        index, t, clean_share, noisy_share, scale = step
        clean = denoise(x, t)
        return clean_share * clean + noisy_share * x + scale * draw(index), None

    return _run(visit, start, visited, (of_clean, of_noisy, deviation))


def implicit(denoise: Denoise, start: Array, signal: np.ndarray, visited: np.ndarray) -> Array:
    """Samples by DDIM without noise (Song et al. 2021, eq. 12 with eta = 0).

    The noise that x_t holds beside the predicted x_0 is kept at the next lower step's share.

    Args:
      denoise: see `Denoise`.
      start: as in `ancestral`.
      signal: likewise.
      visited: likewise.

    Returns:
      x_0, of the shape of `start`.
    """
    here = signal[visited]
    before = np.concatenate([[1.0], here[:-1]])
    kept = np.sqrt((1.0 - before) / (1.0 - here))
    of_clean = np.sqrt(before) - np.sqrt(here) * kept

    def visit(x: Array, step: tuple[Array, ...]) -> tuple[Array, None]:
        _, t, clean_share, noisy_share = step
        return clean_share * denoise(x, t) + noisy_share * x, None

    return _run(visit, start, visited, (of_clean, kept))


def _run(
    visit: Callable[[Array, tuple[Array, ...]], tuple[Array, None]],
    start: Array,
    visited: np.ndarray,
    coefficients: tuple[np.ndarray, ...],
) -> Array:
    steps = (
        jnp.arange(len(visited), dtype=jnp.int32),
        jnp.asarray(visited[::-1], jnp.int32),
        *(jnp.asarray(each[::-1], jnp.float32) for each in coefficients),
    )
    return jax.lax.scan(visit, start, steps)[0]
