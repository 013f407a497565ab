"""Metric interface: sums of a clip, values of merged sums, and report columns."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums


@dataclasses.dataclass(frozen=True)
class Column:
    """A report column that shows one value of a metric.

    Attributes:
      value: name of the value.
      label: heading of the column.
      meaning: description for the legend.
      form: number format.
      unit: unit of the value; "" for none.
      better: desired direction: "lower", "higher", or the ideal value, such as "1".
    """

    value: str
    label: str
    meaning: str = ""
    form: str = "{:.3f}"
    unit: str = ""
    better: str = "lower"


class Metric(Protocol):
    """A family of values; registered in `registry.metrics`, usually as a class of functions."""

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
