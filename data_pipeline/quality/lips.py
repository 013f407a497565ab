"""Measures whether the lips of a take move with its audio."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_pipeline.timing import align

_CLOSE = 0.5  # correlation that mismatched audio rarely reaches
_DEAD = 1e-3


def measure_lips(
    envelope: np.ndarray, times: np.ndarray, aperture: np.ndarray, *, search: float = 0.08
) -> dict[str, Any]:
    """Measures whether the lips of a take move with its audio.

    Loudness and aperture, both band-passed from 0.5 to 8 Hz, are correlated on the estimated clock;
    the maximum within `search` counts, because lips lead the sound by some frames. The chance level
    is the same correlation with the audio rolled by more than half a second, that is, with other
    words of the same voice.

    Args:
      envelope: [N] dB at 200 values per second, value i at i / 200 s (`align.envelope`).
      times: [F] s of the motion on the audio's clock.
      aperture: [F] lip aperture (`rig.aperture`).
      search: search range in s around the estimated clock.

    Returns:
      correlation (None without two seconds of both, or with still lips); lag_s, the delay of the
      audio after the lips; chance, the 95th percentile of the chance level; z, standard deviations
      above its mean; belongs: True or False if that is clear, else None.
    """
    none: dict[str, Any] = {
        "correlation": None,
        "lag_s": None,
        "chance": None,
        "z": None,
        "belongs": None,
    }
    rate = align.ENVELOPE_RATE
    times, aperture = np.asarray(times, np.float64), np.asarray(aperture, np.float64)
    fine = np.isfinite(aperture)
    times, aperture = times[fine], aperture[fine]
    if len(times) < 10 or not (np.diff(times) > 0).all():
        return none
    first = max(0, int(np.ceil(times[0] * rate)))
    last = min(len(envelope) - 1, int(np.floor(times[-1] * rate)))
    if last - first < 2 * rate:
        return none
    grid = np.arange(first, last + 1)
    mouth = _band(np.interp(grid / rate, times, aperture))
    sound = _band(np.asarray(envelope, np.float64)[first : last + 1])
    norm = float(np.sqrt((mouth @ mouth) * (sound @ sound)))
    if norm <= 1e-9 * len(grid) or float(np.ptp(aperture)) <= _DEAD:
        return none
    # Roll circularly, so that every shift compares the same samples.
    every = np.fft.irfft(np.fft.rfft(sound) * np.conj(np.fft.rfft(mouth)), len(grid)) / norm
    reach = round(search * rate)
    near = np.concatenate([every[len(grid) - reach :], every[: reach + 1]])
    best = int(np.argmax(near))
    far = every[rate // 2 : len(grid) - rate // 2]
    # Search the same range for the chance level.
    tops = np.lib.stride_tricks.sliding_window_view(far, 2 * reach + 1).max(axis=1)
    z = (float(near[best]) - float(tops.mean())) / max(float(tops.std()), 1e-9)
    chance = float(np.percentile(tops, 95))
    belongs: bool | None = None
    # A list read at a steady pace correlates with itself at every item: use the peak's height.
    if near[best] > chance and (z > 2.5 or near[best] > _CLOSE):
        belongs = True
    elif last - first >= 5 * rate and z < 1.5 and near[best] < _CLOSE:
        belongs = False
    return {
        "correlation": round(float(near[best]), 4),
        "lag_s": round((best - reach) / rate, 4),
        "chance": round(chance, 4),
        "z": round(z, 2),
        "belongs": belongs,
    }


def _band(signal: np.ndarray) -> np.ndarray:
    """Returns a 200 Hz signal band-passed to about 0.5 to 8 Hz."""
    out = _average(signal, 13)
    return out - _average(out, min(401, (len(out) - 1) // 2 * 2 + 1))


def _average(signal: np.ndarray, width: int) -> np.ndarray:
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(signal, width // 2, "edge")
    return np.convolve(padded, window / window.sum(), "valid")
