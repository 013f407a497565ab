"""Noise schedules: the shares of signal and noise at each noise level.

At a noise level a clean value x_0 becomes x = alpha x_0 + sigma noise, noise ~ N(0, 1), with
alpha^2 + sigma^2 = 1. Levels come in two kinds: a real time in [0, 1] (`level`), 0 clean and 1 pure
noise, or one of so many discrete steps (`cosine_steps`, as NVIDIA's network has them).

Sources: Ho et al. 2020, "Denoising Diffusion Probabilistic Models"; Nichol and Dhariwal 2021,
"Improved Denoising Diffusion Probabilistic Models" (the discrete cosine schedule and its spacing);
Song et al. 2021, "Score-Based Generative Modeling through SDEs" (the linear one in real time); Lin
et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed" (zero terminal SNR and
trailing steps).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

MAX_BETA = 0.999
LINEAR_BETAS = (0.1, 20.0)
"""First and last beta of the linear schedule in real time; 1,000 steps of it are Ho et al.'s."""

NAMES = ("cosine", "linear")


@dataclasses.dataclass(frozen=True)
class Levels:
    """The noise levels that a sampler visits, from the noisiest on.

    Attributes:
      alpha: [N + 1] float64, share of the clean value; 1 at the last, where the sample is done.
      sigma: [N + 1] float64, of the noise; 0 at the last.
    """

    alpha: np.ndarray
    sigma: np.ndarray

    @property
    def count(self) -> int:
        """Calls of the denoiser."""
        return len(self.alpha) - 1


def level(name: str, time: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """Returns alpha and sigma of times in [0, 1], of any shape.

    "cosine": alpha = cos(pi t / 2), which reaches 0 at t = 1 as it is. "linear": the variance
    preserving process of beta(t) = 0.1 + 19.9 t, its alpha shifted and scaled to be 1 at 0 and 0 at
    1 (Lin et al. 2024, algorithm 1). Both end in pure noise, where every sample begins: a network
    must have been trained on it.

    Args:
      name: of the schedule.
      time: array, 0 clean to 1 pure noise.
      xp: array library, `jax.numpy` or `numpy`.

    Raises:
      ValueError: no such schedule.
    """
    if name == "cosine":
        angle = 0.5 * math.pi * time
        # Exactly 0, which cos gives only up to rounding: at t = 1 nothing of the signal is left.
        alpha = xp.where(time >= 1.0, 0.0, xp.cos(angle))
    elif name == "linear":
        low, high = LINEAR_BETAS

        def raw(t: Any) -> Any:
            return xp.exp(-0.25 * (high - low) * t * t - 0.5 * low * t)

        end = raw(xp.ones(()))
        alpha = (raw(time) - end) / (1.0 - end)
    else:
        raise ValueError(f"schedule {name!r}: expected one of {NAMES}")
    return alpha, xp.sqrt(xp.maximum(1.0 - alpha**2, 0.0))


def trailing(count: int, last: float = 1.0) -> np.ndarray:
    """Returns the times of `count` calls [count + 1] float64, from `last` to 0, evenly.

    "Trailing": the first is the end of the process, pure noise, however few there are (Lin et al.
    2024, section 3.3).

    Raises:
      ValueError: no call.
    """
    if count < 1:
        raise ValueError(f"{count} steps: expected at least 1")
    return last * np.linspace(1.0, 0.0, count + 1)


def levels(name: str, count: int, last: float = 1.0) -> Levels:
    """Returns the noise levels of `trailing` times of a schedule."""
    alpha, sigma = level(name, trailing(count, last), np)
    alpha[-1], sigma[-1] = 1.0, 0.0
    return Levels(alpha, sigma)


def cosine_steps(steps: int) -> np.ndarray:
    """Returns the share of signal power alpha^2 of each discrete step [steps] float64, falling.

    With f(s) = cos((s + 0.008) / 1.008 * pi / 2)^2, beta_t = min(1 - f((t + 1) / steps) /
    f(t / steps), 0.999) and a_t is the product of 1 - beta up to t (Nichol and Dhariwal 2021,
    eq. 17, as their code has it).

    Raises:
      ValueError: fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1")
    shape = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    betas = np.minimum(1.0 - shape[1:] / shape[:-1], MAX_BETA)
    return np.cumprod(1.0 - betas)


def spaced(steps: int, count: int) -> np.ndarray:
    """Returns the steps that a sampler with `count` of `steps` calls visits [count] int, rising.

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


def levels_of_steps(signal: np.ndarray, visited: np.ndarray) -> Levels:
    """Returns the noise levels of visited discrete steps.

    Args:
      signal: [steps] share of signal power, of `cosine_steps`.
      visited: [count] int, rising, of `spaced`.
    """
    power = np.concatenate([signal[visited][::-1], [1.0]])
    return Levels(np.sqrt(power), np.sqrt(1.0 - power))


def noised(clean: Array, noise: Array, alpha: Array, sigma: Array) -> Array:
    """Returns alpha x_0 + sigma noise.

    Args:
      clean: [B, ...] x_0.
      noise: of the same shape, N(0, 1).
      alpha: [B], share of the clean value.
      sigma: [B], of the noise.
    """
    shape = (-1, *(1,) * (clean.ndim - 1))
    return alpha.reshape(shape) * clean + sigma.reshape(shape) * noise
