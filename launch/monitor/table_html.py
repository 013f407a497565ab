"""HTML page of a sweep: parallel coordinates as SVG and a sortable table, in one file."""

from __future__ import annotations

import dataclasses
import html
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from a2fjax.view.text import duration, short
from launch.jobs.outcome import DONE
from launch.monitor.table import UNSET, Row, progress, score, setting, shown, swept

_TOP, _BOTTOM, _SIDE, _GAP, _HEIGHT = 64, 28, 90, 170, 420
_TICKS = 8


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of the plot.

    Attributes:
      name: a key or the metric.
      kind: "linear", "log" or "words".
      low: number at the bottom.
      high: number at the top.
      words: categories from the bottom, of kind "words".
      labels: numbers to label; () for round ones.
      unset: whether some runs have no value; their lines pass below the axis.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    words: tuple[str, ...] = ()
    labels: tuple[float, ...] = ()
    unset: bool = False

    def position(self, value: Any) -> float | None:
        """Returns the position of a value in [0, 1]; None for a value that is not set."""
        if value is UNSET or value is None:
            return None
        if self.kind == "words":
            return (self.words.index(shown(value)) + 0.5) / len(self.words)
        low, high, value = self._map(self.low), self._map(self.high), self._map(value)
        return 0.5 if high == low else (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns positions and labels."""
        if self.kind == "words":
            return [((i + 0.5) / len(self.words), w) for i, w in enumerate(self.words)]
        if self.low == self.high:
            return [(0.5, f"{self.low:.4g}")]
        round_ones = _powers if self.kind == "log" else _round
        values = self.labels or round_ones(self.low, self.high)
        inside = [v for v in values if self.low <= v <= self.high]
        return [(self.position(v) or 0.0, f"{v:.4g}") for v in inside]

    def _map(self, value: float) -> float:
        return math.log10(value) if self.kind == "log" else float(value)


def axis(name: str, values: Sequence[Any]) -> Axis:
    """Returns the axis that suits the values of a key or metric."""
    given = [v for v in values if v is not UNSET and v is not None]
    unset = len(given) < len(values)
    numbers = [v for v in given if isinstance(v, int | float) and not isinstance(v, bool)]
    if not given or len(numbers) < len(given):
        return Axis(name, "words", words=tuple(sorted({shown(v) for v in given})), unset=unset)
    low, high = min(numbers), max(numbers)
    kind = "log" if _log_spaced(numbers) else "linear"
    # A few distinct values were probably chosen by hand, so label these.
    labels = tuple(sorted(set(numbers)))
    labels = labels if len(labels) <= _TICKS else ()
    return Axis(name, kind, float(low), float(high), labels=labels, unset=unset)


def render(rows: Sequence[Row], metric: str, sign: int, title: str) -> str:
    """Returns the page for rows sorted best first."""
    keys = swept(rows)
    done = sum(r.get("state") == DONE for r in rows)
    better = "lower" if sign > 0 else "higher"
    head = f"{len(rows)} runs, {done} done; {metric}, {better} is better"
    values = {
        "title": html.escape(title),
        "head": html.escape(head),
        "plot": _plot(rows, keys, metric, sign),
        "table": _table(rows, keys, metric),
    }
    # Substitute in one pass: names and values may look like a placeholder.
    return re.sub(r"@(title|head|plot|table)@", lambda match: values[match[1]], _PAGE)


def _plot(rows: Sequence[Row], keys: Sequence[str], metric: str, sign: int) -> str:
    scores = [score(r, metric) for r in rows]
    if not keys or not any(s is not None for s in scores):
        why = "no run has the metric yet" if keys else "no value differs between the runs"
        return f'<p class="none">No plot: {why}.</p>'
    axes = [axis(k, [setting(r, k) for r in rows]) for k in keys]
    last = dataclasses.replace(axis(metric, [s for s in scores if s is not None]), labels=())
    width = 2 * _SIDE + _GAP * len(axes)
    bottom = _HEIGHT - _BOTTOM - (34 if any(a.unset for a in axes) else 0)

    def y(position: float | None) -> float:
        return _HEIGHT - _BOTTOM if position is None else bottom - position * (bottom - _TOP)

    parts = [
        f'<svg viewBox="0 0 {width} {_HEIGHT}" width="{width}" height="{_HEIGHT}" role="img" '
        f'aria-label="Parallel coordinates of {len(rows)} runs">'
    ]
    # Draw the best last, above the others.
    for number in reversed(range(len(rows))):
        row, value = rows[number], scores[number]
        points = [
            (_SIDE + _GAP * i, y(a.position(setting(row, a.name)))) for i, a in enumerate(axes)
        ]
        position = None if value is None else last.position(value)
        style, kind = "", "line"
        if position is not None:
            points.append((_SIDE + _GAP * len(axes), y(position)))
            share = round(100 * (1 - position if sign > 0 else position))
            style = f' style="--share:{share}%"'
        if position is None or row.get("state") != DONE:
            kind += " open"
        path = "M" + " L".join(f"{x:.1f} {h:.1f}" for x, h in points)
        tip = f"{row['run']}: {metric} {'-' if value is None else f'{value:.5g}'}"
        parts.append(
            f'<g class="{kind}" data-row="{number}"{style}><title>{html.escape(tip)}</title>'
            f'<path class="wide" d="{path}"/><path class="thin" d="{path}"/></g>'
        )
    for i, one in enumerate([*axes, last]):
        parts.append(_axis_svg(one, _SIDE + _GAP * i, y))
    return "".join([*parts, "</svg>"])


def _axis_svg(axis: Axis, x: float, y: Callable[[float | None], float]) -> str:
    name = html.escape(short(axis.name.rpartition(".")[2], 22))
    group = html.escape(short(axis.name.rpartition(".")[0], 24))
    kind = ", ".join(filter(None, [group, "log" if axis.kind == "log" else ""]))
    parts = [
        f'<g class="axis"><title>{html.escape(axis.name)}</title>',
        f'<text class="name" x="{x}" y="{_TOP - 34}">{name}</text>',
        f'<text class="group" x="{x}" y="{_TOP - 18}">{kind}</text>',
        f'<line x1="{x}" y1="{y(0):.1f}" x2="{x}" y2="{y(1):.1f}"/>',
    ]
    ticks = axis.ticks()
    every = math.ceil(len(ticks) / 12)
    if axis.unset:
        ticks = [*ticks, (-1.0, "not set")]
    for position, label in [*ticks[::every], *([ticks[-1]] if axis.unset and every > 1 else [])]:
        height = y(None) if position < 0 else y(position)
        parts.append(f'<line x1="{x - 4}" y1="{height:.1f}" x2="{x + 4}" y2="{height:.1f}"/>')
        words = html.escape(short(label, 18))
        parts.append(f'<text class="tick" x="{x + 8}" y="{height + 4:.1f}">{words}</text>')
    return "".join([*parts, "</g>"])


def _table(rows: Sequence[Row], keys: Sequence[str], metric: str) -> str:
    others = list(dict.fromkeys(k for r in rows for k in r.get("metrics") or {} if k != metric))
    names = ["run", metric, *keys, *others, "state", "step", "time"]
    head = "".join(
        f'<th scope="col"><button type="button">{html.escape(n)}</button></th>' for n in names
    )
    lines = []
    for number, row in enumerate(rows):
        seconds = row.get("seconds")
        cells = [(str(row["run"]), str(row["run"])), _number(score(row, metric))]
        for key in keys:
            value = setting(row, key)
            numeric = isinstance(value, int | float) and not isinstance(value, bool)
            cells.append((shown(value), repr(float(value)) if numeric else shown(value)))
        cells += [_number(score(row, k)) for k in others]
        cells += [(str(row.get("state") or "-"),) * 2, (progress(row), str(row.get("step") or 0))]
        cells.append(("-", "") if seconds is None else (duration(seconds), repr(float(seconds))))
        text = "".join(
            f'<td data-sort="{html.escape(by)}">{html.escape(content)}</td>'
            for content, by in cells
        )
        lines.append(f'<tr data-row="{number}">{text}</tr>')
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _number(value: float | None) -> tuple[str, str]:
    return ("-", "") if value is None else (f"{value:.5g}", repr(value))


def _log_spaced(values: Sequence[float]) -> bool:
    """Returns whether numbers are spaced more evenly by ratio than by difference."""
    numbers = sorted(set(values))
    if numbers[0] <= 0 or numbers[-1] / numbers[0] < 3:
        return False
    if len(numbers) < 3:
        return numbers[-1] / numbers[0] >= 10
    logs = [math.log(v) for v in numbers]
    return _unevenness(logs) < _unevenness(numbers)


def _unevenness(values: Sequence[float]) -> float:
    """Returns the maximum deviation of sorted numbers from even spacing relative to their range."""
    low, span, count = values[0], values[-1] - values[0], len(values) - 1
    return max(abs((v - low) / span - i / count) for i, v in enumerate(values))


def _round(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / _TICKS * 2))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= _TICKS)
    first = math.ceil(low / step - 1e-9)
    values = [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return values or [low, high]


def _powers(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        values = [float(f"{m}e{d}") for d in decades for m in steps]
        if sum(low <= v <= high for v in values) >= 3:
            return values
    return [low, *values, high] if not any(low <= v <= high for v in values) else values


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@title@</title>
<style>
:root { color-scheme: light dark; --back: #fff; --ink: #1b1f24; --soft: #59636e; --rule: #d5dae0;
  --mark: #eef3fb; --good: #1257c4; --bad: #dd8a1f; --halo: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --back: #14171b; --ink: #e8ebef; --soft: #a3adb8; --rule: #3a424b; --mark: #222b38;
    --good: #75abff; --bad: #c47a1c; --halo: #14171b; }
}
* { box-sizing: border-box; }
body { margin: 24px; background: var(--back); color: var(--ink);
  font: 14px/1.45 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 20px; margin: 0 0 4px; }
p { margin: 0 0 16px; color: var(--soft); }
.scroll { overflow-x: auto; margin-bottom: 20px; }
.key { display: inline-block; width: 90px; height: 8px; margin: 0 6px; border-radius: 4px;
  background: linear-gradient(in oklab to right, var(--bad), var(--good)); }
svg { display: block; }
svg text { fill: var(--ink); font-size: 12px; stroke: var(--halo); stroke-width: 4px;
  stroke-linejoin: round; paint-order: stroke; }
svg .name { text-anchor: middle; font-weight: 600; font-size: 13px; }
svg .group { text-anchor: middle; fill: var(--soft); font-size: 11px; }
svg .axis line { stroke: var(--soft); stroke-width: 1.2; }
svg .axis { pointer-events: none; }
.line path { fill: none; }
.thin { stroke: color-mix(in oklab, var(--good) var(--share, 0%), var(--bad)); stroke-width: 1.8;
  opacity: .8; }
.open .thin { stroke-dasharray: 5 4; }
.open:not([style]) .thin { stroke: var(--soft); }
.wide { stroke: transparent; stroke-width: 12; pointer-events: stroke; }
svg.chosen .thin { opacity: .1; }
svg.chosen .line.on .thin { opacity: 1; stroke-width: 3.4; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px; border-bottom: 1px solid var(--rule); text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--good); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
tbody tr.on td { background: var(--mark); }
</style>
</head>
<body>
<h1>@title@</h1>
<p>@head@. Colour: worst<span class="key"></span>best; dashed: not finished.</p>
<div class="scroll">@plot@</div>
<div class="scroll">@table@</div>
<script>
"use strict";
const svg = document.querySelector("svg"), body = document.querySelector("tbody");
function choose(row) {
  document.querySelectorAll(".on").forEach(e => e.classList.remove("on"));
  if (svg) svg.classList.toggle("chosen", row !== undefined);
  if (row === undefined) return;
  const found = document.querySelectorAll(`[data-row="${row}"]`);
  found.forEach(e => { e.classList.add("on"); });
}
for (const part of [svg, body]) {
  if (!part) continue;
  part.addEventListener("mouseover", e => choose(e.target.closest("[data-row]")?.dataset.row));
  part.addEventListener("mouseleave", () => choose());
}
document.querySelectorAll("th").forEach((head, column, heads) => {
  head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const by = row => row.children[column].dataset.sort;
    const missing = text => text === "" || text === "-";
    const rows = [...body.rows].sort((a, b) => {
      const x = by(a), y = by(b);
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    });
    body.append(...rows);
  });
});
</script>
</body>
</html>
"""
