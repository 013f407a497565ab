"""Tables of a report's page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], own: int = 0) -> str:
    """Returns a table of texts, escaped; the first `own` rows stand out.

    Example:
        >>> "<td>1 &lt; 2</td>" in table(["a"], [["1 < 2"]])
        True
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = []
    for i, row in enumerate(rows):
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in row)
        kind = ' class="own"' if i < own else ""
        lines.append(f"<tr{kind}>{cells}</tr>")
    return framed(head, lines)


def framed(head: str, lines: Sequence[str]) -> str:
    """Returns a table of the cells of its head and its rows, which are HTML already."""
    body = "\n".join(lines)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
        "</div>"
    )
