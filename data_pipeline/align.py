"""One clock for sound and picture: the constant offset of an actor, and resampling by timestamps.

A capture's clock differs from the recorder's by a constant: audio time = capture time + offset.
It is read from a slate (lips that pop open at a click) where one was shot, otherwise from how lip
aperture follows the loudness of speech, pooled over the actor's takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from a2fjax.audio import SAMPLE_RATE

ENVELOPE_RATE = 200
"""Loudness and aperture are compared on a 5 ms grid."""

_UNRELATED = 0.5  # s; further apart, lips and voice say nothing about each other
_NTSC = (24_000 / 1001, 30_000 / 1001, 60_000 / 1001, 120_000 / 1001)


@dataclasses.dataclass(frozen=True)
class Offset:
    """How the two clocks of an actor stand.

    Attributes:
      seconds: audio time minus capture time.
      method: "given", "slate", "speech" or "none" (nothing to go by; 0 is assumed).
      confidence: in [0, 1]; 1 for a given offset. Of a slate: share of clicks that fit, times how
        well they agree. Of speech: how far the correlation's peak is above chance.
      spread: standard deviation over clicks or takes, s; 0 with a single one.
    """

    seconds: float
    method: str
    confidence: float
    spread: float = 0.0


def exact_rate(fps: float) -> float:
    """Returns the true rate that a rounded one means: 23.976, 29.97, 59.94 and 119.88 are NTSC."""
    for rate in _NTSC:
        if abs(fps - rate) < 0.005:
            return rate
    return float(fps)


def resample(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns values [F, C], taken at real-valued times [F], at other times [T, C].

    Evenly spaced frames (to 5 %) go through a windowed sinc (Lanczos, 4 lobes, weights normalised
    to 1) whose cutoff is half the lower of the two rates, so nothing aliases on the way down.
    Uneven ones go through a monotone cubic (PCHIP; Fritsch and Carlson 1980), after a moving
    average where they are denser than the target. Outside the frames the ends are held.

    Args:
      times: [F] seconds, increasing.
      values: [F, C].
      at: [T] seconds, increasing.

    Raises:
      ValueError: times do not increase.
    """
    times = np.asarray(times, np.float64)
    values = np.asarray(values, np.float64)
    at = np.asarray(at, np.float64)
    if len(times) == 1:
        return np.repeat(values, len(at), axis=0)
    gaps = np.diff(times)
    if not (gaps > 0).all():
        raise ValueError("capture times do not increase")
    spacing = (times[-1] - times[0]) / (len(times) - 1)
    target = float(np.median(np.diff(at))) if len(at) > 1 else spacing
    at = np.clip(at, times[0], times[-1])
    if np.abs(times - times[0] - spacing * np.arange(len(times))).max() > 0.05 * spacing:
        return _resample_uneven(times, values, at, spacing, target)
    lobes = 4
    stretch = max(1.0, target / spacing)
    reach = int(np.ceil(lobes * stretch))
    position = (at - times[0]) / spacing
    near = np.floor(position).astype(np.int64)
    taps = near[:, None] + np.arange(1 - reach, reach + 1)
    x = (position[:, None] - taps) / stretch
    weights = np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    taps = np.clip(taps, 0, len(times) - 1)  # holds the ends: the first and last frame repeat
    out = np.zeros((len(at), values.shape[1]))
    for tap, weight in zip(taps.T, weights.T, strict=True):
        out += weight[:, None] * values[tap]
    return out


def _resample_uneven(times, values, at, spacing, target):
    from scipy.interpolate import PchipInterpolator

    if target > 1.2 * spacing:
        # A moving average over one target frame: the integral's difference, exact for any spacing.
        steps = np.diff(times)[:, None] * (values[1:] + values[:-1]) / 2.0
        integral = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(steps, axis=0)])
        lo = np.clip(times - target / 2, times[0], times[-1])
        hi = np.clip(times + target / 2, times[0], times[-1])
        area = PchipInterpolator(times, integral)
        values = (area(hi) - area(lo)) / (hi - lo)[:, None]
    return PchipInterpolator(times, values)(at)


