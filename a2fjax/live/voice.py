"""Whether a frame of live audio has a voice in it, from its level above the noise floor."""

from __future__ import annotations

import numpy as np

from a2fjax import rig

ABOVE_FLOOR_DB = 12.0
LOWEST_DB = -50.0
"""Level of full scale below which nothing is a voice."""

_HANG = round(0.2 * rig.FPS)  # Frames that a pause between syllables may last.
_RISE_DB = 6.0 / rig.FPS  # The floor rises by 6 dB a second: a steady hum becomes floor.


class VoiceActivity:
    """Judges frame by frame; remembers the floor.

    Speech has pauses, in which the floor falls back; a hum or music without pauses becomes the
    floor within seconds.

    Example:
        >>> voice = VoiceActivity()
        >>> voice(np.zeros(320)), voice(np.full(320, 0.1))
        (False, True)
    """

    def __init__(self) -> None:
        """Starts with silence as floor."""
        self._floor = LOWEST_DB - ABOVE_FLOOR_DB
        self._hang = 0

    def __call__(self, audio: np.ndarray) -> bool:
        """Returns whether samples [320] in [-1, 1] are of a voice."""
        power = float(np.mean(np.square(audio, dtype=np.float64)))
        level = 10.0 * np.log10(power + 1e-10)
        self._floor = min(level, self._floor + _RISE_DB)
        loud = level > max(self._floor + ABOVE_FLOOR_DB, LOWEST_DB)
        self._hang = _HANG if loud else max(0, self._hang - 1)
        return self._hang > 0
