"""What a metric is: sums of a clip, values of added sums, and the columns of a report."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np

from a2fjax.metrics.reference import Reference
from a2fjax.metrics.sums import Sums


@dataclasses.dataclass(frozen=True)
class Column:
    """One value of a metric as a column of the report.

    Attributes:
      value: name of the value.
      label: head of the column.
      meaning: what it measures, for the legend.
      form: how a number is written.
      unit: unit of the value; "" for none.
      better: direction: "lower", "higher", or the value that is right, such as "1".
    """

    value: str
    label: str
    meaning: str = ""
    form: str = "{:.3f}"
    unit: str = ""
    better: str = "lower"


class Metric(Protocol):
    """One family of values; registered in `registry.metrics`, usually as a class of functions."""

    columns: tuple[Column, ...]

    @staticmethod
    def sums(prediction: np.ndarray, truth: Reference) -> Sums:
        """Reduces a clip to arrays that may be added over clips.

        Args:
          prediction: [T, 72] float64 in rig units, finite.
          truth: the clip's truth with its masks; masked frames and channels must add nothing.

        Returns:
          Arrays under names that no other metric has: begin them with the metric's name.
        """
        ...

    @staticmethod
    def values(total: Sums) -> dict[str, np.ndarray]:
        """Returns values [...] of added sums [..., K]; NaN where nothing was measured."""
        ...
