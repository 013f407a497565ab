"""Metric interfaces: sums of a clip and values of merged sums."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from a2fjax.metrics.column import Column
from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums


class Metric(Protocol):
    """A family of values; registered in `registry.metrics`, usually as a class of functions.

    A metric whose values are not functions of sums over all clips, because every person counts
    for itself, also has `person(total: Sums) -> Sums`: given the merged sums of one person's
    clips, it returns the same names, ready to be added over people.

    Attributes:
      columns: descriptions of all values, in the order of the table.
    """

    columns: tuple[Column, ...]

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip to arrays that can be added over clips.

        Args:
          prediction: [T, 72] float64 in rig units, finite.
          truth: the clip's truth with its masks; masked frames and channels must add nothing.

        Returns:
          Arrays under names unique to this metric: prefix them with the metric's name.
        """
        ...

    @staticmethod
    def values(total: Sums) -> dict[str, np.ndarray]:
        """Returns the values [...] of merged sums [..., K]; NaN where nothing was measured."""
        ...


class SampleMetric(Protocol):
    """A family of values of several samples of a clip; registered in `registry.sample_metrics`.

    Attributes:
      columns: descriptions of all values, in the order of the table.
    """

    columns: tuple[Column, ...]

    @staticmethod
    def sums(samples: np.ndarray, truth: Reference) -> Sums:
        """Reduces the samples [K, T, 72] of a clip, K >= 1; otherwise as `Metric.sums`."""
        ...

    @staticmethod
    def values(total: Sums) -> dict[str, np.ndarray]:
        """As `Metric.values`."""
        ...
