"""Text layout for terminals: tables, columns, durations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from a2fjax import printing

WIDTH = 100


def table(rows: Iterable[Sequence[Any]], header: Sequence[str], indent: str = "  ") -> list[str]:
    """Returns the lines of a table; the first column is left-aligned, the others right-aligned."""
    cells = [[printing.cell(c) for c in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = []
    for row in cells:
        rest = [f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append(indent + "  ".join([f"{row[0]:<{widths[0]}}", *rest]).rstrip())
    return lines


def beside(blocks: Sequence[list[str]], *, gap: int = 3) -> list[str]:
    """Returns blocks of lines side by side, with as many per row as fit into `WIDTH`."""
    out: list[str] = []
    band: list[list[str]] = []

    def width(parts: list[list[str]]) -> int:
        return sum(max(map(len, part)) for part in parts) + gap * (len(parts) - 1)

    def close() -> None:
        if not band:
            return
        widths = [max(map(len, part)) for part in band]
        for row in range(max(map(len, band))):
            cells = [part[row] if row < len(part) else "" for part in band]
            padded = [f"{c:<{w}}" for c, w in zip(cells, widths, strict=True)]
            out.append((" " * gap).join(padded).rstrip())
        out.append("")

    for block in filter(None, blocks):
        if band and width([*band, block]) > WIDTH:
            close()
            band = []
        band.append(block)
    close()
    return out


def short(name: str, width: int) -> str:
    """Returns a name shortened to at most `width` characters by omitting its middle."""
    if len(name) <= width:
        return name
    tail = (width - 1) // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:] if tail else ''}"


def duration(seconds: float) -> str:
    """Returns a duration with a suitable unit: "7.3 s", "12.4 min", "104.2 h"."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
