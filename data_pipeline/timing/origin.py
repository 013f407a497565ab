"""Finds captures whose clock starts elsewhere than at the sound's first sample."""

from __future__ import annotations

import numpy as np

_LATE = 1.0  # s; a face may be found only after the sound has begun


def count_from_first_row(times: np.ndarray, seconds: float) -> tuple[np.ndarray, str]:
    """Returns a capture's times, from 0 if they are not on the sound's clock, and a note.

    Clocks that count from a device's start, from 1970, or frame numbers from a scene's start, end
    after the sound by about as much as they begin late.

    Args:
      times: [F] s, increasing.
      seconds: length of the sound.

    Returns:
      (times [F], note); the note is empty if the times are unchanged.

    Example:
        >>> count_from_first_row(np.array([10873.4, 10877.4]), 4.0)[0].tolist()
        [0.0, 4.0]
        >>> count_from_first_row(np.array([2.0, 4.1]), 4.0)[0].tolist()
        [2.0, 4.1]
    """
    first, beyond = float(times[0]), float(times[-1]) - seconds
    if first <= _LATE or beyond <= first / 2:
        return times, ""
    note = (
        f"times count from the first row's, {first:.3f} s: they end {beyond:.3f} s after the sound"
    )
    return times - first, note
