"""Prediction targets of a denoising network, and the clean value that follows from each.

With x = alpha x_0 + sigma noise (alpha^2 + sigma^2 = 1) each of three targets gives the others:

    "x0"    the clean value
    "eps"   the noise; does not determine the clean value in pure noise (alpha = 0)
    "v"     alpha noise - sigma x_0 (Salimans and Ho 2022, "Progressive Distillation", appendix D)

A coarse prediction m of the clean value helps the network: if x_0 is normal about m with unit
variance, the best guess of x_0 from x is alpha x + sigma^2 m (the posterior mean). The network adds
a correction in its target's unit; m = 0 is the usual preconditioning for standardised data.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

NAMES = ("v", "x0", "eps")


def target_value(name: str, clean: Array, noise: Array, alpha: Array, sigma: Array) -> Array:
    """Returns the value of the target `name`; all arrays are broadcast.

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
    """Returns the x_0 that follows from a target's value at x; for "eps" alpha must be above 0.

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
    """Returns the noise that follows from a target's value at x; for "x0" sigma must be above 0.

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


def coarse_guess(name: str, coarse: Array, x: Array, alpha: Array, sigma: Array) -> Array:
    """Returns the target's value at the best guess from a coarse prediction and x; see the module.

    Raises:
      ValueError: no such target.
    """
    guess = alpha * x + sigma**2 * coarse
    return target_value(name, guess, sigma * (x - alpha * coarse), alpha, sigma)


def weight(alpha: Array, limit: float) -> Array:
    """Returns the weight of a squared error of x_0: min(1 + SNR, limit), SNR = (alpha / sigma)^2.

    1 + SNR makes it the squared error of v. The limit keeps nearly clean levels, which are easy and
    change little, from drowning the noisy ones (Hang et al. 2023, "Efficient Diffusion Training via
    Min-SNR Weighting"; with SNR + 1, as v needs at pure noise, where SNR is 0).
    """
    power = jnp.square(alpha)
    return jnp.minimum(1.0 / jnp.maximum(1.0 - power, 1e-6), limit)
