"""Evaluation reports as JSON.

Layout of the JSON, with `null` for missing values:

    schema, run, step, model, config, rig     the evaluated model (fingerprints); run, step and
                                              config are null for files
    lookahead_ms                              of a model for live audio, else null
    judge                                     null, or the judge of lip sync: run, step, weights,
                                              kind, seed, passed (its gate), gate (by split: people,
                                              clips, curve); see `judge`
    predictions                               null, or how files were read: folder, files, fps,
                                              units, mouth_close, missing_channels, offset_ms
                                              (positive is late), aligned_ms, notes
    sync_experts                              of the training's loss: [{run, kind, step, weights,
                                              passed, ...}]; see `training.sync_loss.Record`
    data                                      [{folder, fingerprint of its manifest, synthetic}]
    synthetic                                 true if any clip is synthetic
    splits.<split>.model                      {metric: value}; definitions in `a2fjax.metrics`
                  .interval                   {metric: [low, high]}, 95 % over subjects
                  .baselines.<name>           the same metrics of `a2fjax.evaluation.baselines`
                  .baseline_clips             {name: number of clips that allow it}
                  .robustness.<name>          the same model under `a2fjax.evaluation.conditions`
                  .difference.<name>          {metric: {difference, low, high, p, detectable,
                                              people}}: paired test of the headline figures' change
                                              under the condition; see `significance`
                  .by_subject, .by_emotion    {name: {clips, metrics}}
                  .by_channel                 {channel: {mae, rmse, corr, amp_ratio}}, measured ones
                  .by_clip                    worst first
                  .timelines                  of the worst clips; see `timelines`
                  .judge                      what the judge makes of the truth, or absent; see
                                              `judge_scale`
    columns                                   of tables: {value, label, meaning, form, unit, better}
    against                                   comparison with other runs; see `paired`; or absent
    bench                                     what was measured, by hashes; see `bench`
    headline                                  the main results as lines of text
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from a2fjax import budgets, files, typed_json
from a2fjax.errors import InputError
from a2fjax.evaluation import significance
from a2fjax.metrics import suite
from a2fjax.metrics.column import Column

SCHEMA = 2

READS = (1, 2)
"""Schemas that `read` accepts. Schema 1 had runs only."""

HEADLINE = (
    "rmse_ratio",
    "closure_f1",
    "xcorr_lag_ms",
    "amp_ratio/jaw_mouth",
    "pause_aperture",
)
"""Figures that comparisons are decided by; p-values are adjusted for their number."""

CLIP_METRICS = (
    "rmse_ratio",
    "bs_rmse/jaw_mouth",
    "mod",
    "closure_f1",
    "closure_recall",
    "closure_precision",
    "xcorr_lag_ms",
    "amp_ratio/jaw_mouth",
)

_NEW_NAMES = {"slcc": "loudness_corr", "slcc_truth": "loudness_corr_truth"}
"""Names of metrics in schema 1; "slcc" is another metric today."""

_COLUMN_KEYS = ("value", "label", "meaning", "form", "unit", "better")


def columns() -> list[Column]:
    """Returns the columns of the table: the ratio, then the columns of every registered metric."""
    return [suite.RATIO, *suite.columns()]


def figures_of(result: dict[str, Any]) -> set[str]:
    """Returns the names of the figures that a report has for its model or a baseline."""
    rows = [
        row
        for part in result["splits"].values()
        for row in (part["model"], *part["baselines"].values())
    ]
    return {name for row in rows for name, value in row.items() if value is not None}


def described_columns() -> list[dict[str, str]]:
    """Returns the columns as they stand in a report."""
    return [{key: getattr(column, key) for key in _COLUMN_KEYS} for column in columns()]


def subject(result: dict[str, Any]) -> str:
    """Returns what a report is about: "runs/a, step 100" or the folder of files."""
    if result["predictions"]:
        return f"files of {result['predictions']['folder']}"
    ahead = result.get("lookahead_ms")
    name = f"{result['run'] or 'model'}, step {result['step']}"
    return name if ahead is None else f"{name}, {ahead} ms ahead"


def write(path: str | Path, result: dict[str, Any]) -> None:
    """Writes a report atomically and creates its folder.

    Raises:
      InputError: the file cannot be written.
      WorkFailed: the disk is full or has failed.
    """
    files.make_folder(Path(path).parent)
    files.write_text(path, json.dumps(result, indent=1, allow_nan=False) + "\n")


def read(path: str | Path) -> dict[str, Any]:
    """Reads a report written by `write`.

    Raises:
      InputError: no such file, not a report of one of `READS`, or a value of another type.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"report {path}: no such file")
    result = budgets.load_json(path)
    if not isinstance(result, dict) or "schema" not in result:
        raise InputError(f"{path}: not an evaluation report (it states no schema)")
    if result["schema"] not in READS:
        known = " and ".join(map(str, READS))
        raise InputError(
            f"{path}: report of schema {result['schema']!r}, this version reads {known}"
        )
    # Values that no table shows stay as they are.
    typed_json.build(_Report, result, name=str(path), strict=False)
    _check_columns(path, result.get("columns", []))
    result = _upgraded(result)
    typed_json.build(_Current, result, name=str(path), strict=False)
    return result


