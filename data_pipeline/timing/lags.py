"""Estimates the lag of audio behind lips and its drift, from correlations summed along lines.

The derivatives of lip aperture and loudness are cross-correlated in windows of two seconds, and the
correlations are summed along every line lag = offset + drift * time (a slant stack, Schultz and
Claerbout 1978). This uses a whole take, or all takes of a person, at once, whereas fitting a line
to the peak of each window would lose the evidence of weak windows. The sum S is that of a matched
filter, so S^2 / (2 sigma^2) is a log-likelihood, with sigma measured on unrelated signals.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipeline.timing import align
from data_pipeline.timing.align import ENVELOPE_RATE

_WINDOW = 2 * ENVELOPE_RATE
_FLOOR_DB = 40.0
_UNRELATED = 0.5  # s; lips and voice further apart are unrelated
_LONGEST_LAG = 12.0  # s that drift may add over a take
_ANTICIPATION = 0.1  # s; 0.06 in the demo corpus


@dataclasses.dataclass(frozen=True)
class LipSoundPair:
    """Lip and audio signals of a take, ready to be correlated.

    Attributes:
      index: index of the take.
      first: index of the lips' first value on the 200 Hz grid of the capture's clock.
      lips: [n] speed of the aperture, unit variance.
      sound: [N] speed of the loudness, unit variance, value i at i / 200 s of audio.
      base: centre of the offset search in values of the 200 Hz grid.
      pivot: capture time that offsets refer to, s.
      chance: standard deviation of the sum for the lips with unrelated audio.
      frame: usual time between frames, s.
    """

    index: int
    first: int
    lips: np.ndarray
    sound: np.ndarray
    base: int
    pivot: float
    chance: float
    frame: float

    @property
    def middle(self) -> float:
        """Capture time half way through, s."""
        return (self.first + len(self.lips) / 2) / ENVELOPE_RATE


@dataclasses.dataclass(frozen=True)
class LineFit:
    """A line through the correlations of some takes: lag = base + seconds + drift * (t - pivot).

    Attributes:
      seconds, drift: parameters of the line.
      steady: seconds of the best line without drift.
      likelihood, level: log-likelihoods above chance of the lines with and without drift; the first
        is corrected for the number of drifts tried.
      drift_spread: standard error, s/s.
    """

    seconds: float
    drift: float
    steady: float
    likelihood: float
    level: float
    drift_spread: float


def make_pair(
    index: int,
    envelope: np.ndarray,
    times: np.ndarray,
    aperture: np.ndarray,
    stated_offset: float | None,
) -> LipSoundPair | None:
    """Returns the signals to correlate, or None if lips or audio carry no information.

    Args:
      index: index of the take.
      envelope: [N] loudness in dB at 200 Hz.
      times: [F] s on the capture's clock.
      aperture: [F], NaN where unknown.
      stated_offset: centre of the offset search, s.
    """
    times = np.asarray(times, np.float64)
    aperture = np.asarray(aperture, np.float64)
    level = np.asarray(envelope, np.float64)
    valid = np.isfinite(aperture)
    if valid.sum() < 30 or len(level) < 2 * ENVELOPE_RATE:
        return None
    times, aperture = times[valid], aperture[valid]
    first = int(np.ceil(times[0] * ENVELOPE_RATE))
    grid = np.arange(first, int(np.floor(times[-1] * ENVELOPE_RATE)) + 1) / ENVELOPE_RATE
    level = np.maximum(level, np.percentile(level, 95) - _FLOOR_DB)
    if len(grid) < 2 or np.ptp(aperture) <= 1e-6 or np.ptp(level) <= 1e-6:
        return None
    lips = _speed(align.resample(times, aperture[:, None], grid)[:, 0])
    lips[~align.covered_by_capture(times, grid)] = 0.0
    lips, sound = _even(lips), _even(_speed(level))
    base = 0 if stated_offset is None else round(stated_offset * ENVELOPE_RATE)
    if min(first + base + len(lips), len(sound)) - max(first + base, 0) < ENVELOPE_RATE:
        return None  # the two were not recorded at the same time
    chance = _chance(lips, sound[max(first + base, 0) :]) * len(lips)
    gaps = np.diff(times)
    # Times rounded to milliseconds have a wrong median, but their mean is right.
    frame = float(gaps[gaps < 1.5 * np.median(gaps)].mean())
    return LipSoundPair(index, first, lips, sound, base, 0.0, chance, frame)


def _speed(signal: np.ndarray) -> np.ndarray:
    """Returns the derivative of a 200 Hz signal through a window of 60 ms."""
    window = np.hanning(15)[1:-1]
    slope = np.gradient(np.convolve(np.pad(signal, 6, "edge"), window / window.sum(), "valid"))
    return slope - slope.mean()


def _even(signal: np.ndarray) -> np.ndarray:
    """Returns a signal of unit variance in which a few large values do not dominate."""
    signal = np.tanh(0.5 * signal / max(float(signal.std()), 1e-12))
    signal = signal - signal.mean()
    return signal / max(float(signal.std()), 1e-12)


def _chance(lips: np.ndarray, sound: np.ndarray) -> float:
    """Returns the standard deviation of the correlation of unrelated signals.

    These are the same signals rolled against each other by more than `_UNRELATED`.
    """
    n = min(len(lips), len(sound))
    n -= n % 256 if n > 8192 else 0  # the FFT takes ten times as long for a prime length
    apart = round(_UNRELATED * ENVELOPE_RATE)
    if n < 2 * apart + ENVELOPE_RATE:
        return 1.0
    a, b = lips[:n] - lips[:n].mean(), sound[:n] - sound[:n].mean()
    norm = np.sqrt((a @ a) * (b @ b))
    if norm <= 0:
        return 1.0
    rolled = np.fft.irfft(np.fft.rfft(b) * np.conj(np.fft.rfft(a)), n) / norm
    return float(rolled[apart : n - apart].std())


def slant_stack(pair: LipSoundPair, ratio: float, drifts: np.ndarray, reach: int) -> np.ndarray:
    """Returns [D, 2 * reach + 1]: the sum of lips times audio along each line.

    Args:
      pair: signals of the take.
      ratio: initial stretch of the capture's clock.
      drifts: [D] drifts beyond that, s/s.
      reach: largest offset in values of the 200 Hz grid.
    """
    first, lips = pair.first, pair.lips
    if ratio != 1.0:
        start = first * ratio
        first = int(np.ceil(start))
        inside = np.arange(first, int((pair.first + len(lips) - 1) * ratio) + 1)
        lips = np.interp(inside / ratio - pair.first, np.arange(len(lips)), lips)
    count = -(-len(lips) // _WINDOW)
    lips = np.pad(lips, (0, count * _WINDOW - len(lips))).reshape(count, _WINDOW)
    begin = first + _WINDOW * np.arange(count)
    centre = begin + _WINDOW / 2 - pair.pivot * ratio * ENVELOPE_RATE
    # The clock is stretched about the pivot, not about time 0.
    tied = pair.base - (ratio - 1.0) * pair.pivot * ENVELOPE_RATE
    shift = drifts[:, None] * centre + tied  # [D, W]
    low = np.floor(shift.min(axis=0)).astype(np.int64) - reach
    span = int((np.floor(shift.max(axis=0)).astype(np.int64) + reach + 2 - low).max())
    size = 1 << int(np.ceil(np.log2(2 * _WINDOW + span)))
    out = np.zeros((len(drifts), 2 * reach + 1))
    block = max(1, (1 << 20) // size)
    for w in range(0, count, block):
        part = slice(w, min(w + block, count))
        index = (begin + low)[part, None] + np.arange(_WINDOW + span)
        heard = (index >= 0) & (index < len(pair.sound))
        sound = np.where(heard, pair.sound[np.clip(index, 0, len(pair.sound) - 1)], 0.0)
        spectrum = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(lips[part], size))
        rows = np.fft.irfft(spectrum, size)[:, : span + 1]
        for n, line in enumerate(shift[:, part]):
            position = line - low[part] - reach
            sample = np.floor(position).astype(np.int64)
            piece = np.take_along_axis(rows, sample[:, None] + np.arange(2 * reach + 2), axis=1)
            rest = position - sample
            out[n] += (1.0 - rest) @ piece[:, :-1] + rest @ piece[:, 1:]
    return out


def fit_line(pairs: list[LipSoundPair], ratio: float, most: float, reach: int) -> LineFit:
    """Returns the best line around a ratio of the clocks, and the best without further drift."""
    ends = [(e / ENVELOPE_RATE - p.pivot) for p in pairs for e in (p.first, p.first + len(p.lips))]
    longest = max(abs(e) for e in ends)
    longest = max(longest * ratio, 1.0)
    most = min(most, max(_LONGEST_LAG / longest, 0.002))
    step = 0.03 / longest
    half = max(1, int(np.ceil(most / step)))
    drifts = np.linspace(-most, most, 2 * half + 1)
    stacked = sum(slant_stack(p, ratio, drifts, reach) for p in pairs)
    assert not isinstance(stacked, int)
    noise = float(np.sqrt(sum(p.chance**2 for p in pairs) * ratio))
    best = stacked.max(axis=1)
    n = int(np.argmax(best))
    fine = np.linspace(drifts[max(n - 1, 0)], drifts[min(n + 1, 2 * half)], 17)
    lines = sum(slant_stack(p, ratio, fine, reach) for p in pairs)
    assert not isinstance(lines, int)
    tops = lines.max(axis=1)
    m = int(np.argmax(tops))
    drift, spread = float(fine[m]), 0.0
    # Width of the peak from the likelihood's curvature over three steps of the fine grid.
    low, high = max(m - 4, 0), min(m + 4, 16)
    bend = np.polyfit(fine[low : high + 1] - fine[m], tops[low : high + 1], 2)[0]
    if bend < 0 and tops[m] > 0:
        spread = noise / float(np.sqrt(tops[m] * -2.0 * bend))
    tries = np.log(max(1.0, 2.0 * most * longest / 0.06))
    steady = stacked[half]
    return LineFit(
        seconds=find_peak(lines[m], noise)[0],
        drift=ratio * (1.0 + drift) - 1.0,
        steady=find_peak(steady, noise)[0],
        likelihood=log_likelihood(float(tops[m]), noise) - float(tries),
        level=log_likelihood(float(steady.max()), noise),
        drift_spread=spread * ratio,
    )


def spurious_drift(pairs: list[LipSoundPair]) -> float:
    """Returns the drift that the beginnings and ends of takes can cause spuriously, s/s.

    Lips open before the first sound and close after the last, which changes the slope of a line
    through a take of T seconds in proportion to 1 / T^2.
    """
    size = np.array([len(p.lips) for p in pairs]) / ENVELOPE_RATE
    middle = np.array([p.middle - p.pivot for p in pairs])
    centre = (size @ middle) / size.sum()
    variance = size @ (size**2 / 12.0 + (middle - centre) ** 2) / size.sum()
    return _ANTICIPATION / float(12.0 * variance)


def lengths_differ(pair: LipSoundPair, ratio: float) -> bool:
    """Returns whether capture and audio differ in length, as they do with a wrong rate."""
    sound_length = len(pair.sound) / ENVELOPE_RATE
    return abs(len(pair.lips) / ENVELOPE_RATE * ratio - sound_length) > 0.1 + 0.01 * sound_length


def log_likelihood(top: float, noise: float) -> float:
    """Returns the log-likelihood of a sum relative to chance."""
    return 0.5 * (max(top, 0.0) / max(noise, 1e-9)) ** 2


def likelihood_to_deviations(logarithm: float) -> float:
    """Converts a log-likelihood to standard deviations above chance."""
    return float(np.sqrt(2.0 * max(logarithm, 0.0)))


def deviations_to_confidence(deviations: float) -> float:
    """Returns 0 up to two standard deviations (the best of many reaches that), 1 from six."""
    return float(np.clip((deviations - 2.0) / 4.0, 0.0, 1.0))


def find_peak(curve: np.ndarray, noise: float) -> tuple[float, float, float]:
    """Returns the lag of a curve's maximum (s), its confidence and its standard error (s)."""
    middle = (len(curve) - 1) // 2
    top = int(np.argmax(curve))
    if top in (0, len(curve) - 1):
        return (top - middle) / ENVELOPE_RATE, 0.0, 0.0  # still rising at the end of the search
    a, b, c = curve[top - 1 : top + 2]
    bend = a - 2.0 * b + c
    seconds = top - middle + (0.5 * (a - c) / bend if bend < 0 else 0.0)
    width = noise / np.sqrt(b * -bend) if bend < 0 < b else 0.0
    confidence = deviations_to_confidence(max(b, 0.0) / max(noise, 1e-9))
    return float(seconds / ENVELOPE_RATE), confidence, float(width / ENVELOPE_RATE)
