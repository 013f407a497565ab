"""Compares two sides, each one run or several seeds of it, by the people of their reports.

Values are each person's figures, so that every person counts equally. Figures with an ideal value
are compared by their distance from it. `significance` tests the differences; Holm's adjustment is
over the headline figures of a split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax.errors import InputError
from a2fjax.evaluation import report, significance
from a2fjax.evaluation.layout import align, count_people, show
from a2fjax.metrics.column import Column

LEGEND = (
    "mean over people of each side; difference = second less first, of the distance from the ideal "
    "value where there is one; p Holm = adjusted for the number of headline figures; smallest = "
    "difference that such data show with p < 0.05 in 4 of 5 cases"
)


def compare(
    first: Sequence[dict[str, Any]],
    second: Sequence[dict[str, Any]],
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Compares reports of the same clips.

    Args:
      first: reports of the first side, one for each run.
      second: reports of the second side.
      seed: seed of the bootstrap.
      resamples: number of bootstrap draws.

    Returns:
      {"first", "second": what each report is about, "splits": {split: {"people", "method",
      "metrics": {metric: {"first", "second", "difference", "low", "high", "p", "p_holm",
      "detectable", "people"}}}}}; p_holm of headline figures only.

    Raises:
      InputError: the reports have no split in common, or other people.
    """
    splits = [s for s in first[0]["splits"] if all(s in r["splits"] for r in (*first, *second))]
    if not splits:
        raise InputError("the reports have no split in common")
    found = {
        split: compare_split(
            [r["splits"][split] for r in first],
            [r["splits"][split] for r in second],
            split,
            seed=seed,
            resamples=resamples,
        )
        for split in splits
    }
    for part in found.values():
        adjust([part])
    return {
        "first": [report.subject(r) for r in first],
        "second": [report.subject(r) for r in second],
        "splits": found,
    }


def adjust(parts: Sequence[dict[str, Any]]) -> None:
    """Fills in "p_holm" of the headline figures of comparisons that are made together."""
    tests = [part["metrics"][n] for part in parts for n in report.HEADLINE if n in part["metrics"]]
    for test, p in zip(tests, significance.holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p


def table(compared: dict[str, Any]) -> list[str]:
    """Returns the comparison as lines of aligned text."""
    lines = ["", f"first: {', '.join(compared['first'])}"]
    lines += [f"second: {', '.join(compared['second'])}", LEGEND]
    for split, part in compared["splits"].items():
        lines += ["", title(split, part)]
        lines += align(*rows(part))
    return lines


def title(split: str, part: dict[str, Any]) -> str:
    """Returns the heading of a split's table, with the number of people and the method."""
    how = part["method"]
    if how == "sign flips":
        how += f", exact: p cannot be below {2 / 2 ** part['people']:.3g}"
    return f"{split}, paired over {count_people(part['people'])} ({how})"


def rows(part: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a split's table, as text."""
    header = ["", "first", "second", "difference", "95% low", "95% high", "p", "p Holm", "smallest"]
    out = []
    for column in report.columns():
        found = part["metrics"].get(column.value)
        if found is None:
            continue
        signed = "{:+" + column.form.removeprefix("{:").lstrip("+")
        ideal = _ideal(column)
        out.append(
            [
                f"{column.label} (from {ideal})" if ideal else column.label,
                *(show(found[k], column.form) for k in ("first", "second")),
                *(show(found[k], signed) for k in ("difference", "low", "high")),
                *(show(found[k], "{:.3f}") for k in ("p", "p_holm")),
                show(found["detectable"], column.form.replace("+", "")),
            ]
        )
    return header, out


def compare_split(
    first: Sequence[dict[str, Any]],
    second: Sequence[dict[str, Any]],
    split: str,
    *,
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, Any]:
    """Returns the comparison of one split, without adjusted p; arguments as for `compare`."""
    sides = (first, second)
    people = sorted(first[0]["by_subject"])
    for part in (part for side in sides for part in side):
        if sorted(part["by_subject"]) != people:
            other = sorted(set(part["by_subject"]) ^ set(people))
            raise InputError(f"split {split}: the reports are of other people, such as {other[0]}")
    metrics: dict[str, Any] = {}
    for column in report.columns():
        values = [_values(side, people, column.value) for side in sides]
        distances = [
            _distance(v, side, people, column) for v, side in zip(values, sides, strict=True)
        ]
        # A person without the ideal value has no distance, and is in no mean either.
        known = np.isfinite(distances[0]).all(0) & np.isfinite(distances[1]).all(0)
        if not known.any():
            continue
        found = significance.paired(*distances, seed=seed, resamples=resamples)
        metrics[column.value] = {
            "first": float(values[0][:, known].mean()),
            "second": float(values[1][:, known].mean()),
            **report.plain_test(found),
            "p_holm": None,
        }
    few = len(people) < significance.FEWEST_FOR_BOOTSTRAP
    return {
        "people": len(people),
        "method": "sign flips" if few else "bootstrap",
        "metrics": metrics,
    }


def _values(side: Sequence[dict[str, Any]], people: Sequence[str], metric: str) -> np.ndarray:
    """Returns the values [runs, people] of a figure, NaN where there is none."""
    found = [[part["by_subject"][p]["metrics"].get(metric) for p in people] for part in side]
    return np.array([[np.nan if v is None else float(v) for v in row] for row in found])


def _ideal(column: Column) -> str:
    """Returns the ideal of a figure: a number, the name of another figure, or "" for none."""
    return "" if column.better in ("lower", "higher") else column.better


def _distance(
    values: np.ndarray, side: Sequence[dict[str, Any]], people: Sequence[str], column: Column
) -> np.ndarray:
    ideal = _ideal(column)
    if not ideal:
        return values
    try:
        return np.abs(values - float(ideal))
    except ValueError:
        return np.abs(values - _values(side, people, ideal))
