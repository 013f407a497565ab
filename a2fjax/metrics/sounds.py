"""Finds hums and breaths in a recording; `nonspeech` says by which rules.

Frames of 40 ms are centred on sample 320 t; levels are relative to the speech of the take.
"""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.metrics import silence
from a2fjax.metrics.runs import find_runs

_FFT = 1280
_CHUNK = 2000


def find(audio: np.ndarray, frames: int, speech_level: float) -> dict[str, np.ndarray]:
    """Returns the frames [T] bool of "hum" and "breath"; see `nonspeech`.

    Args:
      audio: [samples] at 16 kHz; frame t lies at sample 320 * t.
      frames: number of frames T.
      speech_level: linear RMS level of the speech.
    """
    level = silence.frame_level(audio, frames)
    decibels = 20.0 * np.log10(np.maximum(level / speech_level, 1e-6))
    bands, low, high = _spectrum(audio, frames)
    change = np.full(frames, np.inf)
    if frames > 6:
        change[3:-3] = np.abs(bands[6:] - bands[:-6]).mean(1)
    hum = (decibels >= -25) & (low >= 0.95) & (change <= 3.0)
    floor = np.percentile(decibels, 5) if frames else 0.0
    breath = (decibels >= max(-45.0, floor + 8.0)) & (decibels <= -12) & (high <= 0.7)
    wanted = np.flatnonzero(hum | breath)
    periodic = np.zeros(frames)
    periodic[wanted] = _periodicity(audio, wanted)
    # The edges of a hum cannot be steady 60 ms before and after.
    hum = _grown(_long(hum & (periodic >= 0.7), 18 - 6, frames), 3)
    breath = _long(breath & (periodic < 0.4), 8, 75)
    quiet = np.concatenate([[True], decibels < silence.THRESHOLD_DB, [True]])
    for start, stop in find_runs(breath):
        before, after = quiet[max(start - 2, 0) : start + 1], quiet[stop + 1 : stop + 4]
        if not (before.any() or after.any()):
            breath[start:stop] = False
    return {"hum": hum, "breath": breath & ~hum}


def _frames(audio: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns the Hann-windowed 40 ms [N, 640] around frames `at` [N]."""
    padded = np.pad(np.asarray(audio, np.float64), (HOP, 2 * HOP + HOP * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * HOP)[::HOP]
    return windows[at] * np.hanning(2 * HOP)


def _spectrum(audio: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns band levels [T, 16] in dB, and shares of power [T] below 1 kHz and above 4 kHz."""
    hertz = np.fft.rfftfreq(2 * HOP, 1.0 / SAMPLE_RATE)
    edges = np.searchsorted(hertz, np.geomspace(100.0, 8000.0, 17))
    bands = np.zeros((frames, 16))
    low, high = np.zeros(frames), np.zeros(frames)
    for start in range(0, frames, _CHUNK):
        at = np.arange(start, min(start + _CHUNK, frames))
        power = np.abs(np.fft.rfft(_frames(audio, at), axis=1)) ** 2
        total = power.sum(1) + 1e-12
        low[at] = power[:, hertz < 1000].sum(1) / total
        high[at] = power[:, hertz > 4000].sum(1) / total
        sums = np.add.reduceat(power, edges[:-1], axis=1)
        # Bands far below the loudest are noise of the recording.
        levels = 10 * np.log10(sums + 1e-12)
        bands[at] = np.maximum(levels, levels.max(1, keepdims=True) - 30.0)
    return bands, low, high


def _periodicity(audio: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns the largest normalised autocorrelation [N] at lags of 2.5 to 14 ms."""
    lags = slice(int(0.0025 * SAMPLE_RATE), int(0.014 * SAMPLE_RATE))
    window = np.hanning(2 * HOP)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, _FFT)) ** 2)[lags]
    own /= (window**2).sum()
    out = np.zeros(len(at))
    for start in range(0, len(at), _CHUNK):
        part = slice(start, start + _CHUNK)
        power = np.abs(np.fft.rfft(_frames(audio, at[part]), _FFT, axis=1)) ** 2
        correlation = np.fft.irfft(power, axis=1)
        out[part] = (correlation[:, lags] / (own * (correlation[:, :1] + 1e-12))).max(1)
    return out


def _long(mask: np.ndarray, least: int, most: int) -> np.ndarray:
    """Returns the runs of a mask [T] with `least` to `most` frames."""
    out = np.zeros_like(mask)
    for start, stop in find_runs(mask):
        out[start:stop] = least <= stop - start <= most
    return out


def _grown(mask: np.ndarray, frames: int) -> np.ndarray:
    out = mask.copy()
    for start, stop in find_runs(mask):
        out[max(start - frames, 0) : stop + frames] = True
    return out
