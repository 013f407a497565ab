"""Signals for aligning clocks (loudness, clicks, lip openings), and resampling.

A slate (three lip pops) gives the offset of the clocks; `clocks` combines it with estimates from
speech.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax.audio import SAMPLE_RATE

ENVELOPE_RATE = 200
"""Loudness and aperture are compared on a 5 ms grid."""

_ROUNDS = 2  # more improve little
_MARGIN = 0.1  # share of the range of the surrounding frames
NTSC_RATES = tuple(n * 1000 / 1001 for n in (24, 30, 48, 60, 120, 240))


@dataclasses.dataclass(frozen=True)
class SlateOffset:
    """The offset of the two clocks, from a slate.

    Attributes:
      seconds: audio time minus capture time.
      confidence: in [0, 1]: share of matching clicks times their agreement.
      spread: standard deviation over clicks, s.
    """

    seconds: float
    confidence: float
    spread: float


def exact_rate(fps: float) -> float:
    """Returns the exact rate for a rounded one: 23.976, 29.97, 47.952, 59.94 ... are NTSC."""
    for rate in NTSC_RATES:
        if abs(fps - rate) < 0.005:
            return rate
    return float(fps)


def longest_bridged_gap(frame: float) -> float:
    """Returns the longest gap between frames, in s, that is bridged; a longer one is a hole.

    At 24 frames per second one frame may be missing; at high rates the limit is a time in which
    lips hardly move.

    Args:
      frame: usual time between frames, s.
    """
    return max(2.5 * frame, 0.055)


def resample(times: np.ndarray, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Resamples values [F, C] from real-valued times [F] to other times; returns [T, C].

    Uses a windowed sinc (Lanczos, 4 lobes, weights normalised to 1) whose cutoff is half the lower
    of the two rates, so that downsampling does not alias. Unevenly spaced frames (beyond 5 % or
    0.6 ms), and gaps among even ones, are first converted to even times by a monotone cubic (PCHIP;
    Fritsch and Carlson 1980) with a correction for its smoothing. The filter does not cross holes
    (see `longest_bridged_gap`): both sides are resampled separately and joined by a straight line.
    Beyond the frames the ends are held. After a step a value overshoots by up to a quarter.

    Args:
      times: [F] seconds, increasing.
      values: [F, C]; non-finite values count as missing, in their channel only.
      targets: [T] seconds, increasing.

    Returns:
      [T, C] float64; NaN only in channels without any finite value.

    Raises:
      ValueError: times do not increase.
    """
    times = np.asarray(times, np.float64)
    values = np.asarray(values, np.float64)
    targets = np.asarray(targets, np.float64)
    if len(times) > 1 and not (np.diff(times) > 0).all():
        raise ValueError("capture times do not increase")
    finite = np.isfinite(values)
    if finite.all():
        return _resample_finite(times, values, targets)
    out = np.full((len(targets), values.shape[1]), np.nan)
    patterns, which = np.unique(finite, axis=1, return_inverse=True)
    for n, pattern in enumerate(patterns.T):
        if pattern.any():
            columns = np.flatnonzero(which.reshape(-1) == n)
            part = values[np.ix_(pattern, columns)]
            out[:, columns] = _resample_finite(times[pattern], part, targets)
    return out


def _resample_finite(times: np.ndarray, values: np.ndarray, targets: np.ndarray) -> np.ndarray:
    if len(times) == 1:
        return np.repeat(values, len(targets), axis=0)
    gaps = np.diff(times)
    frame = float(np.median(gaps))
    target = float(np.median(np.diff(targets))) if len(targets) > 1 else frame
    targets = np.clip(targets, times[0], times[-1])
    ends = np.append(np.flatnonzero(gaps > longest_bridged_gap(frame)), len(times) - 1)
    if len(ends) == 1:
        return _resample_run(times, values, targets, frame, target)
    out = np.empty((len(targets), values.shape[1]))
    first = 0
    for last in ends:
        lo, hi = (
            np.searchsorted(targets, times[first]),
            np.searchsorted(targets, times[last], "right"),
        )
        run = slice(first, last + 1)
        if hi > lo:
            out[lo:hi] = _resample_run(times[run], values[run], targets[lo:hi], frame, target)
        if last + 1 < len(times):
            then = np.searchsorted(targets, times[last + 1])
            part = ((targets[hi:then] - times[last]) / (times[last + 1] - times[last]))[:, None]
            out[hi:then] = (1.0 - part) * values[last] + part * values[last + 1]
        first = last + 1
    return out


