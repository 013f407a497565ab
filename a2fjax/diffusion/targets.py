"""What a denoising network puts out, and the clean value it means.

With x = alpha x_0 + sigma noise (alpha^2 + sigma^2 = 1) one of three numbers tells the other two:

    "x0"    the clean value
    "eps"   the noise; says nothing of the clean value in pure noise (alpha = 0)
    "v"     alpha noise - sigma x_0 (Salimans and Ho 2022, "Progressive Distillation", appendix D)

A network need not start from nothing. Where a draft m of the clean value is known before any noise
is seen, and the truth is taken to lie about it with unit variance, the best guess of x_0 from x is
alpha x + sigma^2 m (the posterior mean of a Gaussian). The network adds what is missing, in its
target's unit; drafts of 0 give the usual preconditioning by standardised data.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

NAMES = ("v", "x0", "eps")


def target_value(name: str, clean: Array, noise: Array, alpha: Array, sigma: Array) -> Array:
    """Returns the target of that name; all arrays are broadcast.

    Raises:
      ValueError: no such target.
    """
    if name == "x0":
        return jnp.broadcast_to(clean, jnp.broadcast_shapes(clean.shape, noise.shape))
    if name == "eps":
        return jnp.broadcast_to(noise, jnp.broadcast_shapes(clean.shape, noise.shape))
    if name == "v":
        return alpha * noise - sigma * clean
    raise ValueError(f"target {name!r}: expected one of {NAMES}")


def clean(name: str, value: Array, x: Array, alpha: Array, sigma: Array) -> Array:
    """Returns the x_0 that a target's value means at x; of "eps" alpha must be above 0.

    Raises:
      ValueError: no such target.
    """
    if name == "x0":
        return value
    if name == "eps":
        return (x - sigma * value) / alpha
    if name == "v":
        return alpha * x - sigma * value
    raise ValueError(f"target {name!r}: expected one of {NAMES}")


def noise(name: str, value: Array, x: Array, alpha: Array, sigma: Array) -> Array:
    """Returns the noise that a target's value means at x; of "x0" sigma must be above 0.

    Raises:
      ValueError: no such target.
    """
    if name == "x0":
        return (x - alpha * value) / sigma
    if name == "eps":
        return value
    if name == "v":
        return sigma * x + alpha * value
    raise ValueError(f"target {name!r}: expected one of {NAMES}")


def coarse_guess(name: str, draft: Array, x: Array, alpha: Array, sigma: Array) -> Array:
    """Returns the target's value of the best guess from a draft and x; see the module.

    Raises:
      ValueError: no such target.
    """
    guess = alpha * x + sigma**2 * draft
    return target_value(name, guess, sigma * (x - alpha * draft), alpha, sigma)


def weight(alpha: Array, limit: float) -> Array:
    """Returns the weight of a squared error of x_0: min(1 + SNR, limit), SNR = (alpha / sigma)^2.

    1 + SNR makes it the squared error of v. The limit keeps nearly clean levels, which are easy and
    change little, from drowning the noisy ones (Hang et al. 2023, "Efficient Diffusion Training via
    Min-SNR Weighting"; with SNR + 1, as v needs at pure noise, where SNR is 0).
    """
    power = jnp.square(alpha)
    return jnp.minimum(1.0 / jnp.maximum(1.0 - power, 1e-6), limit)
