"""Writes the table of a sweep to a file, in the format of its ending."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from a2fjax import files
from a2fjax.errors import InputError
from launch.monitor import table, table_html
from launch.monitor.table import Row


def page(rows: Sequence[Row], metric: str, title: str = "Sweep") -> str:
    """Returns one self-contained HTML page: parallel coordinates and a sortable table.

    Args:
      rows: rows of the sweep, in any order.
      metric: lower is better; "-name" if higher is better.
      title: title of the page.

    Raises:
      InputError: no row has the metric.
    """
    return table_html.render(table.ordered(rows, metric), *table.parse_metric(metric), title)


def write(path: str | Path, rows: Sequence[Row], metric: str, title: str = "Sweep") -> None:
    """Writes a table atomically, as .csv, .html or .txt.

    Raises:
      InputError, WorkFailed: no such format or metric, or as `files.write_text`.
    """
    formats: dict[str, Callable[[], str]] = {
        ".csv": lambda: table.csv(rows, metric),
        ".html": lambda: page(rows, metric, title),
        ".txt": lambda: table.text(rows, metric),
    }
    ending = Path(path).suffix.lower()
    if ending not in formats:
        raise InputError(
            f"{path}: the ending chooses the format: expected one of: {', '.join(formats)}"
        )
    files.write_text(path, formats[ending]())
