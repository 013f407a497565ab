"""How sure a number is: percentile bootstrap over subjects.

Frames and clips of one person are not independent, so whole subjects are drawn with replacement
(the cluster bootstrap). Few subjects give wide intervals, and one subject gives none.
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
    """Returns the interval of every metric.

    Args:
      subjects: added sums of each subject.
      values: turns sums with a leading axis [resamples] into metrics [resamples].
      seed: of the resampling; the same seed draws the same subjects.
      resamples: number of draws.
      level: coverage.

    Returns:
      {metric: (low, high)}; None with fewer than two subjects, or when more than half of the
      draws have no value.
    """
    if len(subjects) < 2:
        return dict.fromkeys(values(subjects[0]))
    rng = np.random.default_rng(seed)
    count = len(subjects)
    draws = rng.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(float)
    total = {
        key: np.tensordot(draws, np.stack([np.asarray(s[key]) for s in subjects]), axes=1)
        for key in subjects[0]
    }
    tail = 50.0 * (1.0 - level)
    out: dict[str, tuple[float, float] | None] = {}
    for name, drawn in values(total).items():
        known = drawn[np.isfinite(drawn)]
        if 2 * len(known) < resamples:
            out[name] = None
        else:
            low, high = np.percentile(known, [tail, 100.0 - tail])
            out[name] = (float(low), float(high))
    return out
