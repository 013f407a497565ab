"""Describes how a recording sounds: the spectrum of its loud frames and how it varies.

NumPy only; cheap enough to compare every recording with those of a training set.
"""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.audio.level import TARGET

BANDS = 20
"""Bands from 100 Hz to 8 kHz, equally wide in mel (O'Shaughnessy 1987)."""

WIDTH = 2 * BANDS
GROUPS = (slice(0, BANDS), slice(BANDS, WIDTH))
"""Means and deviations of the bands' levels."""

_LOWEST_DB = -60.0  # Relative to speech; as quiet as silence, like the floor of the features.
_ACTIVE_DB = 25.0
_LEAST_FRAMES = 10


def band_levels(audio: np.ndarray) -> np.ndarray:
    """Returns the levels [frames, `BANDS`] float32 in dB of each whole 20 ms of 16 kHz audio [S].

    The levels of a long recording are those of its blocks, concatenated, when every block but the
    last is a multiple of 20 ms.
    """
    frames = audio[: len(audio) // HOP * HOP].reshape(-1, HOP)
    power = np.abs(np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * _WINDOW)) ** 2
    return np.asarray(10.0 * np.log10(power @ _FILTERS + 1e-16), np.float32)


def describe(levels: np.ndarray, speech_level: float) -> np.ndarray | None:
    """Returns the description [`WIDTH`] of a recording; None for less than 0.2 s of sound.

    Args:
      levels: [frames, `BANDS`] from `band_levels`.
      speech_level: RMS of the speech, see `level.speech_level`.

    Returns:
      Mean, then standard deviation, of each band over the frames less than 25 dB below the loud
      ones, in dB relative to speech.
    """
    levels = np.maximum(levels + 20.0 * np.log10(TARGET / speech_level), _LOWEST_DB)
    if not len(levels):
        return None
    loudness = levels.max(axis=1)
    active = levels[loudness > np.percentile(loudness, 95) - _ACTIVE_DB]
    if len(active) < _LEAST_FRAMES or loudness.max() <= _LOWEST_DB:
        return None
    return np.concatenate([active.mean(axis=0), active.std(axis=0)])


def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Returns a window of unit energy and the matrix [bins, `BANDS`] of the bands."""
    window = np.hanning(HOP)
    window /= np.sqrt((window**2).sum())
    hertz = np.fft.rfftfreq(HOP, 1 / SAMPLE_RATE)
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (100.0, SAMPLE_RATE / 2))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 1) / 2595.0) - 1.0)
    band = np.searchsorted(edges, hertz, side="right") - 1
    matrix = np.zeros((len(hertz), BANDS))
    for i in range(BANDS):
        inside = band == i
        # Narrow bands hold at least the bin nearest to their centre.
        if not inside.any():
            inside = np.arange(len(hertz)) == np.abs(hertz - edges[i : i + 2].mean()).argmin()
        matrix[inside, i] = 2.0 / HOP
    return window, matrix


_WINDOW, _FILTERS = _filters()
