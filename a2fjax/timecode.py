"""Timecodes: what their numbers mean, and the times of rows that carry them.

A timecode is HH:MM:SS, a mark, and a number of frames within the second, which may have decimals.
Devices and exporters disagree about the rest, so a column is read as a whole (`find_reading`):

- Live Link Face writes HH:MM:SS:FF.fff, where fff is thousandths of a frame. It is a time of day:
  six real files of a phone that records at "59.94" step by 1.0016 frames on average at 60 numbers a
  second, and skip none.
- Others write the same form with fff as milliseconds of the second, or as a count of rows.
- Milliseconds or decimals of a second may take the place of frames: HH:MM:SS:mmm, HH:MM:SS.mmm.
- Drop-frame timecode (SMPTE ST 12-1) counts 29.97 or 59.94 frames a second with 30 or 60 numbers,
  and skips the first 2 or 4 numbers of each minute but the tenth. The mark ';' states it; without
  the mark the skipped numbers show it.
"""

from __future__ import annotations

import bisect
import dataclasses
import re
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from a2fjax.errors import InputError

RATES = (24, 25, 30, 48, 50, 60, 90, 100, 120, 240)
"""Numbers a second of timecodes that count frames."""

DAY = 86_400
_NTSC = (24, 30, 48, 60, 120, 240)  # numbers a second that may count 1000 / 1001 of them

_FORM = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})(?:([:;.,])(\d{1,9})(?:[.,](\d{1,9}))?)?")
_MOST = 0.95  # share of rows that must agree with a reading
_FEWEST = 5  # rows below which only the usual form is considered


class Timecode(NamedTuple):
    """A timecode as written.

    Attributes:
      seconds: whole seconds of the day.
      number: number after the mark; 0 if that holds decimals of a second.
      fraction: decimals after the number, or of the second, in [0, 1).
      mark: mark before the number: ":", ";", ".", "," or "".
      digits: digits of the number.
    """

    seconds: int
    number: int
    fraction: float
    mark: str
    digits: int

    @property
    def frames(self) -> float:
        """Number with its decimals, as frames."""
        return self.number + self.fraction

    @property
    def is_decimal(self) -> bool:
        """Whether the text is HH:MM:SS, with or without decimals of a second."""
        return not self.mark or (self.mark in ".," and self.digits > 2)


