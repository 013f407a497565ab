"""The quality report of a dataset, as JSON and as an HTML page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files
from data_pipeline.quality import findings, report_html
from data_pipeline.quality.duplicates import find_duplicates
from data_pipeline.quality.report_measures import MEASURES, Measure

SCHEMA = 1
VERDICTS = ("rejected", "quarantined", "used")
MAX_THUMBNAILS = 60
_BINS = 24


def assemble_report(
    takes: Sequence[Mapping[str, Any]], facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the report of a dataset; it depends only on the takes, not their order or the time.

    Args:
      takes: one mapping per take with "take" ("subject/name"), "subject", "sentence", "language",
        "emotion" (name), "seconds", "synthetic", "verdict" (one of `VERDICTS`) and "reasons", and
        optionally "audio", "motion" and "lips" (see the modules of those names), "clock" (fields
        of `clocks.Clock`), "fit", "thumbnail", and "split", or "splits" {split: seconds}.
      facts: values about the dataset that are copied: "name", "layout", "settings", "thresholds"
        {name: value}; "warnings" of the build, as text, are added to the findings; "hours"
        {split: hours} if takes have no split.

    Returns:
      A JSON-serialisable dict: the facts; "summary"; "warnings" (worst first); "reasons" (number
      of takes that each threshold quarantined); "hours" by split, subject, language and emotion of
      used takes; "balance" of each ("count", and "effective": the exponential of the entropy,
      Hill's number of order 1); "duplicates"; "measures" (percentiles and a histogram of each);
      "takes", worst first. Only the `MAX_THUMBNAILS` worst keep thumbnails; fingerprints are
      dropped.
    """
    facts = dict(facts or {})
    thresholds = dict(facts.get("thresholds") or {})
    takes = sorted((_complete(t) for t in takes), key=lambda t: (t["take"], t["verdict"]))
    hours = _hours(takes, facts)
    copies = find_duplicates(takes)
    measures = {m.name: _distribution(m, takes, thresholds) for m in MEASURES}
    counts = {v: sum(t["verdict"] == v for t in takes) for v in VERDICTS}
    rows = sorted(
        takes, key=lambda t: (VERDICTS.index(t["verdict"]), -severity_score(t, thresholds))
    )
    used = sum(t["seconds"] for t in takes if t["verdict"] == "used")
    report = {
        "schema": SCHEMA,
        **{k: v for k, v in sorted(facts.items()) if k != "hours"},
        "thresholds": thresholds,
        "summary": {
            "takes": len(takes),
            **counts,
            "hours": sum(t["seconds"] for t in takes) / 3600,
            "hours_used": used / 3600,
        },
        "warnings": findings.dataset_findings(takes, hours, copies, facts.get("warnings") or ()),
        "reasons": _reasons(takes),
        "hours": hours,
        "balance": {kind: _balance(each) for kind, each in hours.items()},
        "duplicates": copies,
        "measures": {k: v for k, v in measures.items() if v is not None},
        "takes": [_row(t, n < MAX_THUMBNAILS) for n, t in enumerate(rows)],
    }
    return _plain(report)


def write_report(folder: str | Path, report: Mapping[str, Any]) -> None:
    """Writes quality.json and quality.html, each atomically.

    Equal reports give equal bytes.

    Args:
      folder: existing folder, such as the folder of the shards.
      report: result of `assemble_report`.

    Raises:
      InputError, WorkFailed: as `a2fjax.files.atomic_write`.
    """
    folder = Path(folder)
    text = json.dumps(report, allow_nan=False, separators=(",", ":"))
    # One take per line is easy to grep and no larger.
    text = text.replace('},{"take":', '},\n{"take":').replace(
        '"takes":[{"take"', '"takes":[\n{"take"'
    )
    files.write_text(folder / "quality.json", text + "\n")
    files.write_text(folder / "quality.html", report_html.render_html(report))


def severity_score(take: Mapping[str, Any], thresholds: Mapping[str, float]) -> float:
    """Returns a take's worst measure relative to its threshold: above 1 it exceeds that."""
    worst = 0.0
    for measure in MEASURES:
        limit, value = thresholds.get(measure.threshold) or 0.0, measure.value(take)
        unsure = take["audio"].get(f"{measure.name.partition('_')[0]}_sure") is False
        if not limit or value is None or unsure:
            continue
        if measure.threshold.startswith("least"):
            worst = max(worst, min(limit / max(value, 1e-3 * limit), 100.0))
        else:
            worst = max(worst, min(abs(value) / limit, 100.0))
    errors = sum(r.severity == "error" for r in findings.take_findings(take))
    return worst + len(take.get("reasons") or ()) + errors


