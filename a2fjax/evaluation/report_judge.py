"""Renders the judge's part of a report as lines and rows of text."""

from __future__ import annotations

from typing import Any

from a2fjax.evaluation.layout import align, show
from a2fjax.metrics import sync

NAMES = {
    "truth": "truth",
    "early_100ms": "truth 100 ms early",
    "early_40ms": "truth 40 ms early",
    "late_40ms": "truth 40 ms late",
    "late_100ms": "truth 100 ms late",
    "other_clip": "another clip's truth",
}
"""Rows of the judge's scale, in order; see `judge_scale`."""


def who(judge: dict[str, Any]) -> list[str]:
    """Returns who the judge of a report is, and whether it passed its gate."""
    line = f"judge: {judge['run']}, step {judge['step']}, {judge['kind']}, seed {judge['seed']}"
    lines = [f"{line}, weights {judge['weights']}"]
    if not judge["passed"]:
        lines.append(
            "this judge did not pass its gate and was taken with --sync-unchecked: its figures "
            "prove nothing"
        )
    return lines


def scale_rows(part: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows of what the judge makes of the truth in a split, as text."""
    columns = [column for column in sync.columns if column.label]
    rows = part["judge"]["rows"]
    named = [(NAMES.get(name, name), row) for name, row in rows.items()]
    if part["judge"]["orders"]:
        named.append(("model, all clips", part["model"]))
    return (
        ["", *(column.label for column in columns)],
        [[name, *(show(row.get(c.value), c.form) for c in columns)] for name, row in named],
    )


def table(split: str, part: dict[str, Any]) -> list[str]:
    """Returns the scale of a split as lines of text; [] without a judge."""
    scale = part.get("judge")
    if not scale:
        return []
    silent = scale["without_speech"]
    left = f", {silent} without speech left out" if silent else ""
    title = f"{split}, what the judge makes of the truth ({scale['clips']} clips{left})"
    lines = ["", title, scale["line"]]
    return [*lines, *(align(*scale_rows(part)) if scale["rows"] else [])]
