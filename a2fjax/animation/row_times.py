"""Times of rows: which rows are in order, and the time of each.

Rows without a time, repeated rows, and a few rows that go back in time are left out. The rows
that remain are the longest sequence whose times increase.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax import timecode
from a2fjax.animation import livelink, text_files
from a2fjax.animation.curve_rows import Rows
from a2fjax.errors import InputError

MOST_OUT_OF_ORDER = 0.05
"""Maximum share of rows left out because of their times; beyond it the right ones are unknown."""


def in_order(path: Path, rows: Rows, count: int) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Returns (mask [F] of rows in order, times [F] in s or None, notes).

    Times of rows that are not in order are NaN. Timecodes count from the first row in order,
    whether it has a face or not, since that is where a recording begins.

    Raises:
      InputError: a malformed timecode, no row with a time, or more than `MOST_OUT_OF_ORDER` of the
        rows out of order.
    """
    clock = rows.times if rows.times is not None else rows.numbers
    if rows.timecodes is not None:
        given = np.array([bool(text) for text in rows.timecodes])
    elif clock is not None:
        given = np.isfinite(clock)
    else:
        return np.ones(count, bool), None, []
    notes = []
    if not given.all():
        notes.append(f"{int((~given).sum())} of {count} rows without a time")
    numbers = np.flatnonzero(given)
    if not len(numbers):
        raise InputError(f"{path}: no row has a time")
    if rows.timecodes is not None:
        texts = [rows.timecodes[n] for n in numbers.tolist()]
        _check_timecodes(texts, [rows.lines[n] for n in numbers.tolist()])
        order = timecodes_in_order(texts)
    else:
        order = timecode.longest_increasing(np.asarray(clock)[numbers])
    kept = np.zeros(count, bool)
    kept[numbers[order]] = True
    late = numbers[~kept[numbers]]
    repeated = [n for n in late if any(_same(rows, n, k) for k in (n - 1, n + 1))]
    if len(late) - len(repeated) > MOST_OUT_OF_ORDER * len(numbers):
        first = int(next(n for n in late if n not in repeated))
        place = rows.lines[first] if len(rows.lines) else f"{path}: frame {first}"
        raise InputError(f"{place}: times do not increase, here and in {len(late)} of {count} rows")
    if len(late):
        place = str(rows.lines[late[0]]).removeprefix(f"{path}").lstrip(": ") if rows.lines else ""
        where = f", the first in {'line ' if place.isdigit() else ''}{place}" if place else ""
        notes.append(f"{len(late)} of {count} rows out of order in time left out{where}")
    if rows.timecodes is None and rows.times is None:
        return kept, None, notes
    times = np.full(count, np.nan)
    if rows.timecodes is not None:
        ordered = tuple(rows.timecodes[n] for n in np.flatnonzero(kept))
        table = livelink.Table(ordered, np.zeros((len(ordered), 0)), name=str(path))
        times[kept] = table.times()
    elif rows.times is not None:
        times[kept] = rows.times[kept]
    return kept, times, notes


def read_timecodes(path: str | Path) -> livelink.Table:
    """Returns the timecodes of a recording's rows in order, without its values.

    Raises:
      InputError: as for `in_order`, or not a Live Link Face CSV.
    """
    path = Path(path)
    if not livelink.is_recording(path):
        raise InputError(f"{path}: not a Live Link Face CSV")
    cells = text_files.read_table(path, lambda name: name.lower() == "timecode")
    texts = tuple("" if r[0].strip().lower() in text_files.MISSING else r[0] for r in cells.rows)
    rows = Rows(
        names=[],
        values=np.zeros((len(texts), 0)),
        timecodes=texts,
        lines=[f"{path}:{line}" for line in cells.lines],
    )
    kept, _, _ = in_order(path, rows, len(texts))
    ordered = tuple(texts[n] for n in np.flatnonzero(kept))
    return livelink.Table(ordered, np.zeros((len(ordered), 0)), name=str(path))


def _check_timecodes(texts: Sequence[str], lines: Sequence[str]) -> None:
    for text, line in zip(texts, lines, strict=True):
        try:
            timecode.parse(text)
        except InputError as error:
            raise InputError(f"{line}: {error}") from None


def _same(rows: Rows, a: int, b: int) -> bool:
    """Returns whether two rows have the same time and values."""
    if not 0 <= b < len(rows.values):
        return False
    clock = rows.timecodes if rows.timecodes is not None else rows.times
    clock = rows.numbers if clock is None else clock
    same_time = clock is not None and clock[a] == clock[b]
    return bool(same_time) and np.array_equal(rows.values[a], rows.values[b], equal_nan=True)


def timecodes_in_order(timecodes: Sequence[str]) -> np.ndarray:
    """Returns indices [N] of the longest sequence of timecodes that increase, across midnight.

    Raises:
      InputError: a malformed timecode.
    """
    return timecode.Column([timecode.parse(t) for t in timecodes]).in_order()


def frame_numbers(times: np.ndarray) -> np.ndarray:
    """Returns frame numbers [F] for increasing times, in units of the typical step."""
    if len(times) < 2:
        return np.zeros(len(times), np.int64)
    numbers = np.rint((times - times[0]) / np.median(np.diff(times))).astype(np.int64)
    return numbers if (np.diff(numbers) > 0).all() else np.arange(len(times))