def covered(times: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns which times [T] lie inside a capture [F], to half a frame at its ends and gaps.

    A time in a hole of the capture (dropped frames) is not covered.
    """
    times = np.asarray(times, np.float64)
    gaps = np.diff(times)
    half = 0.5 * float(np.median(gaps)) if len(gaps) else 0.02
    right = np.clip(np.searchsorted(times, at), 0, len(times) - 1)
    left = np.maximum(right - 1, 0)
    inside = (at >= times[0] - half) & (at <= times[-1] + half)
    hole = (times[right] - times[left]) > 6.0 * half
    return inside & ~hole


def envelope(audio: np.ndarray) -> np.ndarray:
    """Returns the loudness of 16 kHz audio [S] in dB at 200 values a second, value i at i / 200 s.

    RMS of 20 ms Hann windows centred on each value, floored 50 dB below the loud parts.
    """
    hop, width = SAMPLE_RATE // ENVELOPE_RATE, 320
    # High-pass by differencing: hum and rumble say nothing about the lips.
    power = np.diff(np.asarray(audio, np.float64), prepend=0.0) ** 2
    window = np.hanning(width + 1)[:-1]
    count = len(power) // hop + 1
    padded = np.pad(power, (width // 2, width // 2 + hop))
    frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::hop][:count]
    # In blocks: overlapping windows are copied to be multiplied, four times the recording at once.
    energy = np.concatenate([frames[i : i + 8192] @ window for i in range(0, count, 8192)])
    level = 10.0 * np.log10(energy / window.sum() + 1e-12)
    return np.maximum(level, np.percentile(level, 95) - 50.0)


def click_times(audio: np.ndarray) -> np.ndarray:
    """Returns the onsets (s) of isolated clicks in 16 kHz audio, to about 1 ms.

    A click is where the 1 ms level rises to a fifth of the loudest after at least 0.1 s below it.
    """
    level = np.abs(np.diff(np.asarray(audio, np.float64), prepend=0.0))
    level = np.convolve(level, np.ones(16) / 16, "same")
    peak = level.max(initial=0.0)
    if peak <= 0:
        return np.zeros(0)
    loud = np.flatnonzero(level > 0.2 * peak)
    first = np.concatenate([[True], np.diff(loud) > 0.1 * SAMPLE_RATE])
    out = []
    for i in loud[first]:
        # The averaged level starts to rise half its window early; go by the samples themselves.
        around = np.abs(audio[max(0, i - 32) : i + 64])
        out.append((max(0, i - 32) + int(np.argmax(around > 0.25 * around.max()))) / SAMPLE_RATE)
    return np.array(out)


def openings(times: np.ndarray, aperture: np.ndarray) -> np.ndarray:
    """Returns [N, 3]: when closed lips snap open (s), and the frames (s) that it lies between.

    The instant is where the aperture passes half way between rest and fully open, by a straight
    line between the two frames around it; a real opening is over in 0.1 s.

    Args:
      times: [F] seconds.
      aperture: [F] any unit.
    """
    low, high = np.percentile(aperture, [20, 99.5])
    if high - low <= 1e-6:
        return np.zeros((0, 3))
    found: list[tuple[float, float, float]] = []
    for i in np.flatnonzero((aperture[1:] > low) & (aperture[:-1] <= (low + high) / 2)) + 1:
        # Each opening has its own height.
        near = (times >= times[i]) & (times <= times[i] + 0.1)
        rest = aperture[(times >= times[i] - 0.2) & (times < times[i] - 0.03)]
        if not len(rest):
            continue
        shut, top = float(np.median(rest)), float(aperture[near].max())
        half = (shut + top) / 2
        steep = top - shut > 0.5 * (high - low)
        if not steep or not aperture[i - 1] < half <= aperture[i]:
            continue
        part = (half - aperture[i - 1]) / (aperture[i] - aperture[i - 1])
        at = times[i - 1] + part * (times[i] - times[i - 1])
        if not found or at - found[-1][0] > 0.1:
            found.append((at, times[i - 1], times[i]))
    return np.array(found).reshape(-1, 3)


def offset_from_slate(
    audio: np.ndarray, times: np.ndarray, aperture: np.ndarray, *, limit: float = 0.25
) -> Offset | None:
    """Returns the offset from clicks and lip pops, or None when fewer than two agree.

    Each click and opening bound the offset to one frame of the capture; the answer is the mean of
    those that agree, kept inside what their bounds have in common, which is finer than a frame.

    Args:
      audio: [S] 16 kHz, of the slate.
      times: [F] seconds on the capture's clock.
      aperture: [F] of the lips.
      limit: largest offset, s.
    """
    clicks, opened = click_times(audio), openings(times, aperture)
    if not len(clicks) or not len(opened):
        return None
    frame = float(np.median(np.diff(times)))
    shifts = (clicks[:, None] - opened[None, :, 0]).ravel()
    shifts = shifts[np.abs(shifts) <= limit]
    if not len(shifts):
        return None
    agree = np.abs(shifts[:, None] - shifts[None, :]) <= 0.6 * frame
    centre = shifts[int(np.argmax(agree.sum(axis=1)))]
    pairs = [
        (c - o[0], c - o[2], c - o[1])
        for o in opened
        for c in clicks
        if abs(c - o[0] - centre) <= 0.6 * frame
    ]
    if len(pairs) < 2:
        return None
    middle, lo, hi = np.array(pairs).T
    seconds = float(middle.mean())
    if lo.max() <= hi.min():
        seconds = float(np.clip(seconds, lo.max(), hi.min()))
    spread = float(middle.std())
    share = len(pairs) / max(len(clicks), len(opened))
    return Offset(seconds, "slate", min(1.0, share) * float(np.exp(-spread / frame)), spread)


def offset_from_speech(
    takes: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    limit: float = 0.25,
    lead: float = 0.0,
) -> Offset | None:
    """Returns the offset at which aperture best follows loudness, or None with nothing to go by.

    The derivatives of loudness (dB) and of aperture are cross-correlated, summed over takes, and
    the peak is found by a parabola through its neighbours. Chance is what the same signals give
    when rolled against each other by more than `_UNRELATED` s: confidence is 0 for a peak of two of
    its standard deviations (the best of many shifts is that high by chance) and 1 from six on.

    Args:
      takes: of each (envelope [N] at 200 Hz, capture times [F] in s, aperture [F]).
      limit: largest offset, s.
      lead: s by which lips lead loudness in truth; added to what is found.
    """
    shifts = np.arange(-round(limit * ENVELOPE_RATE), round(limit * ENVELOPE_RATE) + 1)
    curves, sizes, chance = [], [], []
    for level, times, aperture in takes:
        if len(times) < 30 or float(np.ptp(aperture)) <= 1e-6 or float(np.ptp(level)) <= 0:
            continue
        grid = np.arange(np.ceil(times[0] * 200), np.floor(times[-1] * 200) + 1) / ENVELOPE_RATE
        lips = _speed(resample(times, aperture[:, None], grid)[:, 0])
        sound = _speed(level)
        start = round(grid[0] * ENVELOPE_RATE)
        curves.append(_correlations(lips, sound, start + shifts))
        sizes.append(len(grid))
        chance.append(_chance(lips, sound[max(start, 0) :]))
    if not curves:
        return None
    weight = np.array(sizes) / np.sum(sizes)
    each = np.array(curves)
    pooled = weight @ each
    seconds = _peak(pooled, shifts) / ENVELOPE_RATE
    top = int(np.argmax(pooled))
    noise = float(np.sqrt(((weight * np.array(chance)) ** 2).sum()))
    confidence = float(np.clip((pooled[top] / max(noise, 1e-9) - 2.0) / 4.0, 0.0, 1.0))
    if top in (0, len(shifts) - 1):
        confidence = 0.0  # still rising where the search ends: no peak
    spread = 0.0
    if len(each) > 1:
        # Jackknife over takes: each left out once.
        left = [
            _peak((weight @ each - w * e) / (1 - w), shifts) / ENVELOPE_RATE
            for w, e in zip(weight, each, strict=True)
        ]
        spread = float(np.sqrt((len(left) - 1) * np.var(left)))
    return Offset(seconds + lead, "speech", confidence, spread)


def _speed(signal: np.ndarray) -> np.ndarray:
    """Returns the derivative of a 200 Hz signal through a 60 ms Gaussian-like window."""
    window = np.hanning(15)[1:-1]
    slope = np.gradient(np.convolve(np.pad(signal, 6, "edge"), window / window.sum(), "valid"))
    return slope - slope.mean()


def _correlations(lips: np.ndarray, sound: np.ndarray, starts: np.ndarray) -> np.ndarray:
    out = np.zeros(len(starts))
    for n, start in enumerate(starts):
        lo, hi = max(0, -start), min(len(lips), len(sound) - start)
        if hi - lo > ENVELOPE_RATE // 2:
            a, b = lips[lo:hi], sound[lo + start : hi + start]
            norm = np.sqrt((a @ a) * (b @ b))
            out[n] = (a @ b) / norm if norm > 0 else 0.0
    return out


def _chance(lips: np.ndarray, sound: np.ndarray) -> float:
    """Returns the standard deviation of the correlation of signals that do not belong together."""
    n = min(len(lips), len(sound))
    a, b = lips[:n] - lips[:n].mean(), sound[:n] - sound[:n].mean()
    norm = np.sqrt((a @ a) * (b @ b))
    if norm <= 0:
        return 1.0
    rolled = np.fft.irfft(np.fft.rfft(b) * np.conj(np.fft.rfft(a)), n) / norm
    far = rolled[round(_UNRELATED * ENVELOPE_RATE) : n - round(_UNRELATED * ENVELOPE_RATE)]
    return float(far.std()) if len(far) >= ENVELOPE_RATE else 1.0


def _peak(curve: np.ndarray, shifts: np.ndarray) -> float:
    i = int(np.argmax(curve))
    if 0 < i < len(curve) - 1:
        a, b, c = curve[i - 1 : i + 2]
        bend = a - 2 * b + c
        if bend < 0:
            return shifts[i] + 0.5 * (a - c) / bend
    return float(shifts[i])