def parse(text: str) -> Timecode:
    """Parses HH:MM:SS:FF, HH:MM:SS;FF, HH:MM:SS:FF.fff, HH:MM:SS:mmm or HH:MM:SS.mmm.

    Example:
        >>> parse("14:58:02:44.643").frames
        44.643

    Raises:
      InputError: the text has another form, or an hour, minute or second is out of range.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise InputError(f"timecode {text[:40]!r}: expected HH:MM:SS:FF.fff")
    hours, minutes, seconds = (int(match[i]) for i in (1, 2, 3))
    if hours > 23 or minutes > 59 or seconds > 59:
        raise InputError(f"timecode {text!r}: expected an hour of 0-23, minutes and seconds 0-59")
    whole = (hours * 60 + minutes) * 60 + seconds
    mark, number, decimals = match[4] or "", match[5] or "", match[6] or ""
    if mark and mark in ".," and len(number) > 2 and not decimals:
        return Timecode(whole, 0, float(f"0.{number}"), mark, len(number))
    return Timecode(whole, int(number or 0), float(f"0.{decimals or 0}"), mark, len(number))


def format_timecode(seconds: Fraction | float, rate: int) -> str:
    """Returns a time of day as HH:MM:SS:FF.fff, to the nearest thousandth of a frame.

    Args:
      seconds: since midnight; taken modulo a day.
      rate: timecode frames per second, an integer; 60 for 59.94.
    """
    count = round(Fraction(seconds) * rate * 1000) % (DAY * rate * 1000)
    second, frame = divmod(count, rate * 1000)
    return (
        f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}:"
        f"{frame // 1000:02d}.{frame % 1000:03d}"
    )


@dataclasses.dataclass(frozen=True)
class Reading:
    """The meaning of the timecodes of a column.

    Attributes:
      rate: numbers a second; 1000 if milliseconds take the place of frames, 1 if the decimals are
        those of the second.
      decimals: what the decimals after the number are: "frame" (parts of a frame), "second"
        (milliseconds; the number repeats them in frames) or "row" (a count of rows, no time).
      drop: whether numbers are skipped at minutes, so that they count rate * 1000 / 1001 frames a
        second.
    """

    rate: int
    decimals: str = "frame"
    drop: bool = False

    @property
    def day(self) -> float:
        """Length of a day of timecodes, s."""
        if not self.drop:
            return float(DAY)
        return float(self._count(DAY * self.rate, 24 * 60)) * 1001 / (1000 * self.rate)

    def _count(self, number: np.ndarray | float, minutes: np.ndarray | int) -> np.ndarray | float:
        """Returns frames since midnight, less the numbers skipped until then."""
        return number - skipped(self.rate) * (minutes - minutes // 10)

    def of_day(self, seconds: np.ndarray, numbers: np.ndarray, fractions: np.ndarray) -> np.ndarray:
        """Returns the time of day, s, of timecodes given by field, see `Timecode`."""
        if self.decimals == "second":
            return seconds + fractions
        frames = numbers + (fractions if self.decimals == "frame" else 0.0)
        if not self.drop:
            return seconds + frames / self.rate
        count = self._count(seconds * self.rate + frames, seconds // 60)
        return np.asarray(count) * (1001 / (1000 * self.rate))

    def time_of_day(self, code: Timecode) -> float:
        """Returns the time of day of one timecode, s."""
        return float(
            self.of_day(np.array(code.seconds), np.array(code.number), np.array(code.fraction))
        )


def skipped(rate: int) -> int:
    """Returns how many numbers drop-frame timecode skips at a minute, 0 at other rates."""
    return rate // 15 if rate in (30, 60, 120, 240) else 0


class Column:
    """The timecodes of a table's rows."""

    def __init__(self, codes: Sequence[Timecode]):
        """Stores the timecodes, at least one."""
        self.codes = tuple(codes)
        self.seconds = np.array([c.seconds for c in codes], np.int64)
        self.numbers = np.array([c.number for c in codes], np.float64)
        self.fractions = np.array([c.fraction for c in codes])
        self.reading = find_reading(self)

    def of_day(self, reading: Reading | None = None) -> np.ndarray:
        """Returns the time of day [T] of each row, s."""
        return (reading or self.reading).of_day(self.seconds, self.numbers, self.fractions)

    def times(self, reading: Reading | None = None) -> np.ndarray:
        """Returns [T] s since the first row, continuous across midnight."""
        reading = reading or self.reading
        times = self.of_day(reading)
        days = np.concatenate([[0], np.cumsum(np.diff(times) < -reading.day / 2)])
        return times - times[0] + days * reading.day

    def possible_starts(self) -> list[float]:
        """Returns the times of day of the first row, s: two if whole numbers do not tell the rate.

        Timecode without skipped numbers that counts 29.97 frames a second is 3.6 s behind the time
        of day for each hour of the day.
        """
        start, reading = float(self.of_day()[0]), self.reading
        whole = reading.decimals == "frame" and not self.fractions.any() and reading.rate in _NTSC
        return [start, start * 1.001] if whole and not reading.drop else [start]

    def in_order(self) -> np.ndarray:
        """Returns indices [N] of the longest sequence of rows whose times increase."""
        times, day = self.of_day(), self.reading.day
        # Times are relative to the middle row, so that one bad row moves no other across midnight.
        return longest_increasing((times - times[len(times) // 2] + day / 2) % day)


def longest_increasing(times: np.ndarray) -> np.ndarray:
    """Returns indices [N] of the longest increasing subsequence of times [T]."""
    if (np.diff(times) > 0).all():
        return np.arange(len(times))
    # Patience sorting: `ends` holds the lowest last value of an increasing sequence per length.
    ends: list[float] = []
    rows: list[int] = []
    before = np.full(len(times), -1)
    for row, time in enumerate(times.tolist()):
        place = bisect.bisect_left(ends, time)
        before[row] = rows[place - 1] if place else -1
        if place == len(ends):
            ends.append(time)
            rows.append(row)
        else:
            ends[place], rows[place] = time, row
    kept = [rows[-1]]
    while before[kept[-1]] >= 0:
        kept.append(int(before[kept[-1]]))
    return np.array(kept[::-1])


def find_reading(column: Column) -> Reading:
    """Returns the reading under which a column's rows agree with each other."""
    codes, numbers = column.codes, column.numbers
    if np.mean([c.is_decimal for c in codes]) > 0.5:
        return Reading(1)
    if _are_milliseconds(column):
        return Reading(1000)
    frames = numbers + column.fractions
    if _repeat_the_decimals(numbers, column.fractions):
        return Reading(_find_rate(column.seconds, numbers), "second")
    rate = _find_rate(column.seconds, frames)
    decimals = "frame"
    if _count_rows(numbers, column.fractions, rate):
        decimals, frames = "row", numbers
        rate = _find_rate(column.seconds, numbers)
    marked = float(np.mean([c.mark in (";", ".", ",") for c in codes])) > 0.5
    return Reading(rate, decimals, _drops(column.seconds, frames, rate, marked))


def _are_milliseconds(column: Column) -> bool:
    """Returns whether milliseconds take the place of frames."""
    numbers = column.numbers
    if np.mean(numbers >= RATES[-1]) > 1 - _MOST:
        return True
    # Less than a quarter of a second: three digits, and steps that no frame number makes.
    steps = np.diff(numbers)
    return (
        len(steps) > 0
        and bool(np.mean([c.digits == 3 for c in column.codes]) >= _MOST)
        and bool(np.median(np.abs(steps)) >= 4)
    )


def _repeat_the_decimals(numbers: np.ndarray, fractions: np.ndarray) -> bool:
    """Returns whether the frame numbers follow from decimals that are those of the second."""
    if len(numbers) < _FEWEST or np.ptp(numbers) < 3:
        return False
    return any(
        np.mean(np.abs(numbers - np.floor(fractions * rate)) <= 1) >= _MOST
        for rate in RATES
        if rate >= numbers.max()
    )


def _count_rows(numbers: np.ndarray, fractions: np.ndarray, rate: int) -> bool:
    """Returns whether the decimals count rows: 1.001, 2.002, 3.003.

    So do frames at rate * 1000 / 1001, but their decimals carry over into the number.
    """
    thousandths = np.rint(fractions * 1000)
    steps = np.diff(thousandths)
    if len(numbers) < _FEWEST or np.mean(steps % 1000 == 1) < _MOST:
        return False
    wraps = steps < 0
    if wraps.any():
        return bool(np.median((np.diff(numbers) % rate)[wraps]) < 1.5)
    return rate not in _NTSC


def _find_rate(seconds: np.ndarray, frames: np.ndarray) -> int:
    """Returns the rate at which steps across second boundaries equal those within seconds."""
    possible = [r for r in RATES if r > frames[frames < RATES[-1]].max(initial=0)]
    within = np.diff(seconds) == 0
    across = np.diff(seconds) == 1
    steps = np.diff(frames)
    if not (within & (steps > 0)).any() or not across.any():
        # Too short to determine the rate: assume the phone's default if it fits.
        return 60 if 60 in possible else possible[0]
    step = np.median(steps[within & (steps > 0)])
    return min(possible, key=lambda r: abs(np.median(steps[across] + r) - step))


def _drops(seconds: np.ndarray, frames: np.ndarray, rate: int, marked: bool) -> bool:
    """Returns whether numbers are skipped at minutes."""
    skip = skipped(rate)
    if not skip or marked:
        return bool(skip and marked)
    minutes = seconds // 60
    if ((frames < skip) & (seconds % 60 == 0) & (minutes % 10 != 0)).any():
        return False
    steps = np.diff(frames)
    usual = steps[(np.diff(seconds) == 0) & (steps > 0)]
    at = np.flatnonzero((np.diff(seconds) == 1) & (np.diff(minutes) == 1) & (minutes[1:] % 10 != 0))
    if not len(at) or not len(usual):
        return False
    return bool(np.median(np.abs(steps[at] + rate - skip - np.median(usual))) < 0.5)


def time_of_day(text: str, rate: Fraction) -> float | None:
    """Returns the time of day in s of a film's timecode, None if it is none.

    Args:
      text: HH:MM:SS:FF, or HH:MM:SS;FF of drop-frame timecode.
      rate: frames per second, such as 30000/1001; frames are counted at the next whole rate.
    """
    try:
        code = parse(text)
    except InputError:
        return None
    nominal = int(np.ceil(float(rate) - 1e-3))
    if code.is_decimal:
        return Reading(1).time_of_day(code)
    drop = code.mark != ":" and skipped(nominal) > 0
    return Reading(nominal, drop=drop).time_of_day(code)
