"""Figures, counts and tables as text."""

from __future__ import annotations

from collections.abc import Sequence


def align(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table; the first column is left-aligned."""
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


def show(value: float | None, form: str = "{:.3f}") -> str:
    """Returns a figure as text, "-" for none."""
    return "-" if value is None else form.format(value)


def count(number: int, noun: str) -> str:
    """Returns "1 clip" or "5 clips"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def count_people(number: int) -> str:
    """Returns "1 person" or "5 people"."""
    return "1 person" if number == 1 else f"{number} people"
