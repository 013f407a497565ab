"""Text of the gate's result: tables by split, then the verdict line by line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from a2fjax.sync import measures, verdict

COLUMNS = (
    *((key, key.split("_")[2].removesuffix("ms")) for key in measures.WIN_KEYS),
    ("offset_20ms", "<=20"),
    ("offset_40ms", "<=40"),
    ("auc", "auc"),
)
"""Shares shown, with the heads of their columns."""

LEGEND = """\
share of windows whose audio as recorded scores higher than shifted by +-20, 40, 60, 100 ms (windows
of 0.3 s, then of 0.6 s; chance 0.5); offset found within +-20 and +-40 ms in 2 s of speech; area
under the curve against the audio of other clips"""


def table(values: Mapping[str, Any]) -> str:
    """Returns the whole result as aligned text."""
    lines = [f"sync expert {values['run']}, step {values['step']} ({values['model']})", LEGEND, ""]
    for split, part in values["splits"].items():
        lines += [*_split(split, part), ""]
    passed = values["verdict"]["passed"]
    lines.append("gate: passed" if passed else "gate: failed")
    for line in verdict.lines_of(values):
        lines.append(f"  {'pass' if line.passed else 'FAIL'}  {line}")
    return "\n".join(lines)


def _split(split: str, part: Mapping[str, Any]) -> list[str]:
    silent, skipped = len(part["without_speech"]), len(part["skipped"])
    title = (
        f"{split}: {part['people']} people, {part['clips']} clips, {part['windows']} windows of "
        f"0.3 s" + f", {silent} clips without speech left out" * bool(silent)
    )
    title += f", {skipped} unreadable" * bool(skipped)
    title += _heard(part)
    rows = [_row("expert", part["expert"])]
    rows += _interval(part["interval"])
    rows.append(_row("linear expert", part["linear"]))
    rows += _interval(part["linear_interval"])
    rows += [_row(f"expert, {name}", row) for name, row in part["altered"].items()]
    rows += [_row(f"linear, {name}", row) for name, row in part["linear_altered"].items()]
    rows += [_row(f"channels: {name}", row) for name, row in part["channels"].items()]
    for kind in ("emotion", "language", "person"):
        groups = part[f"by_{kind}"]
        if kind != "person" and len(groups) < 2:
            continue
        worst = sorted(groups.items(), key=lambda pair: pair[1]["wins"] or 0.0)
        rows += [_row(f"{kind}: {name}", row) for name, row in worst[:8]]
    first = ["", *(head for _, head in COLUMNS)]
    return [title, *_aligned([first, *rows])]


def _heard(part: Mapping[str, Any]) -> str:
    heard = part.get("heard")
    if heard is None:
        return ", nobody knows what the expert was trained on"
    if not heard["clips"]:
        return ""
    who = ", ".join(heard["people"])
    return f"; left out, since the expert was trained on them: {heard['clips']} clips of {who}"


def _row(name: str, row: Mapping[str, float | None]) -> list[str]:
    return [name, *("-" if row.get(k) is None else f"{row[k]:.3f}" for k, _ in COLUMNS)]


def _interval(found: Mapping[str, Sequence[float] | None]) -> list[list[str]]:
    return [
        _row(f"  {name}", {k: v[side] if v else None for k, v in found.items()})
        for side, name in enumerate(("95% low", "95% high"))
        if any(found.values())
    ]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
