"""The part of a report's page about the judge: who it is, its scale, and the curve of its gate."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any

from a2fjax.evaluation import report_judge
from a2fjax.evaluation.layout import count, count_people
from a2fjax.evaluation.page_table import table

_WIDTH, _HEIGHT = 420.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 12.0, 10.0, 34.0
_LINES = (("linear", "linear expert", "#999"), ("expert", "judge", "#1f6fb4"))


def section(values: dict[str, Any]) -> list[str]:
    """Returns the parts of the page about a report's judge; [] without one."""
    judge = values.get("judge")
    if not judge:
        return []
    out = ["<h2>Judge of lip sync</h2>"]
    out += [f"<p>{html.escape(line)}</p>" for line in report_judge.who(judge)]
    for split, part in values["splits"].items():
        scale = part.get("judge")
        if scale:
            out += [f"<h3>{html.escape(split)}: what the judge makes of the truth</h3>"]
            out += [f"<p>{html.escape(scale['line'])}</p>"]
            if scale["rows"]:
                out.append(table(*report_judge.scale_rows(part)))
    curves = [
        _curve(split, part) for split, part in judge["gate"].items() if "expert" in part["curve"]
    ]
    if curves:
        out += ["<h3>Its gate: score over the offset of the audio</h3>", _LEGEND, *curves]
    return out


_LEGEND = (
    '<p class="note">Mean score of windows of 2 s of held-out clips whose audio is taken later or '
    "earlier than recorded, each curve less its median and over its standard deviation: blue the "
    "judge, grey the linear expert that was fitted to the same clips. In step is 0.</p>"
)


def _curve(split: str, part: dict[str, Any]) -> str:
    offsets = [float(v) for v in part["curve"]["offset_ms"]]
    curves = {key: standardised(part["curve"][key]) for key, _, _ in _LINES if key in part["curve"]}
    every = [v for curve in curves.values() for v in curve]
    low, high = min(every), max(max(every), min(every) + 1e-6)
    first, last = min(offsets), max(max(offsets), min(offsets) + 1e-6)

    def x(offset: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (offset - first) / (last - first)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))

    def text(at_x: float, at_y: float, words: str, anchor: str = "middle") -> str:
        return (
            f'<text x="{at_x:.1f}" y="{at_y:.1f}" font-size="10" fill="#666" '
            f'text-anchor="{anchor}">{words}</text>'
        )

    base = _HEIGHT - _BOTTOM
    drawn = [
        f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="{_TOP}" y2="{base}" stroke="#ccc"/>',
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}" stroke="#888"/>',
        *(text(x(v), base + 13, f"{v:+.0f}") for v in (first, first / 2, 0.0, last / 2, last)),
        text(x(0), _HEIGHT - 6, "audio later than recorded, ms"),
        *(text(_LEFT - 6, y(v) + 3, f"{v:.1f}", "end") for v in (low, high)),
    ]
    for key, _, colour in _LINES:
        if key in curves:
            pairs = zip(offsets, curves[key], strict=True)
            points = " ".join(f"{x(o):.1f},{y(v):.1f}" for o, v in pairs)
            drawn.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            )
    told = "; ".join(
        f"the {name} is highest at {_peak(offsets, curves[key])}"
        for key, name, _ in reversed(_LINES)
        if key in curves
    )
    where = f"{split}, {count(part['clips'], 'clip')}, {count_people(part['people'])}"
    caption = html.escape(f"{where}: {told}")
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" width="{_WIDTH:.0f}" role="img" '
        f'aria-label="{caption}"><title>{caption}</title>{"".join(drawn)}</svg></figure>'
    )


def standardised(curve: Sequence[float]) -> list[float]:
    """Returns a curve less its median, over its standard deviation.

    Example:
        >>> standardised([0.0, 0.0, 3.0])
        [0.0, 0.0, 2.1213203435596424]
    """
    ordered, size = sorted(map(float, curve)), len(curve)
    median = 0.5 * (ordered[(size - 1) // 2] + ordered[size // 2])
    mean = sum(ordered) / size
    deviation = math.sqrt(sum((v - mean) ** 2 for v in ordered) / size)
    return [(float(v) - median) / max(deviation, 1e-9) for v in curve]


def _peak(offsets: Sequence[float], curve: Sequence[float]) -> str:
    top = max(range(len(curve)), key=lambda i: curve[i])
    return f"{offsets[top]:+.0f} ms ({curve[top]:.1f} deviations above its median)"
