"""From noise to a sample, by a function that predicts the clean value.

All samplers visit the same levels and call the denoiser once at each, from the noisiest on. A visit
with the prediction D of x_0 is

    x <- clean (D + change (D - D of the visit before)) + noisy x + fresh noise,

and samplers differ in the `Coefficients`. The work is in float32, they are computed in float64.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.diffusion.schedule import Levels

Denoise = Callable[[Array, Array], Array]
"""(x [...], number of the visit, int32 scalar from 0, the noisiest, on) -> prediction of x_0."""

Draw = Callable[[Array], Array]
"""(number of the visit) -> noise N(0, 1) of the shape of x."""

NAMES = ("angle", "dpm", "ddim", "ddpm", "consistency")

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """A sampler's visits; see the module.

    Attributes:
      clean: [N] float64, share of the prediction.
      noisy: [N] float64, share of x.
      change: [N] float64, of the prediction's last change; 0 at the first visit.
      fresh: [N] float64, share of noise that is drawn anew.
    """

    clean: np.ndarray
    noisy: np.ndarray
    change: np.ndarray
    fresh: np.ndarray


def ddim(
    denoise: Denoise, start: Array, levels: Levels, *, eta: float = 0.0, draw: Draw | None = None
) -> Array:
    """Samples by DDIM (Song et al. 2021, "Denoising Diffusion Implicit Models", eq. 12 and 16).

    With eta = 0 the noise that x holds beside the predicted x_0 is kept at the next level's share,
    and nothing is drawn. With eta = 1 it is ancestral sampling (Ho et al. 2020, algorithm 2, with
    the posterior's variance; between distant levels as the "respaced" process of Nichol and
    Dhariwal 2021).

    Args:
      denoise: see `Denoise`.
      start: x at the first level, N(0, 1).
      levels: to visit.
      eta: share of the posterior's deviation that is drawn anew, 0 to 1.
      draw: gives that noise; not needed with eta = 0.

    Returns:
      x_0, of the shape of `start`.
    """
    return _run(denoise, start, _ddim(levels, eta), draw)


def _ddim(levels: Levels, eta: float) -> Coefficients:
    a, s = levels.alpha[:-1], levels.sigma[:-1]
    a_next, s_next = levels.alpha[1:], levels.sigma[1:]
    fresh = eta * (s_next / s) * np.sqrt(np.maximum(1.0 - (a / a_next) ** 2, 0.0))
    noisy = np.sqrt(np.maximum(s_next**2 - fresh**2, 0.0)) / s
    return Coefficients(a_next - a * noisy, noisy, np.zeros(levels.count), fresh)


def dpm(denoise: Denoise, start: Array, levels: Levels) -> Array:
    """Samples by DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order, no noise drawn.

    Between levels s > t, with lambda = log(alpha / sigma) and h = lambda_t - lambda_s:
    x_t = (sigma_t / sigma_s) x_s - alpha_t (exp(-h) - 1) D, D being the predicted x_0, from the
    second visit on extrapolated by the one before: (1 + 1 / 2r) D_i - (1 / 2r) D_{i-1},
    r = h_{i-1} / h_i. The step from pure noise has no finite length, nor has the last one to the
    clean value; the one after the first, and the last, are therefore of first order.

    Args:
      denoise: see `Denoise`.
      start: x at the first level, N(0, 1).
      levels: to visit.

    Returns:
      x_0, of the shape of `start`.
    """
    return _run(denoise, start, _dpm(levels))


def _dpm(levels: Levels) -> Coefficients:
    with np.errstate(divide="ignore"):
        length = np.diff(np.log(levels.alpha) - np.log(levels.sigma))
    noisy = levels.sigma[1:] / levels.sigma[:-1]
    clean = levels.alpha[1:] - levels.alpha[:-1] * noisy
    ratio = np.zeros(levels.count)
    finite = np.isfinite(length)
    both = finite[1:] & finite[:-1]
    ratio[1:][both] = 0.5 * length[1:][both] / length[:-1][both]
    return Coefficients(clean, noisy, ratio, np.zeros(levels.count))


def angle(denoise: Denoise, start: Array, levels: Levels) -> Array:
    """Samples with second order from the first level to the last, no noise drawn.

    With r = alpha / sigma the path is x_t / sigma_t = x_s / sigma_s + integral of D dr from r_s to
    r_t, D being the predicted x_0. As `dpm`, a step takes D along the path from the last two
    predictions, but as a line in phi^2, phi = atan2(sigma, alpha), instead of in log r. That is
    finite at both ends, where `dpm` falls back to first order, which with few steps is most of
    them; and it is what D does at the clean end, where it is the truth but for a term in
    sigma^2 (Tweedie's formula: D = (x + sigma^2 score) / alpha). On Gaussians of deviations 0.1 to
    1 and four steps its error is 0.94 to 0.47 times `dpm`'s, with eight 0.88 to 0.66.

    Args:
      denoise: see `Denoise`.
      start: x at the first level, N(0, 1).
      levels: to visit.

    Returns:
      x_0, of the shape of `start`.
    """
    return _run(denoise, start, _angle(levels))


def _angle(levels: Levels) -> Coefficients:
    a, s = levels.alpha, levels.sigma
    noisy = s[1:] / s[:-1]
    clean = a[1:] - a[:-1] * noisy
    phi = np.arctan2(s, a)
    ratio = np.zeros(levels.count)
    for i in range(1, levels.count):
        # Mean over the step, in r, of the change of phi^2 since the last known point.
        change = phi[i] ** 2
        if phi[i + 1] > 0.0:
            nodes = 0.5 * (phi[i] + phi[i + 1]) + 0.5 * (phi[i] - phi[i + 1]) * _NODES
            weights = _WEIGHTS / np.sin(nodes) ** 2
            change = float(np.sum(weights * (phi[i] ** 2 - nodes**2)) / np.sum(weights))
        ratio[i] = change / (phi[i - 1] ** 2 - phi[i] ** 2)
    return Coefficients(clean, noisy, ratio, np.zeros(levels.count))


def consistency(denoise: Denoise, start: Array, levels: Levels, draw: Draw) -> Array:
    """Samples by a network that predicts the end of a level's path, not the mean of all ends.

    After each call fresh noise of the next level is added (Song et al. 2023, "Consistency Models",
    algorithm 1).

    Args:
      denoise: see `Denoise`.
      start: x at the first level, N(0, 1).
      levels: to visit.
      draw: gives the noise.

    Returns:
      x_0, of the shape of `start`.
    """
    return _run(denoise, start, _consistency(levels), draw)


def _consistency(levels: Levels) -> Coefficients:
    none = np.zeros(levels.count)
    return Coefficients(levels.alpha[1:], none, none, levels.sigma[1:])


def coefficients(name: str, levels: Levels, *, eta: float = 0.0) -> Coefficients:
    """Returns the visits of the sampler of that name.

    Args:
      name: one of `NAMES`.
      levels: to visit.
      eta: of "ddim"; "ddpm" is "ddim" with 1.

    Raises:
      ValueError: no such sampler.
    """
    if name == "angle":
        return _angle(levels)
    if name == "dpm":
        return _dpm(levels)
    if name == "consistency":
        return _consistency(levels)
    if name in ("ddim", "ddpm"):
        return _ddim(levels, 1.0 if name == "ddpm" else eta)
    raise ValueError(f"sampler {name!r}: expected one of {NAMES}")


def sample(
    name: str, denoise: Denoise, start: Array, levels: Levels, draw: Draw, *, eta: float = 0.0
) -> Array:
    """Samples by the sampler of that name.

    Args:
      name: one of `NAMES`.
      denoise: see `Denoise`.
      start: x at the first level, N(0, 1).
      levels: to visit.
      draw: gives fresh noise.
      eta: of "ddim"; "ddpm" is "ddim" with 1.

    Returns:
      x_0, of the shape of `start`.

    Raises:
      ValueError: no such sampler.

    Example:
        >>> from a2fjax.diffusion import schedule
        >>> levels = schedule.levels("cosine", 4)
        >>> def denoise(x, visit):  # knows the clean value
        ...     return 0.5 * jnp.ones_like(x)
        >>> x = sample("angle", denoise, jnp.ones(3), levels, draw=lambda visit: jnp.zeros(3))
        >>> x.round(3).tolist()
        [0.5, 0.5, 0.5]
    """
    return _run(denoise, start, coefficients(name, levels, eta=eta), draw)


def _run(
    denoise: Denoise, start: Array, coefficients: Coefficients, draw: Draw | None = None
) -> Array:
    extrapolates, draws = coefficients.change.any(), coefficients.fresh.any()

    def visit(
        carry: tuple[Array, Array | None], step: tuple[Array, ...]
    ) -> tuple[tuple[Array, Array | None], None]:
        x, previous = carry
        i, clean_share, noisy_share, change, fresh_share = step
        clean = guess = denoise(x, i)
        if previous is not None:
            guess = clean + change * (clean - previous)
        x = clean_share * guess + noisy_share * x
        if draws and draw is not None:
            x = x + fresh_share * draw(i)
        return (x, None if previous is None else clean), None

    steps = (
        jnp.arange(len(coefficients.clean), dtype=jnp.int32),
        *(jnp.asarray(each, jnp.float32) for each in dataclasses.astuple(coefficients)),
    )
    previous = jnp.zeros_like(start) if extrapolates else None
    return jax.lax.scan(visit, (start, previous), steps)[0][0]
