"""Live Link Face CSV: Apple's 61 columns with one timecode per row.

    Timecode,BlendshapeCount,EyeBlinkLeft, ... ,RightEyeRoll
    18:43:58:59.723,61,0.0000000000, ...

Timecodes are read by `a2fjax.timecode`; they are times of day in the phone's own files.

Eye and head rotations are in radians: in the same files yaw is 0.62 per unit of eyeLookOut minus
eyeLookIn, which saturates near 36 degrees. Positive yaw turns to the face's right, positive pitch
down.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from a2fjax import budgets, channel_orders, files, rig, timecode
from a2fjax.animation import text_files, tracks
from a2fjax.errors import InputError, nearest

LAYOUT = channel_orders.order("livelink61")
HEADER = ("Timecode", "BlendshapeCount", *LAYOUT.names)
_FIRST_COLUMNS = re.compile(r'\s*(sep=.\s+)?"?timecode"?\s*[,;\t|]\s*"?blendshapecount\b')


def timecode_rate(fps: float | Fraction) -> int:
    """Returns the timecode rate of a frame rate: the frame rate rounded up to an integer."""
    return int(np.ceil(float(tracks.rate(fps)) - 1e-9))


@dataclasses.dataclass(frozen=True)
class Table:
    """The full content of a Live Link Face file; writing it back reproduces the same bytes.

    Attributes:
      timecodes: timecode of each row, as in the file.
      values: [T, N] float64 in the file's units.
      header: column names as in the file; the first two are the timecode and the count.
      newline: line ending of the file.
      name: file name, for messages.
    """

    timecodes: tuple[str, ...]
    values: np.ndarray
    header: tuple[str, ...] = HEADER
    newline: str = "\n"
    name: str = "Live Link table"

    @functools.cached_property
    def column(self) -> timecode.Column:
        """The parsed timecodes and how they are read."""
        return timecode.Column([timecode.parse(t) for t in self.timecodes])

    @property
    def rate(self) -> int:
        """Timecode frames per second, found from the rows."""
        return self.column.reading.rate

    def times(self, rate: int | None = None) -> np.ndarray:
        """Returns [T] float64 seconds since the first row, continuous across midnight.

        Args:
          rate: timecode frames per second; None determines it from the rows.

        Raises:
          InputError: a row is not later than the previous row.
        """
        times = self.column.times(None if rate is None else timecode.Reading(rate))
        late = np.flatnonzero(np.diff(times) <= 0)
        if len(late):
            row = int(late[0]) + 1
            raise InputError(
                f"{self.name}:{row + 2}: timecode {self.timecodes[row]} is not after "
                f"{self.timecodes[row - 1]}"
            )
        return times

    @property
    def start(self) -> float:
        """Time of day of the first row, s."""
        return self.column.reading.time_of_day(self.column.codes[0])

    def to_motion(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (motion [T, 72] float32 in rig units, observed [72] bool).

        Head rotation and eye roll have no rig channel and remain in the table only.
        """
        return LAYOUT.to_rig(self.values, self.header[2:])

    def track(self) -> tracks.Track:
        """Returns the curves as a track whose time starts at the first row."""
        motion, observed = self.to_motion()
        return tracks.Track(motion, self.times(), observed)


def from_motion(
    motion: np.ndarray, *, fps: float | Fraction = rig.FPS, start: str = "00:00:00:00.000"
) -> Table:
    """Returns the table of motion [T, 72] whose frame k is `k / fps` seconds after `start`."""
    writer = TimecodeCounter(fps, start)
    values = LAYOUT.from_rig(motion).astype(np.float64)
    return Table(tuple(writer.timecodes(len(values))), values)


def read(path: str | Path) -> Table:
    """Reads a Live Link Face CSV with any of the layout's columns, in any order, as it is.

    `curve_reader.read` reads recordings: it leaves out rows without a face or out of order.

    Raises:
      InputError: missing or empty file, another kind of file, unknown or repeated column, short or
        long row, wrong count, malformed timecode, or a value that is not a finite number; the
        message names the file and line.
    """
    path = Path(path)
    newline, header, lines = _lines(path)
    timecodes, values = [], np.empty((len(lines), len(header) - 2))
    for row, line in enumerate(lines):
        timecodes.append(_read_row(path, row + 2, line, header, values[row]))
    return Table(tuple(timecodes), values, header, newline, str(path))


