"""Small plots as SVG text: histograms with thresholds, bar charts, and sparklines of takes.

They are drawn here instead of with a plotting library to keep them small, identical on every
machine, and their text selectable.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

BLUE, RED, GREY, INK = "#3b6ea5", "#b3261e", "#c9ced6", "#4a5160"
_WIDTH, _HEIGHT = 300, 130
_LEFT, _RIGHT, _TOP, _BOTTOM = 10, 290, 20, 104


def format_number(value: float | None, digits: int = 3) -> str:
    """Returns a number for display: three digits, no exponent from 0.0001 to a million."""
    if value is None or not math.isfinite(value):
        return ""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def escape(value: object) -> str:
    """Returns text escaped for HTML, without control characters and surrogates."""
    plain = "".join(c if c.isprintable() else "\ufffd" for c in str(value).replace("\n", " "))
    return html.escape(plain.encode("utf-8", "replace").decode("utf-8"), quote=True)


def histogram(measure: Mapping[str, Any], *, percent: bool = False) -> str:
    """Returns a histogram of a measure, its threshold in red; see `report.assemble_report`."""
    edges, counts = measure["histogram"]["edges"], measure["histogram"]["counts"]
    factor = 100.0 if percent else 1.0
    low, high = edges[0], edges[-1]
    span, top = high - low, max(*counts, 1)

    def place(value: float) -> float:
        return _LEFT + (value - low) / span * (_RIGHT - _LEFT)

    parts = []
    for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if not count:
            continue
        # Keep single takes visible beside thousands.
        tall = max(2.0, count / top * (_BOTTOM - _TOP))
        x, width = place(a), max(1.0, place(b) - place(a) - 1)
        title = f"{format_number(a * factor)} to {format_number(b * factor)}: {count}"
        parts.append(
            f'<rect x="{x:.1f}" y="{_BOTTOM - tall:.1f}" width="{width:.1f}" height="{tall:.1f}" '
            f'fill="{BLUE}"><title>{title}</title></rect>'
        )
    limit, note = measure.get("threshold"), ""
    if limit:
        sign = "≥" if str(measure.get("threshold_name", "")).startswith("least") else "≤"
        note = f"must be {sign} {format_number(limit * factor)}"
        if low - 1e-9 * span <= limit <= high + 1e-9 * span:
            x = place(limit)
            parts.append(
                f'<path d="M{x:.1f} {_TOP - 4}V{_BOTTOM}" stroke="{RED}" stroke-width="1.5" '
                'stroke-dasharray="4 3"/>'
            )
    ends = (
        f'<text x="{_LEFT}" y="{_BOTTOM + 15}">{format_number(low * factor)}</text>'
        f'<text x="{_RIGHT}" y="{_BOTTOM + 15}" text-anchor="end">'
        f"{format_number(high * factor)}</text>"
        f'<text x="{_RIGHT}" y="12" text-anchor="end" fill="{RED}">{note}</text>'
        f'<text x="{_LEFT}" y="12">{top} take{"" if top == 1 else "s"}</text>'
    )
    base = f'<path d="M{_LEFT} {_BOTTOM}H{_RIGHT}" stroke="{GREY}"/>'
    label = f"Histogram of {escape(measure['label'])}"
    return _svg(_WIDTH, _HEIGHT, label, "".join(parts) + base + ends)


def bar_chart(values: Sequence[tuple[str, float]], unit: str) -> str:
    """Returns horizontal bars as HTML rows, the longest filling the width."""
    top = max((v for _, v in values), default=0.0)
    rows = []
    for name, value in values:
        part = 100 * value / top if top > 0 else 0.0
        rows.append(
            f'<div class="bar"><span class="name"><bdi>{escape(name) or "not known"}</bdi></span>'
            f'<span class="track"><span style="width:{part:.1f}%"></span></span>'
            f'<span class="value">{format_number(value)} {escape(unit)}</span></div>'
        )
    return "".join(rows)


def take_sparkline(thumbnail: Mapping[str, Any], name: str) -> str:
    """Returns a plot over time of loudness (grey), lip aperture (blue) and residual (red)."""
    loudness, lips = thumbnail.get("loudness") or [], thumbnail.get("aperture") or []
    residual = thumbnail.get("residual") or []
    parts = []
    if loudness:
        step = 292 / max(1, len(loudness) - 1)
        bars = "".join(
            f"M{4 + i * step:.1f} 64V{64 - 48 * v:.1f}"
            for i, v in enumerate(loudness)
            if v is not None and v > 0
        )
        parts.append(f'<path d="{bars}" stroke="#dfe3e9" stroke-width="{step + 0.1:.2f}"/>')
    known = [v for v in lips if v is not None]
    if known:
        top = max(0.2, *known)
        shape = _line(lips, min(0.0, *known), top, 16, 64)
        parts.append(f'<path d="{shape}" fill="none" stroke="{BLUE}" stroke-width="1.2"/>')
        parts.append(f'<text x="4" y="9" fill="{BLUE}">lips {format_number(top, 2)}</text>')
    errors = [v for v in residual if v is not None]
    if errors:
        top = max(1e-3, *errors)
        shape = _line(residual, 0.0, top, 80, 98)
        parts.append(f'<path d="{shape}" fill="none" stroke="{RED}" stroke-width="1.2"/>')
        parts.append(f'<text x="4" y="76" fill="{RED}">residual {format_number(top, 2)} mm</text>')
    tall = 114 if errors else 80
    seconds = format_number(thumbnail.get("seconds"))
    parts.append(f'<text x="296" y="{tall - 4}" text-anchor="end">{seconds} s</text>')
    return _svg(300, tall, f"Loudness and lips of {escape(name)}", "".join(parts))


def _line(values: Sequence[float | None], low: float, high: float, top: int, bottom: int) -> str:
    """Returns the SVG path of a curve, interrupted at missing values."""
    out, pen = [], False
    scale, step = (bottom - top) / max(high - low, 1e-9), 292 / max(1, len(values) - 1)
    for i, value in enumerate(values):
        if value is None:
            pen = False
            continue
        y = bottom - (min(max(value, low), high) - low) * scale
        out.append(f"{'L' if pen else 'M'}{4 + i * step:.1f} {y:.1f}")
        pen = True
    return "".join(out)


def _svg(width: int, height: int, label: str, inside: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}" font-size="11" '
        f'fill="{INK}">{inside}</svg>'
    )
