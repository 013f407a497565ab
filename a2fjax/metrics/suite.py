"""Computes every registered metric of a clip.

The built-in metrics are `BUILT_IN`. A package adds a metric by registering it in
`registry.metrics`; reports then include its values and columns.
"""

from __future__ import annotations

import numpy as np

from a2fjax import registry
from a2fjax.metrics.metric import Column, Metric
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums

BUILT_IN = ("fidelity", "lips", "timing", "dynamics", "energy", "silence")
"""Built-in metrics in the order of the report's columns."""


def metrics() -> dict[str, Metric]:
    """Returns the registered metrics by name, built-in metrics first.

    Example:
        >>> list(metrics())[:2]
        ['fidelity', 'lips']
    """
    added = [name for name in registry.metrics.names() if name not in BUILT_IN]
    return {name: registry.metrics.get(name).load() for name in (*BUILT_IN, *added)}


def columns() -> list[Column]:
    """Returns the columns of every metric, in the order of `metrics`."""
    return [column for metric in metrics().values() for column in metric.columns]


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a predicted clip [T, 72] to the sums of every metric.

    Raises:
      ValueError: the prediction is not finite or differs in shape from the truth, or two metrics
        use the same name.
    """
    prediction = np.asarray(prediction, np.float64)
    if prediction.shape != truth.motion.shape:
        raise ValueError(f"prediction {prediction.shape}, truth {truth.motion.shape}")
    if not np.isfinite(prediction).all():
        raise ValueError("the prediction has values that are not finite")
    return _joined({name: metric.sums(prediction, truth) for name, metric in metrics().items()})


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the values [...] of every metric from merged sums.

    Raises:
      ValueError: two metrics use the same name.
    """
    return _joined({name: metric.values(total) for name, metric in metrics().items()})


def _joined(by_metric: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for name, arrays in by_metric.items():
        twice = out.keys() & arrays.keys()
        if twice:
            raise ValueError(f"metric {name!r} gives {sorted(twice)}, which another one gives too")
        out |= arrays
    return out
