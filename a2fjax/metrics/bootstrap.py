"""Confidence intervals from a percentile bootstrap over subjects.

Frames and clips of one subject are not independent, so whole subjects are drawn with replacement
(the cluster bootstrap). Few subjects give wide intervals; a single subject gives none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from a2fjax.metrics.sums import Sums

Values = Callable[[Sums], dict[str, np.ndarray]]


def intervals(
    subjects: Sequence[Sums],
    values: Values,
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, tuple[float, float] | None]:
    """Returns the confidence interval of every metric.

    Args:
      subjects: merged sums of each subject.
      values: turns sums with a leading axis [resamples] into metrics [resamples].
      seed: seed of the resampling; the same seed draws the same subjects.
      resamples: number of draws.
      level: coverage.

    Returns:
      {metric: (low, high)}; None with fewer than two subjects, or if more than half of the draws
      have no value.
    """
    if len(subjects) < 2:
        return dict.fromkeys(values(subjects[0]))
    draws = _draws(len(subjects), seed, resamples)
    return _percentiles(values(_drawn(draws, subjects)), level)


def _draws(count: int, seed: int, resamples: int) -> np.ndarray:
    """Returns the count of each subject in each draw [resamples, count]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(float)


def _drawn(draws: np.ndarray, subjects: Sequence[Sums]) -> Sums:
    return {
        key: np.tensordot(draws, np.stack([np.asarray(s[key]) for s in subjects]), axes=1)
        for key in subjects[0]
    }


def _percentiles(
    values: dict[str, np.ndarray], level: float
) -> dict[str, tuple[float, float] | None]:
    tail = 50.0 * (1.0 - level)
    out: dict[str, tuple[float, float] | None] = {}
    for name, drawn in values.items():
        known = drawn[np.isfinite(drawn)]
        if 2 * len(known) < len(drawn):
            out[name] = None
        else:
            low, high = np.percentile(known, [tail, 100.0 - tail])
            out[name] = (float(low), float(high))
    return out
