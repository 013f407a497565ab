"""Figures of evaluations: a report of one run, comparisons of runs and of reports."""

from __future__ import annotations

import abc
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fjax.api.tables import import_pandas
from a2fjax.errors import InputError

if TYPE_CHECKING:
    import pandas


@dataclasses.dataclass(frozen=True)
class _Figures(abc.ABC):
    values: dict[str, Any]

    @abc.abstractmethod
    def table(self) -> str:
        """Returns the figures as aligned text."""

    def save(self, path: str | Path) -> Path:
        """Writes the figures as JSON, completely or not at all, and returns the path.

        Raises:
          InputError: the file cannot be written.
        """
        from a2fjax.evaluation import report

        report.write(path, self.values)
        return Path(path)

    def __str__(self) -> str:
        """Returns the table."""
        return self.table()


@dataclasses.dataclass(frozen=True)
class Report(_Figures):
    """Figures of one run.

    Example:
        >>> Report.read("runs/none/eval/10.json")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: report runs/none/eval/10.json: no such file

    Attributes:
      values: nested dictionaries, as in the JSON; `a2fjax.evaluation.report` documents them.
    """

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Reads a report that `save` wrote.

        Raises:
          InputError: no such file, or not a report of this version.
        """
        from a2fjax.evaluation import report, report_page, report_text

        values = report.read(path)
        try:  # What cannot be shown is no report; it may come from anybody.
            report_text.table(values), report_page.page(values)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"{path}: not an evaluation report ({error!r})") from None
        return cls(values)

    def save(self, path: str | Path) -> Path:
        """Writes the report completely or not at all, and returns the path.

        Args:
          path: file ending in .html for a page without scripts and other files, else JSON.

        Raises:
          InputError: the file cannot be written.
        """
        from a2fjax import files
        from a2fjax.evaluation import report_page

        path = Path(path)
        if path.suffix.lower() != ".html":
            return super().save(path)
        files.make_folder(path.parent)
        files.write_text(path, report_page.page(self.values))
        return path

    @property
    def headline(self) -> list[str]:
        """The main figures of every split as lines of text."""
        return list(self.values["headline"])

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """Figures by split: "model", "interval", "baselines", "robustness", "by_subject", ..."""
        return self.values["splits"]

    def metrics(self, split: str | None = None) -> dict[str, float | None]:
        """Returns the model's figures by metric name; None where nothing could be measured.

        Args:
          split: None for the only or first split.

        Raises:
          InputError: no such split was measured.
        """
        from a2fjax.errors import nearest

        name = next(iter(self.splits)) if split is None else split
        if name not in self.splits:
            raise InputError(f"split {name!r} was not measured{nearest(name, self.splits)}")
        return self.splits[name]["model"]

    def table(self) -> str:
        """Returns the whole report as aligned text."""
        from a2fjax.evaluation import report_text

        return report_text.table(self.values)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with a row for each split and row of the report, a column a metric.

        Raises:
          InputError: pandas is not installed.
        """
        rows: dict[tuple[str, str], Any] = {}
        for split, part in self.splits.items():
            rows[split, "model"] = part["model"]
            rows |= {(split, name): row for name, row in part["baselines"].items()}
            rows |= {(split, f"model, {name}"): row for name, row in part["robustness"].items()}
        return _data_frame(rows, ("split", "row"))


@dataclasses.dataclass(frozen=True)
class Comparison(_Figures):
    """Figures of several runs, or ways of sampling, on the same clips.

    Example:
        >>> comparison = Comparison({"splits": {"test_subjects": {"rows": {}}}}, step=100)
        >>> list(comparison.splits)
        ['test_subjects']

    Attributes:
      values: nested dictionaries; `a2fjax.evaluation.comparison` documents the figures.
      step: checkpoint of the first run.
    """

    step: int

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """By split: "rows" with the figures by row name, and "clips"."""
        return self.values["splits"]

    def table(self) -> str:
        """Returns the comparison as aligned text."""
        from a2fjax.evaluation import comparison

        return comparison.table(self.values)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with a row for each split and model, a column a figure.

        Raises:
          InputError: pandas is not installed.
        """
        return _rows_frame(self.splits, "model")


@dataclasses.dataclass(frozen=True)
class ReportComparison(_Figures):
    """Reports of the same work beside each other.

    Example:
        >>> comparison = ReportComparison({"names": ["a", "b"], "splits": {}, "notes": []})
        >>> comparison.splits
        {}

    Attributes:
      values: nested dictionaries; `a2fjax.evaluation.bench` documents them.
    """

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """By split: "rows" with the figures by name, "interval", "tests", "clips", "people"."""
        return self.values["splits"]

    def table(self) -> str:
        """Returns the comparison as aligned text."""
        from a2fjax.evaluation import bench

        return bench.table(self.values)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a table with a row for each split and report, a column a figure.

        Raises:
          InputError: pandas is not installed.
        """
        return _rows_frame(self.splits, "report")


def _rows_frame(splits: dict[str, dict[str, Any]], label: str) -> pandas.DataFrame:
    rows = {
        (split, name): row for split, part in splits.items() for name, row in part["rows"].items()
    }
    return _data_frame(rows, ("split", label))


def _data_frame(rows: dict[tuple[str, str], Any], names: tuple[str, str]) -> pandas.DataFrame:
    pandas = import_pandas()
    index = pandas.MultiIndex.from_tuples(list(rows), names=names)
    return pandas.DataFrame(list(rows.values()), index=index)
