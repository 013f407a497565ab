"""Finds the true bandwidth of a recording, and mains hum in it, from its spectra."""

from __future__ import annotations

from typing import Any

import numpy as np

RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000)
"""Sample rates in use; a band limit is explained by the nearest."""

_NOTHING_DB = 45.0  # below the loudest band: residue of a resampler above the band limit
_CLIFF_DB = 20.0
_EDGE_DB = 10.0
_HUM_SECONDS = 2.0


def band_limit(power: np.ndarray, spacing: float, step: float) -> dict[str, Any]:
    """Finds the highest frequency with energy in a recording.

    There are two criteria: the spectrum drops by 20 dB within a tenth of the frequency and stays
    low above (a resampler, a codec, a telephone); or it falls below the quantisation noise. Only
    the first is certain, because soft speech may have no high frequencies.

    Args:
      power: [bins] mean power of each bin_index, from 0 Hz to half the rate.
      spacing: spacing of the bins, Hz.
      step: quantisation step, 0 if unknown.

    Returns:
      band_hz (None for silence), band_sure, upsampled (a cliff below 85 % of half the rate) and
      true_rate, the one of `RATES` that best explains the cliff (the file's own if not upsampled).
    """
    half = (len(power) - 1) * spacing
    rate = round(2 * half)
    width = max(1, round(120 / spacing))
    smooth = np.convolve(power, np.ones(width) / width, "same")
    peak = float(smooth.max(initial=0.0))
    floor = max(4.0 * step**2 / 12 / (len(power) - 1), 1e-9 * peak, 1e-16)
    if peak <= 2.0 * floor:
        return {"band_hz": None, "band_sure": False, "upsampled": False, "true_rate": rate}
    band = float(np.flatnonzero(smooth > 2.0 * floor)[-1] * spacing)
    level = 10 * np.log10(np.maximum(smooth, floor / 10))
    # The largest power above each bin_index.
    above = np.maximum.accumulate(level[::-1])[::-1]
    lowest, highest = round(1000 / spacing), int(0.93 * (len(power) - 1)) - 1
    # Resample to steps of 0.4 %: the drop is searched in windows of a tenth of the frequency.
    steps = int(np.log(max(highest, 1) / max(lowest, 1)) / 0.004) + 2 if highest >= lowest else 0
    bins = np.unique(np.round(np.geomspace(max(lowest, 1), max(highest, 1), steps)).astype(int))
    sure = False
    if len(bins):
        # Ignore the last bins above: some resamplers leave an image there.
        top = np.minimum(np.round(1.08 * bins).astype(int), len(power) - 2)
        below = np.array([np.median(level[int(0.87 * b) : int(0.97 * b) + 1]) for b in bins])
        drop = below - above[top]
        # Some voices also fall by that much, but only down to breath noise.
        drop[above[top] > level.max() - _NOTHING_DB] = 0.0
        best = int(np.argmax(drop))
        if drop[best] >= _CLIFF_DB:
            # Use the start of the drop: gentle filters pass images of the next half kilohertz.
            near = np.arange(int(0.85 * bins[best]), min(int(1.1 * bins[best]) + 1, len(power)))
            band = float(near[level[near] >= below[best] - _EDGE_DB][-1] * spacing)
            sure = True
    upsampled = sure and band < 0.85 * half
    # Use the nearest: filters start to fall up to a tenth below half the rate and end as far above.
    true = min(RATES, key=lambda r: abs(np.log(r / 2 / max(band, 1.0)))) if upsampled else rate
    return {
        "band_hz": round(min(band, half), 1),
        "band_sure": sure or band >= 0.85 * half,
        "upsampled": upsampled,
        "true_rate": min(true, rate),
    }


def hum(lows: np.ndarray, spacing: float, seconds: float) -> dict[str, Any]:
    """Finds mains hum: steady tones at multiples of 50 or 60 Hz, in the quieter windows.

    Args:
      lows: [windows, bins] power of the bins up to 420 Hz.
      spacing: spacing of the bins, Hz.
      seconds: time between two windows, times two.

    Returns:
      hum_hz (50, 60 or None) and hum_db above the surroundings.
    """
    none: dict[str, Any] = {"hum_hz": None, "hum_db": None}
    if len(lows) < _HUM_SECONDS / seconds:  # a held vowel looks the same
        return none
    # Speech comes and goes, hum stays: the lower quartile over time keeps only the hum.
    level = 10 * np.log10(np.percentile(lows, 25, axis=0) + 1e-12)
    best, facts = 0.0, none
    reach = max(3, round(18 / spacing))
    for mains in (50.0, 60.0):
        heights = []
        for n in range(1, 7):
            bin_index = round(n * mains / spacing)
            if bin_index + reach >= len(level):
                break
            around = np.concatenate(
                [
                    level[max(1, bin_index - reach) : bin_index - 2],
                    level[bin_index + 3 : bin_index + reach],
                ]
            )
            heights.append(float(level[bin_index - 1 : bin_index + 2].max() - np.median(around)))
        clear = [h for h in heights if h >= 12.0]
        if len(clear) >= 2 and max(heights[:2]) >= 12.0 and sum(clear) > best:
            best = sum(clear)
            facts = {"hum_hz": mains, "hum_db": round(max(clear), 1)}
    return facts