def _resample_run(
    times: np.ndarray, values: np.ndarray, targets: np.ndarray, frame: float, target: float
) -> np.ndarray:
    """Resamples frames without holes."""
    if len(times) == 1:
        return np.repeat(values, len(targets), axis=0)
    number = np.concatenate([[0.0], np.cumsum(np.maximum(np.round(np.diff(times) / frame), 1.0))])
    # Fit a straight line through all time stamps, to average out their rounding.
    centre = number - number.mean()
    spacing = float(centre @ times / (centre @ centre))
    start = float(times.mean() - spacing * number.mean())
    uneven = np.abs(times - start - spacing * number).max() > max(0.05 * spacing, 6e-4)
    if uneven:
        spacing, start = float(times[-1] - times[0]) / (len(times) - 1), float(times[0])
        count = len(times)
    else:
        count = int(number[-1]) + 1
        times = start + spacing * number
    if uneven or count > len(times):
        values = _even_frames(times, values, start, spacing, count)
    return _sinc(values, (targets - start) / spacing, max(1.0, target / spacing))


def _even_frames(
    times: np.ndarray, values: np.ndarray, start: float, spacing: float, count: int
) -> np.ndarray:
    """Returns evenly spaced frames [count, C] that reproduce uneven ones [F, C].

    A monotone cubic maps uneven frames to even ones, a sinc maps these back, and the residual is
    mapped again (Feichtinger and Groechenig 1994, with another interpolation). The cubic alone
    attenuates frequencies above a quarter of the frame rate.
    """
    from scipy.interpolate import PchipInterpolator

    grid = np.clip(start + spacing * np.arange(count), times[0], times[-1])
    back = (times - start) / spacing
    even = PchipInterpolator(times, values)(grid)
    # Ringing at steps would grow: limit each value to a margin around its neighbouring frames.
    near = np.searchsorted(times, grid)[:, None] + np.arange(-2, 2)
    around = values[np.clip(near, 0, len(values) - 1)]
    low, high = around.min(axis=1), around.max(axis=1)
    margin = _MARGIN * (high - low)
    for _ in range(_ROUNDS):
        even += PchipInterpolator(times, values - _sinc(even, back, 1.0))(grid)
        even = np.clip(even, low - margin, high + margin)
    return even


def _sinc(values: np.ndarray, position: np.ndarray, stretch: float) -> np.ndarray:
    """Returns values [F, C] at positions [T] in frames, band-limited to 1 / (2 stretch)."""
    lobes = 4
    reach = int(np.ceil(lobes * stretch))
    near = np.floor(position).astype(np.int64)
    taps = near[:, None] + np.arange(1 - reach, reach + 1)
    x = (position[:, None] - taps) / stretch
    weights = np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    taps = np.clip(taps, 0, len(values) - 1)  # holds the ends: the first and last frame repeat
    out = np.zeros((len(position), values.shape[1]))
    for tap, weight in zip(taps.T, weights.T, strict=True):
        out += weight[:, None] * values[tap]
    return out


def covered_by_capture(
    times: np.ndarray, targets: np.ndarray, valid: np.ndarray | None = None
) -> np.ndarray:
    """Returns the mask of times [T] inside a capture [F], to half a frame at its ends and holes.

    Args:
      times: [F] seconds, increasing.
      targets: [T] seconds.
      valid: [F] mask of frames with data; others count as dropped. None for all.
    """
    times, targets = np.asarray(times, np.float64), np.asarray(targets, np.float64)
    frame = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    if valid is not None:
        times = times[np.asarray(valid, bool)]
    if not len(times):
        return np.zeros(len(targets), bool)
    right = np.clip(np.searchsorted(times, targets), 0, len(times) - 1)
    left = np.maximum(right - 1, 0)
    near = np.minimum(np.abs(targets - times[left]), np.abs(targets - times[right])) <= 0.5 * frame
    between = (targets >= times[0]) & (targets <= times[-1])
    return near | (between & (times[right] - times[left] <= longest_bridged_gap(frame)))


