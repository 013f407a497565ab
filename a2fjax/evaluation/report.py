"""Evaluation reports as JSON and as text tables.

Layout of the JSON, with `null` for missing values:

    schema, run, step, model, config, rig     the evaluated model (fingerprints); run, step and
                                              config are null for files
    predictions                               null, or how files were read: folder, files, fps,
                                              units, mouth_close, missing_channels, offset_ms
                                              (positive is late), aligned_ms, notes
    data                                      [{folder, fingerprint of its manifest, synthetic}]
    synthetic                                 true if any clip is synthetic
    splits.<split>.model                      {metric: value}; definitions in `a2fjax.metrics`
                  .interval                   {metric: [low, high]}, 95 % over subjects
                  .baselines.<name>           the same metrics of `a2fjax.evaluation.baselines`
                  .robustness.<name>          the same model under `a2fjax.evaluation.conditions`
                  .difference.<name>          {metric: [low, high]}, 95 % over subjects of the
                                              metric's change under the condition; both use the same
                                              drawn subjects
                  .by_subject, .by_emotion    {name: {clips, metrics}}
                  .by_clip                    worst first
    headline                                  the main results as lines of text
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import budgets, files
from a2fjax.errors import InputError
from a2fjax.evaluation import predictions
from a2fjax.metrics import suite
from a2fjax.metrics.groups import UNPREDICTABLE, WEIGHT_GROUPS
from a2fjax.metrics.metric import Column

SCHEMA = 2

READS = (1, 2)
"""Schemas that `read` accepts. Schema 1 had runs only."""

SHOWN = 12
"""Number of subjects in the table; the JSON contains all."""

CLIP_METRICS = (
    "rmse_ratio",
    "bs_rmse/jaw_mouth",
    "mod",
    "closure_recall",
    "closure_precision",
    "xcorr_lag_ms",
    "amp_ratio/jaw_mouth",
)

LEGEND = (
    "jaw and mouth unless said: ratio = RMSE over the constant mean's; rmse, mae in weight units; "
    "vel_mae in weight/s; mod = aperture error; recall, prec, resid, closed = lip closures; "
    "lag > 0 is late, at_r = the correlation there; "
    "amp, acc, hf = motion, acceleration, power above 10 Hz over the truth's; "
    "slcc = loudness with aperture; pause = opening in pauses over that in speech"
)


def columns() -> list[Column]:
    """Returns the columns of the table: the ratio, then the columns of every registered metric."""
    return [Column("rmse_ratio", "ratio"), *suite.columns()]


def legend() -> str:
    """Returns the legend of the columns, including those of extension packages."""
    added = [f"{column.label} = {column.meaning}" for column in suite.columns() if column.meaning]
    return "; ".join([LEGEND, *added])


def table(result: dict[str, Any]) -> str:
    """Formats a report as aligned text."""
    kind = "synthetic data" if result["synthetic"] else "recorded data"
    quick = ", quick: few clips, no altered conditions" if result["quick"] else ""
    lines = [f"{subject(result)}, on {kind}{quick}", legend()]
    if result["predictions"]:
        lines += predictions.findings(result["predictions"])
    for split, part in result["splits"].items():
        lines += ["", *_split_table(split, part)]
    lines += ["", *result["headline"]]
    return "\n".join(lines)


def subject(result: dict[str, Any]) -> str:
    """Returns what a report is about: "runs/a, step 100" or the folder of files."""
    if result["predictions"]:
        return f"files of {result['predictions']['folder']}"
    return f"{result['run'] or 'model'}, step {result['step']}"


def headline(result: dict[str, Any]) -> list[str]:
    """Returns the main results of every split, each with its reference value.

    Only jaw and mouth count: blinks, brow beats and gaze are not audible.
    """
    lines = []
    for split, part in result["splits"].items():
        model, rolled = part["model"], part["baselines"]["rolled"]
        kind = " (synthetic)" if result["synthetic"] else ""
        where = (
            f"{split}{kind}, {_count(part['clips'], 'clip')}, {_count_subjects(part['subjects'])}"
        )
        interval = part["interval"]["rmse_ratio"]
        within = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(
            f"{where}: jaw+mouth RMSE {_show(model['rmse_ratio'])}{within} of the constant mean's "
            f"(emotion mean {_show(part['baselines']['emotion_mean']['rmse_ratio'])}, "
            f"truth 2 frames late {_show(part['baselines']['shifted_2']['rmse_ratio'])})"
        )
        lines.append(
            f"{split}: closures recall {_show(model['closure_recall'])} at precision "
            f"{_show(model['closure_precision'])} (rolled by 0.6 s: "
            f"{_show(rolled['closure_recall'])} / {_show(rolled['closure_precision'])}); "
            f"lag {_show(model['xcorr_lag_ms'], '{:+.1f}')} ms; amplitude "
            f"{_show(model['amp_ratio/jaw_mouth'], '{:.2f}')}; pauses "
            f"{_show(model['pause_aperture'], '{:.2f}')} open"
        )
        if part["robustness"]:
            changes = part.get("difference", {})
            shown = ", ".join(
                f"{name.replace('_', ' ')} {_show(row['rmse_ratio'])}"
                + _change(changes.get(name, {}).get("rmse_ratio"))
                for name, row in part["robustness"].items()
            )
            lines.append(f"{split}: RMSE ratio with {shown}")
    return lines


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
      InputError: no such file, or not a report of one of `READS`.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"report {path}: no such file")
    try:
        result = budgets.load_json(path)
        schema = result["schema"]
        missing = {"splits", "headline", "run", "step"} - result.keys()
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an evaluation report ({error})") from None
    if schema not in READS:
        known = " and ".join(map(str, READS))
        raise InputError(f"{path}: report of schema {schema!r}, this version reads {known}")
    if missing:
        raise InputError(f"{path}: not an evaluation report (no {sorted(missing)[0]!r})")
    return {"predictions": None, **result}


def _split_table(split: str, part: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, dict[str, Any]]] = [("model", part["model"])]
    interval = part["interval"]
    for side, name in enumerate(("95% low", "95% high")):
        rows.append((f"  {name}", {k: v[side] if v else None for k, v in interval.items()}))
    rows += part["baselines"].items()
    rows += [(f"model, {name}", row) for name, row in part["robustness"].items()]
    lines = [
        f"{split}: {_count(part['clips'], 'clip')}, {_count_subjects(part['subjects'])}, "
        f"{part['seconds']:.0f} s"
        + (f", {len(part['skipped'])} unreadable" * bool(part["skipped"]))
    ]
    lines += _table(rows)
    lines += _change_table(split, part)
    lines += ["", f"{split}, model by channel group (* speech does not tell: no part of a score)"]
    lines += _align(["", "mae", "rmse", "vel_mae", "corr", "amp"], _group_rows(part["model"]))
    for kind in ("by_emotion", "by_subject"):
        every = sorted(part[kind].items(), key=lambda p: -(p[1]["metrics"]["rmse_ratio"] or 0.0))
        shown = every[:SHOWN]
        rows = [(f"{n} ({_count(p['clips'], 'clip')})", p["metrics"]) for n, p in shown]
        more = f" (the worst {SHOWN} of {len(every)})" if len(every) > SHOWN else ""
        lines += ["", f"{split}, {kind.replace('_', ' ')}{more}"]
        lines += _table(rows)
    return lines


def _change(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:+.3f} to {interval[1]:+.3f})"


def _change_table(split: str, part: dict[str, Any]) -> list[str]:
    """Returns the change of the ratio under each condition; older reports have none."""
    rows = []
    for name, change in part.get("difference", {}).items():
        own, other = part["model"]["rmse_ratio"], part["robustness"][name]["rmse_ratio"]
        low, high = change["rmse_ratio"] or (None, None)
        added = None if own is None or other is None else other - own
        rows.append([name, *(_show(value, "{:+.3f}") for value in (added, low, high))])
    if not rows:
        return []
    title = f"{split}, what a condition adds to the ratio (pairs of the same people)"
    return ["", title, *_align(["", "added", "95% low", "95% high"], rows)]


def _group_rows(model: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in WEIGHT_GROUPS:
        keys = ("bs_mae", "bs_rmse", "vel_mae", "corr", "amp_ratio")
        values = [_show(model[f"{key}/{name}"], "{:.4f}") for key in keys]
        rows.append([f"{name}{'*' if name in UNPREDICTABLE else ''}", *values])
    angles = [_show(model[f"eye_angle_{key}/eye_angles"], "{:.2f} deg") for key in ("mae", "rmse")]
    return [*rows, ["eye_angles*", *angles, "", "", ""]]


def _table(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    shown = columns()
    cells = [[name, *(_show(row.get(c.value), c.form) for c in shown)] for name, row in rows]
    return _align(["", *(c.label for c in shown)], cells)


def _align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    return [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in [header, *rows]
    ]


def _show(value: float | None, form: str = "{:.3f}") -> str:
    return "-" if value is None else form.format(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _count_subjects(number: int) -> str:
    return "1 person" if number == 1 else f"{number} people"
