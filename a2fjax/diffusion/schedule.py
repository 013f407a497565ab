"""How much signal and how much noise there is at each step of a diffusion.

At step t a clean value x_0 has become x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise, noise ~ N(0, 1),
with a_t falling from almost 1 at t = 0 to almost 0 at the last step.

Sources: Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; Nichol and Dhariwal 2021,
"Improved Denoising Diffusion Probabilistic Models" (the cosine schedule and the spacing of steps).
"""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

MAX_BETA = 0.999


def cosine(steps: int) -> np.ndarray:
    """Returns the share of signal power a_t of each step [steps] float64, falling.

    With f(s) = cos((s + 0.008) / 1.008 * pi / 2)^2, beta_t = min(1 - f((t + 1) / steps) /
    f(t / steps), 0.999) and a_t is the product of 1 - beta up to t (Nichol and Dhariwal 2021,
    eq. 17, as their code has it).

    Raises:
      ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    level = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.minimum(1.0 - level[1:] / level[:-1], MAX_BETA)
    return np.cumprod(1.0 - betas)


def spaced(steps: int, count: int) -> np.ndarray:
    """Returns which of `steps` steps a sampler of `count` calls visits [count] int, rising.

    Even from the first to the last, as `space_timesteps` of Nichol and Dhariwal's code; 2 of 1,000
    are 0 and 999. A single one is the last (theirs is the first, which leaves the noise as it is).

    Raises:
      ValueError: fewer than one call or more than there are steps.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"{count} of {steps} steps: expected 1 to {steps}")
    if count == 1:
        return np.array([steps - 1])
    return np.round(np.arange(count) * ((steps - 1) / (count - 1))).astype(np.int64)


def noised(clean: Array, noise: Array, signal: Array) -> Array:
    """Returns x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise.

    Args:
      clean: [B, ...] x_0.
      noise: of the same shape, N(0, 1).
      signal: [B], a_t of each item.
    """
    signal = signal.reshape(-1, *(1,) * (clean.ndim - 1))
    return jnp.sqrt(signal) * clean + jnp.sqrt(1.0 - signal) * noise