def envelope(audio: np.ndarray) -> np.ndarray:
    """Returns the loudness of 16 kHz audio [S] in dB at 200 Hz, value i at i / 200 s.

    This is the RMS of 20 ms Hann windows centred on each value, above 100 Hz (hum and rumble are
    unrelated to the lips), floored 50 dB below the loud parts. Memory beyond the result does not
    grow with S.
    """
    from scipy.signal import butter, sosfilt

    hop, width, block = SAMPLE_RATE // ENVELOPE_RATE, 320, 1 << 17
    filters = butter(4, 100.0, "high", fs=SAMPLE_RATE, output="sos")
    state = np.zeros((len(filters), 2))
    window = np.hanning(width + 1)[:-1]
    window /= window.sum()
    count = len(audio) // hop + 1
    out, rest = [], np.zeros(width // 2)  # rest: power that the next windows still need
    for first in range(0, len(audio) + width + hop, block):
        part = np.asarray(audio[first : first + block], np.float64)
        if len(part):
            part, state = sosfilt(filters, part, zi=state)
        tail = max(0, min(first + block, len(audio) + width + hop) - max(first, len(audio)))
        power = np.concatenate([rest, part**2, np.zeros(tail)])
        frames = max(0, (len(power) - width) // hop + 1)
        if frames:
            views = np.lib.stride_tricks.sliding_window_view(power, width)[::hop][:frames]
            out.append(views @ window)
        rest = power[frames * hop :]
    level = 10.0 * np.log10(np.concatenate(out)[:count] + 1e-12)
    return np.maximum(level, np.percentile(level, 95) - 50.0)


def click_times(audio: np.ndarray) -> np.ndarray:
    """Returns the onsets (s) of isolated clicks in 16 kHz audio, to about 1 ms.

    At a click the 1 ms level rises to a fifth of the maximum after at least 0.1 s below that.
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
        # The averaged level rises half a window early, so refine with the samples themselves.
        around = np.abs(audio[max(0, i - 32) : i + 64])
        out.append((max(0, i - 32) + int(np.argmax(around > 0.25 * around.max()))) / SAMPLE_RATE)
    return np.array(out)


def lip_openings(times: np.ndarray, aperture: np.ndarray) -> np.ndarray:
    """Returns [N, 3]: times at which closed lips snap open (s), and the surrounding frames (s).

    The instant is when the aperture passes half way between rest and fully open, interpolated
    linearly between the two surrounding frames; a real opening lasts at most 0.1 s.

    Args:
      times: [F] seconds.
      aperture: [F] any unit.
    """
    low, high = np.percentile(aperture, [20, 99.5])
    if high - low <= 1e-6:
        return np.zeros((0, 3))
    instants: list[tuple[float, float, float]] = []
    for i in np.flatnonzero((aperture[1:] > low) & (aperture[:-1] <= (low + high) / 2)) + 1:
        # Openings have different heights.
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
        instant = times[i - 1] + part * (times[i] - times[i - 1])
        if not instants or instant - instants[-1][0] > 0.1:
            instants.append((instant, times[i - 1], times[i]))
    return np.array(instants).reshape(-1, 3)


def offset_from_slate(
    clicks: np.ndarray, times: np.ndarray, aperture: np.ndarray, *, limit: float = 0.25
) -> SlateOffset | None:
    """Returns the offset from clicks and lip pops, or None if fewer than two agree.

    Each click and opening bound the offset to one frame of the capture. The result is the mean of
    those that agree, limited to the intersection of their bounds, which is finer than a frame.

    Args:
      clicks: [N] s, see `click_times`.
      times: [F] seconds on the capture's clock.
      aperture: [F] lip aperture.
      limit: largest offset, s.
    """
    clicks = np.asarray(clicks, np.float64)
    times, aperture = np.asarray(times, np.float64), np.asarray(aperture, np.float64)
    times, aperture = times[np.isfinite(aperture)], aperture[np.isfinite(aperture)]
    if len(times) < 2 or not len(clicks):
        return None
    opened = lip_openings(times, aperture)
    if not len(opened):
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
    return SlateOffset(seconds, min(1.0, share) * float(np.exp(-spread / frame)), spread)
