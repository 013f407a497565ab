"""Compares the files of a bundle with the product, case by case."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.errors import WorkFailed
from a2fjax.export.formats.base import Run
from a2fjax.export.graph import Case, Graph
from a2fjax.export.source import Source

BOUND = 1e-4
"""Largest difference of a file in float32: of a weight; of an angle, this share of 30 degrees.

Of an output without such a range, it is a share of the value where that exceeds 1: a mesh unlike
the training faces may be hundreds of deviations away in `components`.
"""


@dataclasses.dataclass(frozen=True)
class Difference:
    """Largest difference of an output in one case.

    Attributes:
      case, output: names.
      largest: in units of a weight.
      worst: what the last axis counts there, such as the channel; "" where it has no names.
      shape: of the output.
    """

    case: str
    output: str
    largest: float
    worst: str
    shape: tuple[int, ...]


def compare(graph: Graph, source: Source, cases: Sequence[Case], run: Run) -> list[Difference]:
    """Returns the difference of each output in each case."""
    found = []
    for case in cases:
        for name, got in zip(case.expected, run(case.inputs), strict=True):
            found.append(_difference(graph, source, case, name, np.asarray(got)))
    return found


def _difference(graph: Graph, source: Source, case: Case, name: str, got: np.ndarray) -> Difference:
    expected = case.expected[name]
    columns = graph.columns(source, name)
    if got.shape != expected.shape:
        raise WorkFailed(
            f"graph {graph.name}: {name} has shape {got.shape} in the case {case.name!r}, "
            f"expected {expected.shape}"
        )
    # Not a number is as wrong as can be, and must not hide in a maximum.
    wrong = np.nan_to_num(np.abs(got - expected), nan=np.inf)
    if columns == rig.CHANNELS:
        wrong = wrong / rig.SCALE
    else:
        wrong = wrong / np.maximum(np.abs(expected), 1.0)
    if case.valid is not None:
        wrong = wrong[case.valid]
    largest = float(wrong.max(initial=0.0))
    place = int(np.unravel_index(wrong.argmax(), wrong.shape)[-1]) if wrong.size else 0
    return Difference(case.name, name, largest, columns[place] if columns else "", got.shape)


def report(found: Sequence[Difference], bound: float = BOUND) -> dict[str, Any]:
    """Returns differences as JSON values: the bound, the worst, then each case."""
    worst = max(found, key=lambda difference: difference.largest)
    return {
        "bound": bound,
        "largest": worst.largest,
        "worst": {"case": worst.case, "output": worst.output, "channel": worst.worst},
        "cases": [
            {**dataclasses.asdict(difference), "shape": list(difference.shape)}
            for difference in found
        ],
    }


def check(found: Sequence[Difference], file: str, bound: float = BOUND) -> None:
    """Checks differences against the bound.

    Raises:
      WorkFailed: one is larger; names the file, the case and the channel.
    """
    worst = max(found, key=lambda difference: difference.largest)
    if not worst.largest <= bound:
        raise WorkFailed(
            f"{file}: differs from the product by {worst.largest:.3g} of a weight in "
            f"{worst.worst or worst.output} ({worst.case}), expected at most {bound:g}; "
            "nothing was written"
        )
