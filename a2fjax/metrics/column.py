"""Description of a value of a metric."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from a2fjax.metrics.groups import WEIGHT_GROUPS

WHOLE_LINE = (-math.inf, math.inf)
CORRELATION = (-1.0, 1.0)
SHARE = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Column:
    """A value of a metric, described; `docs/metrics.md` is made of these.

    Attributes:
      value: name of the value, which is its id in reports. "<...>" at its end stands for any text.
      label: heading in the table of a report; "" for a value that only the JSON has.
      meaning: one clause for the legend of the table.
      form: number format.
      unit: unit of the value; "" for none.
      better: desired direction: "lower", "higher", the ideal number, such as "1", the name of
        the value that it should equal, such as "slcc_truth", or "" for one that describes data.
      formula: definition in terms of the metric's own description.
      source: publication or code that defines it; "" for a definition of this project.
      mask: which frames and channels count.
      rate: how the value depends on the frame rate.
      range: smallest and largest possible value.
      version: raised by every change that alters the value.
    """

    value: str
    label: str = ""
    meaning: str = ""
    form: str = "{:.3f}"
    unit: str = ""
    better: str = "lower"
    formula: str = ""
    source: str = ""
    mask: str = "valid frames, observed channels"
    rate: str = "50 fps"
    range: tuple[float, float] = (0.0, math.inf)
    version: int = 1

    def describes(self, name: str) -> bool:
        """Returns whether this is the description of the value `name`.

        Example:
            >>> Column("rank_histogram/<rank>").describes("rank_histogram/3")
            True
        """
        start, pattern, _ = self.value.partition("<")
        return name.startswith(start) if pattern else name == self.value


def by_group(
    value: str, *, shown: str = "jaw_mouth", label: str = "", **facts: Any
) -> list[Column]:
    """Returns the columns of a value of every channel group, of which one is in the table.

    Args:
      value: name without its group.
      shown: group whose column has the label.
      label: heading in the table; "" for none.
      **facts: other attributes of `Column`.

    Example:
        >>> [column.value for column in by_group("corr")][:2]
        ['corr/all', 'corr/jaw_mouth']
    """
    return [
        Column(f"{value}/{group}", label if group == shown else "", **facts)
        for group in WEIGHT_GROUPS
    ]
