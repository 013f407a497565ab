"""Measures how far the lips of a take are from its sound, along the take, on a given clock."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline.timing import lags
from data_pipeline.timing.align import ENVELOPE_RATE
from data_pipeline.timing.speech import CONFIDENT

LARGEST_LAG = 1.0
"""Lags of pieces are searched up to this, s."""

_SHORTEST = 7.0  # s
_CLEAR = 5.0  # standard deviations above chance that most pieces should have
_DEVIATIONS = 2.0  # of a lag's standard error, within which it may be chance


@dataclasses.dataclass(frozen=True)
class Lags:
    """The lags of a take's pieces that are clear enough to be measured.

    Attributes:
      seconds: [P] audio time minus the clock's, s.
      spread: [P] standard errors, s.
    """

    seconds: np.ndarray
    spread: np.ndarray

    @property
    def constant(self) -> float:
        """Lag of the take as a whole, s."""
        return float(np.median(self.seconds)) if len(self.seconds) else 0.0

    def error(self, centre: float) -> float:
        """Returns the largest lag relative to `centre` that is not chance, s.

        A piece counts only if one beside it agrees, as a clock that is wrong stays wrong.
        """
        if len(self.seconds) < 2:
            return 0.0
        away = self.seconds - centre
        away = np.sign(away) * np.maximum(np.abs(away) - _DEVIATIONS * self.spread, 0.0)
        if len(away) < 4:
            return float(np.abs(away).max())
        both = np.stack([away[:-1], away[1:]])
        agree = (both > 0).all(axis=0) | (both < 0).all(axis=0)
        return float(np.where(agree, np.abs(both).min(axis=0), 0.0).max())


def measure(pair: lags.LipSoundPair, seconds: float, drift: float) -> Lags:
    """Returns the lags of a take's pieces on the clock audio = capture * (1 + drift) + seconds.

    Pieces are as short as the correlation of lips and sound in this take allows.

    Args:
      pair: signals of the take.
      seconds: offset of the clock, s.
      drift: drift of the clock, s/s.
    """
    length = len(pair.lips) / ENVELOPE_RATE
    base, reach = round(seconds * ENVELOPE_RATE), round(LARGEST_LAG * ENVELOPE_RATE)
    pair = dataclasses.replace(pair, base=base, pivot=0.0)
    count = max(1, int(length / _SHORTEST))
    peaks = _peaks(pair, 1.0 + drift, count, reach)
    while count > 1 and np.median(peaks[:, 2]) < _CLEAR:
        count //= 2
        peaks = _peaks(pair, 1.0 + drift, count, reach)
    peaks = peaks[peaks[:, 3] >= CONFIDENT]
    return Lags(peaks[:, 0] + base / ENVELOPE_RATE - seconds, peaks[:, 1])


def _peaks(pair: lags.LipSoundPair, ratio: float, count: int, reach: int) -> np.ndarray:
    """Returns [count, 4]: lag, standard error, deviations above chance, confidence."""
    rows = []
    edges = np.linspace(0, len(pair.lips), count + 1).astype(np.int64)
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        piece = dataclasses.replace(pair, first=pair.first + int(start), lips=pair.lips[start:end])
        curve = lags.slant_stack(piece, ratio, np.zeros(1), reach)[0]
        chance = pair.chance * float(np.sqrt((end - start) / len(pair.lips)))
        lag, confidence, spread = lags.find_peak(curve, chance)
        rows.append((lag, spread, curve.max() / max(chance, 1e-9), confidence))
    return np.array(rows)
