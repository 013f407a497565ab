"""Tests of paired differences: people are the units, and runs of either side are drawn with them.

Values are [runs, people] for each side; a person's difference is the mean over the second side's
runs less that over the first's. From 8 people on, a percentile bootstrap draws people and, where a
side has several runs, runs, both with replacement (the two are crossed, so one draw of people
serves all runs). Below 8, the bootstrap's intervals are too narrow, and exact tests take its place:

    p         share of the 2^n ways to flip the signs of n differences whose mean is at least as
              far from 0 as the observed one (Fisher's randomisation test)
    interval  order statistics of the means of all non-empty subsets of the differences, which the
              true centre of symmetric differences separates with equal chances (Hartigan 1969,
              "Using subsample values as typical values"); 5 people or fewer allow none of 95 %

With 5 people p cannot fall below 1/16, whatever the difference.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

FEWEST_FOR_BOOTSTRAP = 8
LEVEL = 0.95
POWER = 0.8
_TIES = 1e-12
_SIMULATED = 4000


@dataclasses.dataclass(frozen=True)
class Test:
    """A paired test of one figure.

    Attributes:
      people: number of people with a value on both sides.
      difference: mean over people of second minus first; NaN without people.
      interval: 95 % interval of the difference, or None.
      p: two-sided; None with fewer than 2 people.
      detectable: smallest difference that would be found (p < 0.05) in 80 % of such data, from the
        spread of this data's differences; None where no difference would be.
      method: "bootstrap" or "sign flips".
    """

    people: int
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    detectable: float | None
    method: str


def paired(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = 2000) -> Test:
    """Tests whether two sides differ.

    Args:
      first: [runs, people] values of the first side; people with a NaN on either side are left out.
      second: [runs, people] values of the second side, of the same people.
      seed: seed of the bootstrap.
      resamples: number of bootstrap draws.

    Example:
        >>> paired(np.zeros((1, 6)), np.array([[1.0, 2, 3, 4, 5, 6]])).p
        0.03125
    """
    known = np.isfinite(first).all(0) & np.isfinite(second).all(0)
    first, second = first[:, known], second[:, known]
    people = int(known.sum())
    differences = second.mean(0) - first.mean(0)
    method = "bootstrap" if people >= FEWEST_FOR_BOOTSTRAP else "sign flips"
    mean = float(differences.mean()) if people else float("nan")
    if people < 2:
        return Test(people, mean, None, None, None, method)
    if method == "sign flips":
        spread = float(differences.std(ddof=1))
        factor = sign_flip_effect(people)
        return Test(
            people,
            mean,
            typical_interval(differences),
            sign_flip(differences),
            None if factor is None else factor * spread,
            method,
        )
    drawn = _bootstrap(first, second, seed, resamples)
    low, high = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    side = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2.0 * (side + 1) / (resamples + 1))
    if not np.ptp(drawn):
        p = 1.0 if abs(mean) < _TIES else 2.0 / (resamples + 1)
    return Test(
        people,
        mean,
        (float(low), float(high)),
        p,
        t_effect(people) * float(drawn.std(ddof=1)),
        method,
    )


def sign_flip(differences: np.ndarray) -> float:
    """Returns the two-sided p of the exact sign-flip test of differences [n], n at most 20.

    Example:
        >>> sign_flip(np.array([1.0, 1.0, 1.0]))
        0.25
    """
    signs = _signs(len(differences))
    means = np.abs(signs @ differences)
    observed = np.abs(differences.sum())
    return float((means >= observed - _TIES * max(1.0, observed)).mean())


def typical_interval(differences: np.ndarray, level: float = LEVEL) -> tuple[float, float] | None:
    """Returns the interval of differences [n] from subset means; None where n is too small."""
    subsets = (_signs(len(differences)) > 0)[:-1]  # The last row has no positive sign.
    means = np.sort(subsets @ differences / subsets.sum(1))
    # The true centre lies between any two neighbours, or outside, with chance 1 / 2^n each.
    tail = int((1.0 - level) / 2.0 * 2 ** len(differences))
    if tail < 1:
        return None
    return float(means[tail - 1]), float(means[-tail])


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Returns p-values adjusted by Holm's step-down method; None stays None and does not count.

    Example:
        >>> holm([0.01, 0.04, 0.03, None])
        [0.03, 0.06, 0.06, None]
    """
    known = sorted((p, i) for i, p in enumerate(values) if p is not None)
    out: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        out[i] = largest
    return out


@functools.cache
def t_effect(people: int) -> float:
    """Returns the difference, in standard errors, that a paired t test finds with power 0.8."""
    from scipy import optimize, stats

    freedom = people - 1
    bound = stats.t.ppf(0.5 * (1 + LEVEL), freedom)

    def missing(shift: float) -> float:
        # The other side's chance is below 1e-5 at this power.
        return float(stats.nct.sf(bound, freedom, shift)) - POWER

    return float(optimize.brentq(missing, 0.0, bound + 3.0))


@functools.cache
def sign_flip_effect(people: int) -> float | None:
    """Returns the difference, in standard deviations, that sign flips find with power 0.8.

    Differences are normal; 4,000 simulated sets with a fixed seed. None where no difference can
    have p < 0.05.
    """
    if 2.0 / 2**people >= 1 - LEVEL:
        return None
    noise = np.random.default_rng(0).standard_normal((_SIMULATED, people))
    signs = _signs(people)

    def power(shift: float) -> float:
        shifted = noise + shift
        flipped = np.abs(shifted @ signs.T)
        observed = np.abs(shifted.sum(1, keepdims=True))
        return float(((flipped >= observed - _TIES).mean(1) < 1 - LEVEL).mean())

    low, high = 0.0, 10.0
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if power(middle) < POWER else (low, middle)
    return high


@functools.cache
def _signs(count: int) -> np.ndarray:
    """Returns all [2^n, n] signs, the row without a positive one last."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=count)))


def _bootstrap(first: np.ndarray, second: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Returns the mean differences [resamples] of drawn people and runs."""
    rng = np.random.default_rng(seed)
    people = first.shape[1]
    weights = rng.multinomial(people, np.full(people, 1 / people), size=resamples) / people
    means = []
    for values in (first, second):
        runs = len(values)
        drawn = rng.multinomial(runs, np.full(runs, 1 / runs), size=resamples) / runs
        means.append(np.einsum("rk,kp,rp->r", drawn, values, weights))
    return means[1] - means[0]
