"""Keeps a buffer between two clocks at its level: the source's sound card and this machine's."""

from __future__ import annotations

from a2fjax.audio import SAMPLE_RATE

MOST_PPM = 500.0
"""Largest correction; sound cards are within 200 parts per million."""

_SMOOTHING = 0.01  # Of the level, a call: packets make it jump.
_PROPORTIONAL, _INTEGRAL = 1.0, 0.0002  # ppm a sample, and ppm a sample and call.


class DriftControl:
    """A proportional-integral control: level of a buffer in, correction of a resampler out.

    Without it, a card that is 200 ppm fast adds 0.72 s of delay an hour.

    Attributes:
      target: samples that the buffer shall hold.
      ppm: the correction now.
    """

    def __init__(self, target: float = 0.06 * SAMPLE_RATE):
        """Starts without a correction.

        Args:
          target: samples that the buffer shall hold, at 16 kHz.
        """
        self.target = target
        self.ppm = 0.0
        self._level = target
        self._sum = 0.0

    def update(self, held: int) -> float:
        """Returns the correction after a hop was taken, in ppm.

        Args:
          held: samples that the buffer holds.
        """
        self._level += _SMOOTHING * (held - self._level)
        error = self._level - self.target
        # Beyond the range the integral would only wind up.
        if abs(_PROPORTIONAL * error + self._sum) < MOST_PPM:
            self._sum += _INTEGRAL * error
        wanted = _PROPORTIONAL * error + self._sum
        self.ppm = max(-MOST_PPM, min(MOST_PPM, wanted))
        return self.ppm


def samples_an_hour(ppm: float) -> float:
    """Returns what a clock error adds to a buffer in an hour, in samples at 16 kHz.

    Example:
        >>> samples_an_hour(200.0) / SAMPLE_RATE
        0.72
    """
    return ppm * 1e-6 * 3600 * SAMPLE_RATE
