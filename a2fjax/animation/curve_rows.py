"""Rows of named values as files hold them, before `curve_reader` resolves names and times."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from a2fjax.animation import columns, text_files
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """Values as written, with the rows' clocks.

    Attributes:
      names: [N] names of the columns; empty if the file has none.
      values: [F, N], NaN where there is no value.
      fps: frames per second; 0 if the file states none.
      times: [F] s, NaN where a row has none, or None.
      timecodes: timecode of each row ("" for none), or None.
      numbers: [F] frame numbers, NaN where a row has none, or None.
      seen: [F] whether the file says that it saw a face, or None.
      observed: [N] whether a column was recorded, or None.
      lines: place of each row in messages, such as "file:12" or "frame 11".
      percent: whether the values are known to be percent.
      mouth_close: convention of mouthClose that the file states, see `mouth_close`.
      notes: what was left out, as text.
    """

    names: list[str]
    values: np.ndarray
    fps: float = 0.0
    times: np.ndarray | None = None
    timecodes: tuple[str, ...] | None = None
    numbers: np.ndarray | None = None
    seen: np.ndarray | None = None
    observed: np.ndarray | None = None
    lines: Sequence[str] = ()
    percent: bool = False
    mouth_close: str = "arkit"
    notes: tuple[str, ...] = ()


RATES = ("fpsexact", "fps", "exportfps", "framerate", "mocapframerate", "framespersecond")
"""Names of a stated frame rate in JSON and NumPy archives, without case and underscores."""


def rate(where: str, key: str, value: Any) -> float:
    """Returns a stated frame rate: a number, or a fraction as text.

    Raises:
      InputError: not a positive number.
    """
    text = str(value)
    try:
        above, _, below = text.partition("/")
        ratio = float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        ratio = np.nan
    if isinstance(value, bool) or not (np.isfinite(ratio) and ratio > 0):
        raise InputError(f"{where}: {key} is {text[:40]!r}, expected frames a second")
    return ratio


def number(where: str, name: str, value: Any) -> float:
    """Returns a value as a number, NaN if it stands for none.

    Raises:
      InputError: other text, a list, or an infinite number.
    """
    if value is None:
        return np.nan
    if isinstance(value, str):
        parsed = text_files.parse_number(value)
        value = value if parsed is None else parsed
    if isinstance(value, (int, float)):
        try:
            parsed = float(value)
        except OverflowError:
            parsed = np.inf
        if not np.isinf(parsed):
            return parsed
    raise InputError(f"{where}: {name} is {str(value)[:40]!r}, expected a finite number")


def flag(value: Any) -> bool:
    """Returns whether a flag or count says that a face was seen; no value says that none was."""
    text = str(value).strip().lower()
    if text in ("true", "yes"):
        return True
    try:
        return float(text) > 0
    except ValueError:
        return False


class Clocks(TypedDict, total=False):
    """The arguments of `Rows` that say when its rows were recorded."""

    times: np.ndarray
    timecodes: tuple[str, ...]
    numbers: np.ndarray


def clocks(where: Sequence[str], cells: Mapping[str, Sequence[Any]]) -> Clocks:
    """Returns the arguments of `Rows` for the most trusted of some clock columns.

    Args:
      where: place of each row, for messages.
      cells: cells by name of the column; each is a clock for `columns.clock_kind`.

    Raises:
      InputError: a cell is neither a number nor a timecode.
    """
    if not cells:
        return {}

    def has_values(name: str) -> bool:
        return any(str(c).strip().lower() not in text_files.MISSING for c in cells[name])

    kinds = {name: str(columns.clock_kind(name)) for name in cells}
    names = sorted(filter(has_values, cells), key=lambda n: columns.KINDS.index(kinds[n]))
    if not names:
        return {}
    name = names[0]
    kind, values = kinds[name], cells[name]
    if kind in ("s", "timecode") and any(isinstance(c, str) and ":" in c for c in values):
        texts = ["" if c is None else str(c).strip() for c in values]
        missing = text_files.MISSING
        return {"timecodes": tuple("" if t.lower() in missing else t for t in texts)}
    numbers = np.array([number(where[i], name, c) for i, c in enumerate(values)], np.float64)
    if kind == "frame":
        return {"numbers": numbers}
    return {"times": numbers * columns.SECONDS[kind]}


def is_number(text: str) -> bool:
    """Returns whether a text is a plain decimal number."""
    return re.fullmatch(r"\s*[-+]?\d+(\.\d*)?\s*", text) is not None
