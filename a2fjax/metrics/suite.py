"""Computes every registered metric of a clip.

The built-in metrics are `BUILT_IN` and `BUILT_IN_OF_SAMPLES`. A package adds a metric by
registering it in `registry.metrics`, or in `registry.sample_metrics` if it needs several samples of
each clip; reports then include its values and columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from a2fjax import registry
from a2fjax.metrics.column import Column
from a2fjax.metrics.metric import Metric, SampleMetric
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums, merge

BUILT_IN = (
    "fidelity", "lips", "phones", "timing", "mtm", "sync", "dynamics", "energy", "slcc", "silence",
    "nonspeech", "eyes", "vertices",
)  # fmt: skip
"""Built-in metrics in the order of the report's columns."""

BUILT_IN_OF_SAMPLES = ("scores", "ranks", "agreement")

RATIO = Column(
    "rmse_ratio",
    "ratio",
    "root mean square error over that of the training set's mean pose",
    formula="bs_rmse/jaw_mouth / the same of the constant mean, both over the same clips",
)
"""Description of the ratio that `evaluation` forms of two rows of a report."""


def metrics() -> dict[str, Metric]:
    """Returns the registered metrics by name, built-in metrics first.

    Example:
        >>> list(metrics())[:2]
        ['fidelity', 'lips']
    """
    return _loaded(registry.metrics, BUILT_IN)


def sample_metrics() -> dict[str, SampleMetric]:
    """Returns the registered metrics of samples by name, built-in metrics first.

    Example:
        >>> list(sample_metrics())[0]
        'scores'
    """
    return _loaded(registry.sample_metrics, BUILT_IN_OF_SAMPLES)


def columns() -> list[Column]:
    """Returns the columns of a report's table: the values with a label."""
    return [column for metric in metrics().values() for column in metric.columns if column.label]


def sample_columns() -> list[Column]:
    """Returns the columns of a table of samples: the values with a label."""
    return [
        column for metric in sample_metrics().values() for column in metric.columns if column.label
    ]


def versions() -> dict[str, int]:
    """Returns the version of every described value by its id.

    Example:
        >>> versions()["rmse_ratio"]
        1
    """
    every = [*metrics().values(), *sample_metrics().values()]
    return {c.value: c.version for c in (RATIO, *(c for metric in every for c in metric.columns))}


def sums(prediction: np.ndarray, truth: Reference) -> Sums:
    """Reduces a predicted clip [T, 72] to the sums of every metric.

    Raises:
      ValueError: the prediction is not finite or differs in shape from the truth, or two metrics
        use the same name.
    """
    prediction = np.asarray(prediction, np.float64)
    _check(prediction, truth.motion.shape)
    return _joined({name: metric.sums(prediction, truth) for name, metric in metrics().items()})


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the values [...] of every metric from merged sums.

    Raises:
      ValueError: two metrics use the same name.
    """
    return _joined({name: metric.values(total) for name, metric in metrics().items()})


def person(total: Sums) -> Sums:
    """Returns the merged sums of one person's clips, ready to be added over people.

    Sums that skip this function lack the values of metrics by person, which are then NaN.
    """
    out = dict(total)
    for metric in metrics().values():
        if hasattr(metric, "person"):
            out |= metric.person(total)
    return out


def merge_clips(parts: Iterable[tuple[str, Sums]]) -> Sums:
    """Merges the sums of clips, given with the name of each clip's person.

    Raises:
      ValueError: no parts, or parts of different metrics.
    """
    people: dict[str, list[Sums]] = {}
    for name, part in parts:
        people.setdefault(name, []).append(part)
    return merge(person(merge(own)) for own in people.values())


def sample_sums(samples: np.ndarray, truth: Reference) -> Sums:
    """Reduces the samples [K, T, 72] of a clip to the sums of every metric of samples.

    Raises:
      ValueError: as `sums`, or no samples.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 3 or not len(samples):
        raise ValueError(f"samples {samples.shape}: expected [K, T, 72] with K >= 1")
    _check(samples, (len(samples), *truth.motion.shape))
    return _joined({name: each.sums(samples, truth) for name, each in sample_metrics().items()})


def sample_values(total: Sums) -> dict[str, np.ndarray]:
    """Returns the values [...] of every metric of samples from merged sums; as `values`."""
    return _joined({name: each.values(total) for name, each in sample_metrics().items()})


def _loaded(known: registry.Registry, built_in: tuple[str, ...]) -> dict[str, Any]:
    added = [name for name in known.names() if name not in built_in]
    return {name: known.get(name).load() for name in (*built_in, *added)}


def _check(prediction: np.ndarray, shape: tuple[int, ...]) -> None:
    if prediction.shape != shape:
        raise ValueError(f"prediction {prediction.shape}, truth {shape}")
    if not np.isfinite(prediction).all():
        raise ValueError("the prediction has values that are not finite")


def _joined(by_metric: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    out: dict[str, np.ndarray] = {}
    for name, arrays in by_metric.items():
        twice = out.keys() & arrays.keys()
        if twice:
            raise ValueError(f"metric {name!r} gives {sorted(twice)}, which another one gives too")
        out |= arrays
    return out
