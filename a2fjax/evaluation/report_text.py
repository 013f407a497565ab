"""Reports as aligned text: a table, and the main results in lines."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from a2fjax.evaluation import paired, predictions, report, report_judge
from a2fjax.evaluation.layout import align, count, count_people, show
from a2fjax.metrics.groups import UNPREDICTABLE, WEIGHT_GROUPS

SHOWN = 12
"""Number of subjects in the table; the JSON contains all."""


def legend(figures: Collection[str]) -> str:
    """Returns the legend of the columns of some figures, including those of extension packages."""
    used = [c for c in report.columns() if c.meaning and c.value in figures]
    shown = "; ".join(f"{c.label} = {c.meaning}" for c in used)
    return f"jaw and mouth unless stated; definitions in docs/metrics.md: {shown}"


def table(result: dict[str, Any]) -> str:
    """Formats a report as aligned text."""
    kind = "synthetic data" if result["synthetic"] else "recorded data"
    quick = ", quick: few clips, no altered conditions" if result["quick"] else ""
    lines = [f"{report.subject(result)}, on {kind}{quick}", legend(report.figures_of(result))]
    if result["predictions"]:
        lines += predictions.findings(result["predictions"])
    if result.get("judge"):
        lines += report_judge.who(result["judge"])
    for split, part in result["splits"].items():
        lines += ["", *_split_table(split, part)]
    if "against" in result:
        lines += paired.table(result["against"])
    lines += ["", *result["headline"]]
    return "\n".join(lines)


def headline(result: dict[str, Any]) -> list[str]:
    """Returns the main results of every split, each with its reference value.

    Only jaw and mouth count: blinks, brow beats and gaze are not audible.
    """
    lines = [
        f"trained with the sync expert {expert['run']}, which had not passed its gate "
        "(loss.sync_unchecked)"
        for expert in result.get("sync_experts", [])
        if not expert["passed"]
    ]
    for split, part in result["splits"].items():
        model, rolled = part["model"], part["baselines"]["rolled"]
        kind = " (synthetic)" if result["synthetic"] else ""
        where = f"{split}{kind}, {count(part['clips'], 'clip')}, {count_people(part['subjects'])}"
        interval = part["interval"]["rmse_ratio"]
        within = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        lines.append(
            f"{where}: jaw+mouth RMSE {show(model['rmse_ratio'])}{within} of the constant mean's "
            f"(emotion mean {show(part['baselines']['emotion_mean']['rmse_ratio'])}, "
            f"truth 2 frames late {show(part['baselines']['shifted_2']['rmse_ratio'])})"
        )
        lines.append(
            f"{split}: closures F1 {show(model['closure_f1'])}, recall "
            f"{show(model['closure_recall'])} at precision {show(model['closure_precision'])} "
            f"(rolled by 0.6 s: {show(rolled['closure_f1'])}); "
            f"lag {show(model['xcorr_lag_ms'], '{:+.1f}')} ms; amplitude "
            f"{show(model['amp_ratio/jaw_mouth'], '{:.2f}')}; pauses "
            f"{show(model['pause_aperture'], '{:.2f}')} open"
        )
        scale = part.get("judge")
        if scale:
            lines.append(f"{split}: {_judged(model, scale)}")
        if part["robustness"]:
            changes = part.get("difference", {})
            shown = ", ".join(
                f"{name.replace('_', ' ')} {show(row['rmse_ratio'])}"
                + _change(changes.get(name, {}).get("rmse_ratio"))
                for name, row in part["robustness"].items()
            )
            lines.append(f"{split}: RMSE ratio with {shown}")
    return lines


def _judged(model: dict[str, Any], scale: dict[str, Any]) -> str:
    if not scale["orders"]:
        return str(scale["line"])
    other = scale["rows"]["other_clip"]
    shown = [
        f"{what} {show(model[key], form)} (truth {show(model[f'{key}_truth'], form)}, another "
        f"clip's {show(other[key], form)})"
        for what, key, form in (
            ("confidence", "judge_confidence", "{:.3f}"),
            ("within 40 ms", "judge_within_40ms", "{:.2f}"),
        )
    ]
    return f"judge: {'; '.join(shown)}; offset {show(model['judge_offset_ms'], '{:+.1f}')} ms"


def _split_table(split: str, part: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, dict[str, Any]]] = [("model", part["model"])]
    interval = part["interval"]
    for side, name in enumerate(("95% low", "95% high")):
        rows.append((f"  {name}", {k: v[side] if v else None for k, v in interval.items()}))
    counts = part.get("baseline_clips", {})
    for name, row in part["baselines"].items():
        fewer = counts.get(name, part["clips"]) < part["clips"]
        rows.append((f"{name} ({count(counts[name], 'clip')})" if fewer else name, row))
    rows += [(f"model, {name}", row) for name, row in part["robustness"].items()]
    lines = [
        f"{split}: {count(part['clips'], 'clip')}, {count_people(part['subjects'])}, "
        f"{part['seconds']:.0f} s"
        + (f", {len(part['skipped'])} unreadable" * bool(part["skipped"]))
    ]
    lines += _table(rows)
    lines += report_judge.table(split, part)
    lines += _change_table(split, part)
    lines += ["", f"{split}, model by channel group (* not audible: in no score)"]
    lines += align(["", "mae", "rmse", "vel_mae", "corr", "amp"], _group_rows(part["model"]))
    for kind in ("by_emotion", "by_subject"):
        every = sorted(
            part[kind].items(), key=lambda p: -(p[1]["metrics"].get("rmse_ratio") or 0.0)
        )
        shown = every[:SHOWN]
        rows = [(f"{n} ({count(p['clips'], 'clip')})", p["metrics"]) for n, p in shown]
        more = f" (the worst {SHOWN} of {len(every)})" if len(every) > SHOWN else ""
        lines += ["", f"{split}, {kind.replace('_', ' ')}{more}"]
        lines += _table(rows)
    return lines


def _change(change: dict[str, Any] | None) -> str:
    low, high, p = ((change or {}).get(key) for key in ("low", "high", "p"))
    if low is not None and high is not None:
        return f" ({low:+.3f} to {high:+.3f})"
    return "" if p is None else f" (p = {p:.3f})"


def _change_table(split: str, part: dict[str, Any]) -> list[str]:
    """Returns the change of the ratio under each condition; older reports have none."""
    rows = []
    for name, tests in part.get("difference", {}).items():
        change = tests.get("rmse_ratio") or {}
        shown = [show(change.get(key), "{:+.3f}") for key in ("difference", "low", "high")]
        rows.append([name, *shown, show(change.get("p"))])
    if not rows:
        return []
    people = count_people(part["subjects"])
    title = f"{split}, what a condition adds to the ratio (paired over {people})"
    return ["", title, *align(["", "added", "95% low", "95% high", "p"], rows)]


def _group_rows(model: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name in WEIGHT_GROUPS:
        keys = ("bs_mae", "bs_rmse", "vel_mae", "corr", "amp_ratio")
        values = [show(model.get(f"{key}/{name}"), "{:.4f}") for key in keys]
        rows.append([f"{name}{'*' if name in UNPREDICTABLE else ''}", *values])
    angles = [
        show(model.get(f"eye_angle_{key}/eye_angles"), "{:.2f} deg") for key in ("mae", "rmse")
    ]
    return [*rows, ["eye_angles*", *angles, "", "", ""]]


def _table(rows: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    # A column without any value would only take room, such as those of phones without alignments.
    shown = [c for c in report.columns() if any(row.get(c.value) is not None for _, row in rows)]
    cells = [[name, *(show(row.get(c.value), c.form) for c in shown)] for name, row in rows]
    return align(["", *(c.label for c in shown)], cells)
