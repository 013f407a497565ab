"""Timed curves: 72 channels at times in seconds, and resampling to other frame rates."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np

from a2fjax import budgets, rig
from a2fjax.errors import InputError

NTSC = {
    "23.976": Fraction(24000, 1001),
    "23.98": Fraction(24000, 1001),
    "29.97": Fraction(30000, 1001),
    "47.952": Fraction(48000, 1001),
    "59.94": Fraction(60000, 1001),
    "119.88": Fraction(120000, 1001),
}
"""Common notations of the SMPTE ST 12-1 rates that are 1000/1001 of an integer."""


_EVEN = 0.25  # of a frame


@dataclasses.dataclass(frozen=True)
class Track:
    """Curves of a file with their times.

    Attributes:
      motion: [T, 72] float32 in rig units.
      times: [T] float64 seconds, strictly increasing.
      observed: [72] bool, the channels present in the file.
      notes: what the reader left out or converted, as text.
    """

    motion: np.ndarray
    times: np.ndarray
    observed: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def fps(self) -> float:
        """Mean frame rate in frames per second; `rig.FPS` for a single frame.

        At an even rate, frames that are missing between others count.
        """
        if len(self.times) < 2:
            return float(rig.FPS)
        steps = np.diff(self.times)
        frames = steps / np.median(steps)
        even = bool((np.abs(frames - np.rint(frames)) < _EVEN).all())
        count = np.rint(frames).sum() if even else len(frames)
        return float(count / (self.times[-1] - self.times[0]))

    def at(self, times: np.ndarray) -> np.ndarray:
        """Returns the motion [N, 72] at `times` [N]: linear between frames, constant outside."""
        out = np.empty((len(times), rig.NUM_CHANNELS), np.float32)
        for c in range(rig.NUM_CHANNELS):
            out[:, c] = np.interp(times, self.times, self.motion[:, c])
        return out

    def resampled(self, fps: float | Fraction = rig.FPS) -> Track:
        """Returns the track resampled to `fps`, from its first time to its last.

        Raises:
          InputError: more frames than the budget `frames_millions`.
        """
        fps = rate(fps)
        span = self.times[-1] - self.times[0]
        # Half a microsecond of tolerance, so that rounding does not drop the last frame.
        count = int(np.floor(span * float(fps) + 5e-7 * float(fps))) + 1
        budgets.check(
            "frames_millions", count / 1e6, f"a track of {span:g} s at {float(fps):g} fps"
        )
        times = self.times[0] + np.arange(count) * (fps.denominator / fps.numerator)
        return Track(self.at(times), times, self.observed, self.notes)


def rate(value: str | float | Fraction) -> Fraction:
    """Returns a frame rate as an exact fraction.

    Accepts numbers ("50", "12.5"), fractions ("30000/1001") and the decimal names of the NTSC rates
    ("29.97", "59.94"), which mean 30000/1001 and 60000/1001.

    Raises:
      InputError: not a number, or outside [1, 1000] frames per second.
    """
    if isinstance(value, Fraction):
        fps = value
    else:
        text = str(value).strip()
        try:
            fps = NTSC[text] if text in NTSC else Fraction(text).limit_denominator(100_000)
        except (ValueError, ZeroDivisionError):
            raise InputError(f"fps={text!r}: expected frames a second, such as 60") from None
    if not 1 <= fps <= 1000:
        raise InputError(f"fps={value!s}: expected between 1 and 1000 frames a second")
    return fps


class Resampler:
    """Resamples motion that arrives in blocks; the output does not depend on the block sizes.

    Output frame k lies at exactly `k / fps_out` seconds (integer arithmetic); values are
    interpolated linearly between input frames and constant after the last. The output covers the
    input's duration: N input frames give ceil(N * fps_out / fps_in) frames.
    """

    def __init__(self, fps_in: float | Fraction, fps_out: float | Fraction):
        """Starts at frame 0.

        Args:
          fps_in: frame rate of the input.
          fps_out: frame rate of the output.
        """
        self._ratio = rate(fps_in) / rate(fps_out)
        self._kept = np.zeros((0, rig.NUM_CHANNELS), np.float32)
        self._first = 0
        self._next = 0

    def push(self, motion: np.ndarray) -> np.ndarray:
        """Adds [N, 72] input frames and returns the [M, 72] output frames they complete."""
        self._kept = np.concatenate([self._kept, np.asarray(motion, np.float32)])
        last = self._first + len(self._kept) - 1
        return self._emit(math.floor(last / self._ratio) + 1 if last >= 0 else 0)

    def finish(self) -> np.ndarray:
        """Returns the remaining output frames, repeating the last input frame."""
        return self._emit(math.ceil((self._first + len(self._kept)) / self._ratio))

    def _emit(self, stop: int) -> np.ndarray:
        if stop <= self._next:
            return np.zeros((0, rig.NUM_CHANNELS), np.float32)
        position = np.arange(self._next, stop, dtype=np.int64) * self._ratio.numerator
        whole, rest = np.divmod(position, self._ratio.denominator)
        part = (rest / self._ratio.denominator).astype(np.float32)[:, None]
        low = whole - self._first
        high = np.minimum(low + 1, len(self._kept) - 1)
        low = np.minimum(low, len(self._kept) - 1)
        out = self._kept[low] * (1 - part) + self._kept[high] * part
        self._next = stop
        keep_from = int(self._next * self._ratio) - self._first
        keep_from = max(0, min(keep_from, len(self._kept) - 1))
        self._kept, self._first = self._kept[keep_from:], self._first + keep_from
        return out


def resampled_frames(frames: int, fps_in: float | Fraction, fps_out: float | Fraction) -> int:
    """Returns the number of frames that `Resampler` outputs for `frames` input frames."""
    return math.ceil(frames * rate(fps_out) / rate(fps_in))


def resample(motion: np.ndarray, fps_in: float | Fraction, fps_out: float | Fraction) -> np.ndarray:
    """Resamples motion [N, 72] to [ceil(N * fps_out / fps_in), 72]; see `Resampler`."""
    resampler = Resampler(fps_in, fps_out)
    return np.concatenate([resampler.push(motion), resampler.finish()])