def _complete(take: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the take with defaults for the keys that a rejected take lacks."""
    out = {
        "subject": str(take["take"]).partition("/")[0],
        "sentence": "",
        "language": "",
        "emotion": "",
        "synthetic": False,
        "reasons": [],
        "audio": {},
        "motion": {},
        "lips": {},
        "clock": {},
        **{k: v for k, v in take.items() if v is not None},
    }
    out["seconds"] = float(out.get("seconds") or 0.0)
    if out.get("verdict") not in VERDICTS:
        raise ValueError(
            f"{out['take']}: verdict {out.get('verdict')!r}: expected one of {VERDICTS}"
        )
    fit = (out.get("fit") or {}).get("residual_mm")
    if fit is not None and not out["motion"].get("residual_mm"):
        spread = fit if isinstance(fit, Mapping) else {"median": fit}
        out["motion"] = {**out["motion"], "residual_mm": dict(spread)}
    return out


def _hours(takes: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, dict[str, float]] = {
        "split": {},
        "subject": {},
        "language": {},
        "emotion": {},
    }
    for take in takes:
        if take["verdict"] != "used":
            continue
        for kind in ("subject", "language", "emotion"):
            key = str(take[kind])
            out[kind][key] = out[kind].get(key, 0.0) + take["seconds"] / 3600
        splits = take.get("splits") or {take.get("split") or "": take["seconds"]}
        for split, seconds in splits.items():
            if not split:
                continue
            out["split"][split] = out["split"].get(split, 0.0) + seconds / 3600
    if not out["split"]:
        out["split"] = dict(facts.get("hours") or {})
    return {
        kind: {k: round(v, 6) for k, v in sorted(each.items(), key=lambda i: (-i[1], i[0]))}
        for kind, each in out.items()
    }


def _balance(each: Mapping[str, float]) -> dict[str, float]:
    values = np.array([v for v in each.values() if v > 0])
    if not len(values):
        return {"count": 0, "effective": 0.0}
    part = values / values.sum()
    # Exponential of the entropy: Hill, "Diversity and Evenness" (Ecology, 1973).
    effective = float(np.exp(-(part * np.log(part)).sum()))
    return {"count": len(values), "effective": round(effective, 3)}


def _reasons(takes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    out: dict[str, int] = {}
    for take in takes:
        if take["verdict"] == "quarantined":
            for reason in take["reasons"]:
                key = str(reason).rpartition("(")[2].rstrip(")") if "(" in reason else str(reason)
                out[key] = out.get(key, 0) + 1
    return dict(sorted(out.items(), key=lambda item: (-item[1], item[0])))


def _distribution(
    measure: Measure, takes: Sequence[Mapping[str, Any]], thresholds: Mapping[str, float]
) -> dict[str, Any] | None:
    values = np.array([v for t in takes if (v := measure.value(t)) is not None])
    if not len(values):
        return None
    low, high = float(values.min()), float(values.max())
    limit = thresholds.get(measure.threshold) or None
    # The threshold is shown, unless that would squeeze the values into a corner.
    left, right = low, high
    if limit is not None and abs(limit - (low + high) / 2) < 4 * max(high - low, 0.05 * limit):
        left, right = min(left, limit), max(right, limit)
    if right - left < 1e-9 * max(1.0, abs(right)):
        left, right = left - 0.5 * max(1e-3, abs(left)), right + 0.5 * max(1e-3, abs(right))
    counts, edges = np.histogram(values, bins=_BINS, range=(left, right))
    low5, middle, high5 = np.percentile(values, [5, 50, 95])
    return {
        "label": measure.label,
        "unit": measure.unit,
        "count": len(values),
        "min": low,
        "p5": float(low5),
        "median": float(middle),
        "p95": float(high5),
        "max": high,
        "threshold": limit,
        "threshold_name": measure.threshold,
        "histogram": {"edges": [float(e) for e in edges], "counts": counts.tolist()},
    }


def _row(take: Mapping[str, Any], picture: bool) -> dict[str, Any]:
    row = {k: v for k, v in take.items() if k != "thumbnail" or picture}
    row["audio"] = {k: v for k, v in take["audio"].items() if k != "fingerprint"}
    row["findings"] = [r.text for r in findings.take_findings(take)]
    first = ("take", "verdict", "reasons", "findings")
    return {k: row[k] for k in first} | {k: row[k] for k in sorted(row) if k not in first}


def _plain(value: Any) -> Any:
    """Returns a value as plain JSON types: no NaN, no NumPy, floats to seven digits."""
    kind = type(value)
    # Test the frequent types first, by identity: a large dataset has ten million values.
    if kind is float:
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is dict or isinstance(value, Mapping):
        return {k if type(k) is str else str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, (set, frozenset)):
        return [_plain(v) for v in sorted(value, key=str)]
    return str(value)