_Row = dict[str, float | None]
_Intervals = dict[str, tuple[float, float] | None]


class _Group(TypedDict):
    clips: int
    metrics: _Row


class _Split(TypedDict):
    clips: int
    subjects: int
    seconds: float
    skipped: list[Any]
    model: _Row
    interval: _Intervals
    baselines: dict[str, _Row]
    robustness: dict[str, _Row]
    by_subject: dict[str, _Group]
    by_emotion: dict[str, _Group]
    by_clip: list[dict[str, Any]]
    difference: NotRequired[dict[str, dict[str, Any]]]


class _Report(TypedDict):
    run: str | None
    step: int | None
    synthetic: bool
    quick: bool
    splits: dict[str, _Split]
    headline: list[str]


class _Curve(TypedDict):
    offset_ms: list[float]
    expert: NotRequired[list[float]]
    linear: NotRequired[list[float]]


class _Gate(TypedDict):
    people: int
    clips: int
    curve: _Curve


class _Judge(TypedDict):
    run: str
    step: int
    weights: str
    kind: str
    seed: int
    passed: bool
    gate: dict[str, _Gate]


class _Scale(TypedDict):
    rows: dict[str, _Row]
    clips: int
    without_speech: int
    orders: bool
    line: str


class _Additions(TypedDict):
    judge: NotRequired[_Scale]
    difference: NotRequired[dict[str, dict[str, _Row]]]
    baseline_clips: NotRequired[dict[str, int]]
    by_channel: dict[str, _Row]
    timelines: list[dict[str, Any]]


class _Current(TypedDict):
    """What a report of today's schema has beside `_Report`."""

    splits: dict[str, _Additions]
    predictions: dict[str, Any] | None
    judge: NotRequired[_Judge | None]
    lookahead_ms: NotRequired[int | None]
    against: NotRequired[dict[str, Any]]


def _check_columns(path: Path, found: Any) -> None:
    """Checks columns, and replaces number formats that are unsafe in somebody else's file."""
    for column in found if isinstance(found, list) else [None]:
        if not isinstance(column, dict) or set(column) != set(_COLUMN_KEYS):
            raise InputError(f"{path}: columns: expected objects of {', '.join(_COLUMN_KEYS)}")
        if not all(isinstance(v, str) for v in column.values()):
            raise InputError(f"{path}: columns: expected texts")
        if not re.fullmatch(r"\{:\+?\.\d[ef%]\}[ \w/%]{0,9}", column["form"]):
            column["form"] = "{:.3f}"


def _upgraded(result: dict[str, Any]) -> dict[str, Any]:
    """Returns a report of any of `READS` in today's layout."""
    result = {
        "predictions": None,
        "columns": described_columns(),
        "quick": False,
        "synthetic": False,
        **result,
    }
    if result["schema"] == 1:
        result["splits"] = _renamed(result["splits"])
    for part in result["splits"].values():
        part.setdefault("timelines", [])
        part.setdefault("by_channel", {})
        for tests in part.get("difference", {}).values():
            for name, found in tests.items():
                if not isinstance(found, dict):
                    pair = found if isinstance(found, list) and len(found) == 2 else (None, None)
                    low, high = pair
                    tests[name] = {"difference": None, "low": low, "high": high, "p": None}
    return result


def _renamed(values: Any) -> Any:
    """Returns values of schema 1 with its names of metrics replaced by today's."""
    if isinstance(values, list):
        return [_renamed(value) for value in values]
    if not isinstance(values, dict):
        return values
    return {_NEW_NAMES.get(key, key): _renamed(value) for key, value in values.items()}


def plain_test(found: significance.Test) -> dict[str, float | int | None]:
    """Returns a test as it stands in a report."""
    low, high = found.interval or (None, None)
    return {
        "difference": found.difference if found.people else None,
        "low": low,
        "high": high,
        "p": found.p,
        "detectable": found.detectable,
        "people": found.people,
    }
