"""The table of a sweep: rows sorted by a metric, as text or CSV.

A row is a dictionary of `run`, `state`, `step`, `steps`, `seconds`, `overrides` (values or their
texts by key) and `metrics` (numbers by name); all but `run` may be missing.
"""

from __future__ import annotations

import csv as writer
import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from a2fjax import configuration, printing
from a2fjax.errors import InputError, nearest
from a2fjax.view import text as words
from launch.jobs.outcome import DONE
from launch.sweeps.sweep import overrides

METRIC = "eval/loss"
"""Default key that sorts the rows."""

Row = Mapping[str, Any]


def ordered(rows: Sequence[Row], metric: str) -> list[Row]:
    """Returns the rows, best first.

    Finished runs come before the others, and runs with the metric before those without.

    Args:
      rows: all rows of a sweep.
      metric: lower is better; "-name" if higher is better.

    Raises:
      InputError: there are metrics, but none of this name.
    """
    name, sign = parse_metric(metric)
    known = {k for row in rows for k in row.get("metrics") or {}}
    if known and name not in known:
        raise InputError(f"metric {name}: no run has it{nearest(name, sorted(known))}")

    def rank(row: Row) -> tuple[bool, bool, float]:
        value = score(row, name)
        return value is None, row.get("state") != DONE, 0.0 if value is None else sign * value

    finished = [r for r in rows if r.get("state") == DONE]
    others = [r for r in rows if r.get("state") != DONE]
    return sorted(finished, key=rank) + sorted(others, key=rank)


def parse_metric(metric: str) -> tuple[str, int]:
    """Returns a metric's name, and -1 if a leading "-" means that higher is better, else 1.

    Raises:
      InputError: the name is missing.
    """
    name = metric.removeprefix("-")
    if not name.strip():
        raise InputError(f"--metric {metric!r}: expected a name, or -name where more is better")
    return name, -1 if metric.startswith("-") else 1


def score(row: Row, name: str) -> float | None:
    """Returns a metric of a row; None if it is missing or not a finite number."""
    value = (row.get("metrics") or {}).get(name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if math.isfinite(value) else None


def swept(rows: Sequence[Row]) -> list[str]:
    """Returns the keys whose values differ between rows, including keys that some rows lack."""
    keys = dict.fromkeys(k for row in rows for k in row.get("overrides") or {})
    return [k for k in keys if len({repr(setting(row, k)) for row in rows}) > 1]


def setting(row: Row, key: str) -> Any:
    """Returns the value of a key in a row, or `UNSET`."""
    given = row.get("overrides") or {}
    if key not in given:
        return UNSET
    return configuration.parse_value(given[key]) if isinstance(given[key], str) else given[key]


class _Unset:
    def __repr__(self) -> str:
        return ""


UNSET: Any = _Unset()
"""Stands for a key that a row does not set."""


def text(rows: Sequence[Row], metric: str, width: int = 28) -> str:
    """Returns lines for a terminal, with values cut to `width` characters."""
    header, cells = _columns(rows, metric, lambda v: f"{v:.5g}")
    # Runs may differ only in the middle of their names, so names are not cut.
    short = [[row[0], *(words.short(c, width) for c in row[1:])] for row in cells]
    return "\n".join(words.table(short, [words.short(h, width) for h in header], indent="")) + "\n"


def csv(rows: Sequence[Row], metric: str) -> str:
    """Returns comma-separated values with all digits, every override and every metric."""
    name, _ = parse_metric(metric)
    keys = list(dict.fromkeys(k for row in rows for k in row.get("overrides") or {}))
    metrics = list(dict.fromkeys(k for row in rows for k in row.get("metrics") or {} if k != name))
    out = io.StringIO()
    lines = writer.writer(out, lineterminator="\n")
    # Metrics and keys may have the same names.
    named = [name, *metrics]
    header = ["run", "state", "step", "steps", "seconds"]

    # A name that begins with "=" would be a formula of the reader's spreadsheet.
    def write(cells: Sequence[Any]) -> None:
        lines.writerow(map(printing.csv_cell, cells))

    write([*header, *(f"metric.{m}" for m in named), *(f"config.{k}" for k in keys)])
    for row in ordered(rows, metric):
        given, got = row.get("overrides") or {}, row.get("metrics") or {}
        numbers = [
            v if isinstance(v, str) else repr(v) for v in (row.get(k, "") for k in header[2:])
        ]
        values = [given[k] if isinstance(given.get(k), str) else _text(given.get(k)) for k in keys]
        write([row["run"], row.get("state", ""), *numbers, *map(got.get, named), *values])
    return out.getvalue()


def progress(row: Row) -> str:
    """Returns the step and the total of a run, such as "5/10"."""
    step, steps = row.get("step"), row.get("steps")
    return f"{'-' if step is None else step}/{'-' if steps is None else steps}"


def shown(value: Any) -> str:
    """Returns a value as the command line writes it."""
    return "-" if value is UNSET else overrides({"": value})[""]


def _columns(
    rows: Sequence[Row], metric: str, number: Callable[[float], str]
) -> tuple[list[str], list[list[str]]]:
    name, _ = parse_metric(metric)
    keys = swept(rows)
    header = ["run", name, *keys, "state", "step", "time"]
    cells = []
    for row in ordered(rows, metric):
        value, seconds = score(row, name), row.get("seconds")
        cells.append(
            [
                str(row["run"]),
                "-" if value is None else number(value),
                *(shown(setting(row, k)) for k in keys),
                str(row.get("state") or "-"),
                progress(row),
                "-" if seconds is None else words.duration(seconds),
            ]
        )
    return header, cells


def _text(value: Any) -> str:
    return "" if value is None else shown(value)