def is_recording(path: str | Path) -> bool:
    """Returns whether a file's first line begins like that of a Live Link Face CSV."""
    head = text_files.read_head(Path(path), 400).lower()
    return _FIRST_COLUMNS.match(head) is not None


def _lines(path: Path) -> tuple[str, tuple[str, ...], list[str]]:
    """Returns (newline, header, rows) of a file with at least one row."""
    try:
        text = budgets.read_table(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a Live Link Face CSV (not text)") from None
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = text.split(newline)
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise InputError(f"{path}: is empty, expected a Live Link Face CSV")
    header = tuple(name.strip() for name in lines[0].split(","))
    _check_header(path, header)
    if len(lines) == 1:
        raise InputError(f"{path}: has a header but no frames")
    return newline, header, lines[1:]


def _check_header(path: Path, header: tuple[str, ...]) -> None:
    if header[0].lower().startswith("timecode;"):
        raise InputError(f"{path}:1: columns are separated by ';', expected ','")
    if header[0].lower() != "timecode":
        raise InputError(
            f"{path}:1: first column is {header[0][:40]!r}, expected 'Timecode' of a Live Link CSV"
        )
    if len(header) < 3 or header[1].lower() != "blendshapecount":
        second = header[1] if len(header) > 1 else ""
        raise InputError(f"{path}:1: second column is {second!r}, expected 'BlendshapeCount'")
    known = {name.lower() for name in LAYOUT.names}
    seen: set[str] = set()
    for name in header[2:]:
        if name.lower() not in known:
            raise InputError(f"{path}:1: unknown column {name!r}{nearest(name, LAYOUT.names)}")
        if name.lower() in seen:
            raise InputError(f"{path}:1: column {name!r} appears twice")
        seen.add(name.lower())


def _read_row(path: Path, number: int, line: str, header: Sequence[str], out: np.ndarray) -> str:
    cells = line.split(",")
    if len(cells) != len(header):
        raise InputError(f"{path}:{number}: {len(cells)} values, expected {len(header)}")
    try:
        timecode.parse(cells[0])
    except InputError as error:
        raise InputError(f"{path}:{number}: {error}") from None
    if cells[1].strip() != str(len(out)):
        raise InputError(f"{path}:{number}: {header[1]} is {cells[1]!r}, expected {len(out)}")
    try:
        out[:] = [float(cell) for cell in cells[2:]]
    except ValueError:
        out[:] = [_number(cell) for cell in cells[2:]]
    wrong = np.flatnonzero(~np.isfinite(out))
    if len(wrong):
        column = int(wrong[0]) + 2
        raise InputError(
            f"{path}:{number}: {header[column]} is {cells[column]!r}, expected a finite number"
        )
    return cells[0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def write(path: str | Path, table: Table) -> None:
    """Writes a table atomically; a file read by `read` is reproduced byte for byte.

    Values have 10 decimals, as in the phone's files.

    Raises:
      InputError: the file cannot be written.
    """
    with files.atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        file.write(",".join(table.header) + table.newline)
        for code, row in zip(table.timecodes, table.values, strict=True):
            file.write(format_row(code, row) + table.newline)


def format_row(code: str, values: np.ndarray) -> str:
    """Returns a row of a file, with the 10 decimals of the phone's files."""
    return f"{code},{len(values)}," + ",".join(f"{v:.10f}" for v in values.tolist())


class TimecodeCounter:
    """Generates the timecodes of consecutive frames."""

    def __init__(self, fps: float | Fraction, start: str):
        """Starts at `start`; see `check_start`."""
        self._fps = tracks.rate(fps)
        self._rate = timecode_rate(self._fps)
        code = timecode.parse(start)
        if code.mark != ":":
            raise InputError(f"start timecode {start!r}: expected HH:MM:SS:FF.fff")
        if code.frames >= self._rate:
            raise InputError(
                f"start timecode {start}: frame {code.frames:g} of a second, expected less than "
                f"{self._rate} at {float(self._fps):g} frames a second"
            )
        self._start = code.seconds + Fraction(str(code.frames)) / self._rate
        self._next = 0

    def timecodes(self, count: int) -> Iterator[str]:
        """Yields the next timecodes."""
        for k in range(self._next, self._next + count):
            yield timecode.format_timecode(self._start + k / self._fps, self._rate)
        self._next += count


def check_start(start: str, fps: float | Fraction) -> None:
    """Checks the start timecode of a recording at `fps`.

    Raises:
      InputError: not a timecode, or its frame number exceeds the rate.
    """
    TimecodeCounter(fps, start)
