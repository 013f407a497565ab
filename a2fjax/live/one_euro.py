"""The One-Euro filter: still curves are smoothed, fast ones pass.

Casiez, Roussel and Vogel, "1 € Filter", CHI 2012, doi.org/10.1145/2207676.2208639.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError


class OneEuro:
    """Smooths motion [72] frame by frame.

    Attributes:
      delay_seconds: delay of a curve that hardly moves, 1 / (2 pi cutoff); a fast one has less.
    """

    def __init__(self, cutoff: float = 4.0, beta: float = 1.0):
        """Starts at the first frame.

        Args:
          cutoff: of curves at rest, Hz, above 0.
          beta: Hz that the cutoff rises by for a speed of one weight (30 degrees) a second.

        Raises:
          InputError: a value out of range.
        """
        if not (0 < cutoff <= rig.FPS / 2 and 0 <= beta <= 100):
            raise InputError(
                f"smoothing: cutoff {cutoff:g} Hz and beta {beta:g}; expected a cutoff above 0 "
                f"and up to {rig.FPS // 2} and a beta of 0 to 100"
            )
        self._cutoff, self._beta = cutoff, beta
        self.delay_seconds = 1.0 / (2.0 * np.pi * cutoff)
        self.reset()

    def reset(self) -> None:
        """Forgets what was before."""
        self._last: np.ndarray | None = None
        self._speed = np.zeros(rig.NUM_CHANNELS)

    def __call__(self, motion: np.ndarray) -> np.ndarray:
        """Returns the smoothed frame [72]."""
        motion = np.asarray(motion, np.float64)
        if self._last is None:
            self._last = motion
            return motion.astype(np.float32)
        speed = (motion - self._last) / rig.SCALE * rig.FPS
        self._speed += _share(1.0) * (speed - self._speed)
        cutoff = self._cutoff + self._beta * np.abs(self._speed)
        self._last = self._last + _share(cutoff) * (motion - self._last)
        return self._last.astype(np.float32)


def _share(cutoff: float | np.ndarray) -> float | np.ndarray:
    """Returns the weight of a new value in a low pass of a cutoff in Hz."""
    turn = 2.0 * np.pi * cutoff / rig.FPS
    return turn / (turn + 1.0)
