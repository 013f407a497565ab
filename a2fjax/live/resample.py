"""Resamples live audio of any rate, with a delay of a few milliseconds and a rate that may drift.

A windowed sinc (J. O. Smith, "Digital Audio Resampling", ccrma.stanford.edu/~jos/resample). Block
resamplers such as `soxr.ResampleStream` hold 20 to 40 ms back.
"""

from __future__ import annotations

import numpy as np

from a2fjax.audio import SAMPLE_RATE
from a2fjax.errors import InputError

LOWEST_RATE, HIGHEST_RATE = 4_000, 384_000
MOST_PPM = 1_000.0
"""Largest correction of a clock, in parts per million."""

_ZEROS = 16  # Zero crossings on each side of the kernel.
_PHASES = 512
_PASSBAND = 0.94  # Of the lower Nyquist frequency; the window's transition takes the rest.
_KAISER = 8.0


class Resampler:
    """Mono audio at one rate to 16 kHz, block by block.

    The result depends on the samples alone, not on the blocks in which they came. Output sample n
    is the input at n / 16000 s: the resampler delays, but does not shift.

    Example:
        >>> resampler = Resampler(48_000)
        >>> len(resampler.push(np.zeros(48_000, np.float32))) + len(resampler.finish())
        16000

    Attributes:
      rate: of the input, in Hz.
      delay_seconds: the most that a sample waits for those after it.
    """

    def __init__(self, rate: float, *, variable: bool = False):
        """Makes the kernel.

        Args:
          rate: of the input, in Hz, 4000 to 384000.
          variable: whether `correct` will be used; otherwise 16 kHz passes as it is.

        Raises:
          InputError: a rate out of range.
        """
        if not LOWEST_RATE <= rate <= HIGHEST_RATE:
            raise InputError(f"rate {rate:g}: expected {LOWEST_RATE} to {HIGHEST_RATE} Hz")
        self.rate = rate
        self._passes = rate == SAMPLE_RATE and not variable
        scale = min(1.0, SAMPLE_RATE / rate) * (1.0 if rate == SAMPLE_RATE else _PASSBAND)
        self._half = int(np.ceil(_ZEROS / scale))
        self.delay_seconds = 0.0 if self._passes else self._half / rate
        self._table = _kernel(scale, self._half)
        self._buffer = np.zeros(self._half, np.float32)
        self._dropped = -self._half  # Number of the input sample at the buffer's start.
        self._heard = 0
        self._made = 0
        self._origin, self._since, self._step = 0.0, 0, rate / SAMPLE_RATE

    def correct(self, ppm: float) -> None:
        """Takes the input's clock as `ppm` parts per million faster than its rate, from now on.

        Raises:
          ValueError: beyond `MOST_PPM`, or the resampler is not variable.
        """
        if self._passes or not abs(ppm) <= MOST_PPM:
            raise ValueError(f"ppm={ppm}")
        self._origin += (self._made - self._since) * self._step
        self._since = self._made
        self._step = self.rate / SAMPLE_RATE * (1.0 + ppm * 1e-6)

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Hears samples [S] float32 and returns those [N] that are complete."""
        samples = np.asarray(samples, np.float32)
        self._heard += len(samples)
        if self._passes:
            return samples
        self._buffer = np.concatenate([self._buffer, samples])
        return self._take(self._heard - self._half)

    def finish(self) -> np.ndarray:
        """Returns the rest: round(samples x 16000 / rate) in all, where nothing was corrected."""
        if self._passes:
            return np.zeros(0, np.float32)
        self._buffer = np.concatenate([self._buffer, np.zeros(self._half + 1, np.float32)])
        return self._take(self._heard)

    def _take(self, end: float) -> np.ndarray:
        """Returns the output whose positions lie before input sample `end`."""
        count = int(np.ceil((end - self._origin) / self._step - 1e-9)) + self._since - self._made
        if count <= 0:
            return np.zeros(0, np.float32)
        numbers = np.arange(self._made, self._made + count) - self._since
        position = self._origin + numbers * self._step
        whole = np.floor(position).astype(np.int64)
        phase = (position - whole) * _PHASES
        low = phase.astype(np.int64)
        part = (phase - low).astype(np.float32)[:, None]
        first = whole - self._half + 1 - self._dropped
        windows = np.lib.stride_tricks.sliding_window_view(self._buffer, 2 * self._half)[first]
        taps = self._table[low] * (1 - part) + self._table[low + 1] * part
        self._made += count
        drop = int(first[-1])
        self._buffer = self._buffer[drop:]
        self._dropped += drop
        return np.einsum("nt,nt->n", windows, taps).astype(np.float32)


def _kernel(scale: float, half: int) -> np.ndarray:
    """Returns [phases + 1, 2 half] taps for positions between two input samples."""
    phases = np.arange(_PHASES + 1)[:, None] / _PHASES
    distance = phases - np.arange(-half + 1, half + 1)[None]
    inside = np.clip(1.0 - (distance / half) ** 2, 0.0, None)
    window = np.i0(_KAISER * np.sqrt(inside)) / np.i0(_KAISER)
    taps = scale * np.sinc(scale * distance) * window
    return (taps / taps.sum(axis=1, keepdims=True)).astype(np.float32)
