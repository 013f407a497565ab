"""What is wrong with a take: its sound, its motion, and whether the two belong together.

Each function measures and returns plain numbers; `judge` alone decides, by thresholds that are part
of the build's settings. A measure that cannot be had is None and never fails a take.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from data_pipeline.timing import align

RATE_NAMES = {n * 1000 / 1001: f"{n}000/1001" for n in (24, 30, 48, 60, 120, 240)}
"""Rates that are written 23.976, 29.97, 59.94 and so on and are none of these."""

THUMBNAIL_POINTS = 240
"""Of a thumbnail."""

_STILL = 1e-5  # of a weight: less than any capture's noise and than float32's last bits matter
_DEAD = 1e-3
_LIMIT = 1e-3
_CLOSE = 0.5  # correlation that the wrong sound hardly reaches
_TOGETHER = 8  # channels: what is worked on at once bounds the memory of a long take
_SURE = 0.5  # confidence below which a clock's drift is hearsay
# Gaze jumps from one frame to the next in every healthy person.
_STEADY = np.array([not n.startswith("eyeLook") and "EyeRot" not in n for n in rig.CHANNELS])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Beyond these a take is put aside; 0 switches one off.

    Attributes:
      least_snr_db: speech over noise.
      most_clipping: share of samples at the limit.
      most_silence: share of 20 ms frames without speech.
      least_band_hz: highest frequency in the sound, where it is sure.
      least_lip_correlation: of lips and loudness, see `lips`.
      most_residual_mm: median over frames of the solve's residual.
      most_drift: of the clocks, seconds a second, where it is sure.
      most_frozen: share of frames that repeat the one before.
      most_jumps: share of frames that jump.
      most_missing: share of frames that are missing, or hold no numbers.
      most_saturated: share of frames at the limit, of the worst channel.
    """

    least_snr_db: float = 10.0
    most_clipping: float = 0.01
    most_silence: float = 0.9
    least_band_hz: float = 3000.0
    least_lip_correlation: float = 0.0
    most_residual_mm: float = 3.0
    most_drift: float = 0.002
    most_frozen: float = 0.5
    most_jumps: float = 0.02
    most_missing: float = 0.3
    most_saturated: float = 0.5


def measure_audio(path: Path | None) -> dict[str, Any]:
    """Measures a take's sound file; an empty dict for a take without one. See `sound.measure`.

    Raises:
      InputError: the file cannot be read.
    """
    from data_pipeline.quality import audio as sound

    return {} if path is None else sound.measure_audio(path)


def measure_motion(
    times: np.ndarray,
    curves: np.ndarray,
    observed: np.ndarray,
    residual: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures a take's curves, before they are clipped or resampled.

    Args:
      times: [F] s on the capture's clock, increasing.
      curves: [F, 72] rig units; NaN where a frame holds nothing.
      observed: [72] bool.
      residual: [F] of the solve in mm, or None.

    Returns:
      A dict that JSON can hold.

      frames, seconds, fps (exact for NTSC rates), fps_name, jitter_ms: of the times.
      missing: share of frames that a steady clock would have and that are not there or hold NaN;
        longest_gap_s: between two frames.
      frozen: share of frames equal to the one before in all channels; longest_frozen_s; true_fps:
        of the motion where frames are repeated regularly (30 fps stored as 60), else None.
      jumps: share of frames, and jump_times [at most 20] s; see `jumping`.
      saturated {channel: share of frames at its upper limit, or either of an angle's}.
      range {channel: [1st, 50th, 99th percentile]}; dead: channels that never move.
      below, above: share of weights below 0 and above 1; outside: the worst channels.
      noise: standard deviation of white noise that frame-to-frame roughness amounts to, in weight
        units, median over channels that move.
      mirrored: share of moving left-right pairs that are exactly equal, None without pairs;
        unequal: the left ones of those that are not.
      residual_mm {median, p95, max} or None.
      digest: of the curves to a thousandth, equal for copies.
    """
    times = np.asarray(times, np.float64)
    curves = np.asarray(curves, np.float64)
    observed = np.asarray(observed, bool)
    seen = np.flatnonzero(observed)
    values = curves[:, seen] / rig.SCALE[seen]
    good: np.ndarray = np.asarray(np.isfinite(values).all(axis=1))
    out = _timing(times, good)
    if len(seen):
        steps = np.round(np.nan_to_num(values) * 1000).astype("<i4")
        out["digest"] = hashlib.sha256(steps.tobytes() + seen.tobytes()).hexdigest()[:24]
    times, values = times[good], values[good]
    if not len(seen) or not len(values):
        return out | {"range": {}, "dead": [], "saturated": {}, "residual_mm": _spread(residual)}
    span = np.ptp(values, axis=0)
    moving = span > _DEAD
    out |= _frozen(times, values, out["fps"])
    steady = moving & _STEADY[seen]
    jumps = find_jumps(values[:, steady])
    out["jumps"] = round(float(jumps.mean()), 5)
    out["jump_times"] = [round(float(t), 4) for t in times[jumps][:20]]
    out["noise"] = _roughness(values[:, moving])
    out |= _limits(values, seen)
    out["dead"] = [rig.CHANNELS[c] for c, m in zip(seen, moving, strict=True) if not m]
    low, middle, high = np.percentile(values * rig.SCALE[seen], [1, 50, 99], axis=0)
    out["range"] = {
        rig.CHANNELS[c]: [round(float(v), 4) for v in row]
        for c, *row in zip(seen, low, middle, high, strict=True)
    }
    out |= _mirrored(values, seen, moving)
    out["residual_mm"] = _spread(residual)
    return out


def _timing(times: np.ndarray, good: np.ndarray) -> dict[str, Any]:
    frames = len(times)
    out: dict[str, Any] = {
        "frames": frames,
        "seconds": round(float(times[-1] - times[0]), 4) if frames else 0.0,
        "fps": None,
        "fps_name": "",
        "jitter_ms": None,
        "missing": None,
        "longest_gap_s": None,
    }
    gaps = np.diff(times)
    if not len(gaps) or not (gaps > 0).all():
        return out
    # The median is a multiple of the clock's tick where times are rounded; mean and slope are not.
    single = float(gaps[gaps < 1.5 * np.median(gaps)].mean())
    steps = np.maximum(np.round(gaps / single), 1.0)
    place = np.concatenate([[0.0], np.cumsum(steps)])
    period = float(np.polyfit(place, times, 1)[0]) if frames > 2 else float(gaps[0])
    fps = align.exact_rate(1.0 / period)
    for rate in (24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 100.0, 120.0):
        # Of a take this short, the two ends' rounding is all the difference there is.
        fps = rate if abs(fps - rate) < 1e-4 * rate and fps not in RATE_NAMES else fps
    apart = times - np.polyval(np.polyfit(place, times, 1), place) if frames > 2 else np.zeros(1)
    should = float(place[-1]) + 1.0
    return out | {
        "fps": round(fps, 6),
        "fps_name": RATE_NAMES.get(fps, f"{fps:.6g}"),
        "jitter_ms": round(1000 * float(apart.std()), 4),
        "missing": round(1.0 - float(good.sum()) / should, 5),
        "longest_gap_s": round(float(gaps.max()), 4),
    }


def _frozen(times: np.ndarray, values: np.ndarray, fps: float | None) -> dict[str, Any]:
    out: dict[str, Any] = {"frozen": None, "longest_frozen_s": None, "true_fps": None}
    if len(values) < 2:
        return out
    same = (np.abs(np.diff(values, axis=0)) <= _STILL).all(axis=1)
    changes = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
    runs = np.diff(changes)
    longest = int(np.argmax(runs))
    first, last = changes[longest], changes[longest] + runs[longest] - 1
    out["frozen"] = round(float(same.mean()), 5)
    out["longest_frozen_s"] = round(float(times[last] - times[first]), 4)
    # Repeated frames come in runs of one or two lengths; a held pose is one long run.
    inner = runs[1:-1]
    if fps and len(inner) >= 10 and 1.15 <= inner.mean() <= 6 and inner.std() <= 0.55:
        out["true_fps"] = round(float(fps / inner.mean()), 3)
    return out


def find_jumps(values: np.ndarray) -> np.ndarray:
    """Finds the frames [F] that jump.

    A spike is a single frame that stands off the straight line through the two before and the two
    after it, which themselves lie within a fifth of its height of that line; lids that shut and
    open again in five frames do not. A step is a
    frame at which the whole face is elsewhere: four times as far as the 98th percentile of all
    steps, and five times as far as the frames around it.

    Args:
      values: [F, C] in weight units.
    """
    frames, channels = values.shape
    out = np.zeros(frames, bool)
    if frames < 5 or not channels:
        return out
    for first in range(0, channels, _TOGETHER):
        out[2:-2] |= _spikes(values[:, first : first + _TOGETHER])
    step = np.linalg.norm(np.diff(values, axis=0), axis=1)
    usual = max(float(np.percentile(step, 98)), 0.02 * np.sqrt(channels))
    padded = np.pad(step, 1)
    beside = np.maximum(padded[:-2], padded[2:])
    out[1:] |= (step > 4 * usual) & (step > 5 * beside)
    return out


def _spikes(values: np.ndarray) -> np.ndarray:
    """Returns which frames [F - 4] are spikes, from the third on; see `jumping`."""
    bend = np.abs(values[2:] - 2 * values[1:-1] + values[:-2])
    scale = 1.4826 * np.median(bend, axis=0)
    middle = values[2:-2]
    around = np.stack([values[:-4], values[1:-3], values[3:-1], values[4:]])
    height = np.abs(middle - around.mean(axis=0))
    places = np.array([-2.0, -1.0, 1.0, 2.0])
    slope = np.tensordot(places, around, 1) / 10.0
    line = around.mean(axis=0) + places[:, None, None] * slope
    alone = np.abs(around - line).max(axis=0) <= 0.2 * height
    return np.asarray((alone & (height > np.maximum(0.1, 6 * scale))).any(axis=1))


def _roughness(values: np.ndarray) -> float | None:
    """Returns the noise that a parabola through five frames (Savitzky and Golay 1964) leaves."""
    if len(values) < 9 or not values.shape[1]:
        return None
    window = np.array([-3.0, 12.0, 17.0, 12.0, -3.0]) / 35.0
    each = [
        np.median(np.abs(column[2:-2] - np.convolve(column, window, "valid")))
        for column in values.T
    ]
    # Of white noise the middle of the window keeps 17/35 of the variance.
    return round(float(1.4826 * np.median(each) / np.sqrt(18.0 / 35.0)), 6)


def _limits(values: np.ndarray, seen: np.ndarray) -> dict[str, Any]:
    weight = np.isin(seen, rig.WEIGHT_CHANNELS)
    low, high = rig.MIN[seen] / rig.SCALE[seen], rig.MAX[seen] / rig.SCALE[seen]
    at = values >= high - _LIMIT
    at[:, ~weight] |= values[:, ~weight] <= low[~weight] + _LIMIT
    share = at.mean(axis=0)
    below, above = (values < -_LIMIT) & weight, (values > 1 + _LIMIT) & weight
    outside = (below | above).mean(axis=0)
    worst = sorted(np.flatnonzero(outside).tolist(), key=lambda i: (-outside[i], i))[:5]
    count = max(1, int(weight.sum())) * len(values)
    return {
        "saturated": {
            rig.CHANNELS[c]: round(float(s), 5) for c, s in zip(seen, share, strict=True) if s > 0
        },
        "below": round(float(below.sum()) / count, 5),
        "above": round(float(above.sum()) / count, 5),
        "outside": {rig.CHANNELS[seen[i]]: round(float(outside[i]), 5) for i in worst},
    }


def _mirrored(values: np.ndarray, seen: np.ndarray, moving: np.ndarray) -> dict[str, Any]:
    place = {rig.CHANNELS[c]: i for i, c in enumerate(seen)}
    apart = {
        a: float(np.abs(values[:, place[a]] - values[:, place[b]]).max())
        for a, b in rig.MIRROR_PAIRS
        # Sideways motion of jaw, mouth or tongue is not a pair of sides.
        if a in place and b in place and a not in _SIDEWAYS and "EyeRot" not in a
        if moving[place[a]] or moving[place[b]]
    }
    unequal = [a for a, most in apart.items() if most > _STILL]
    share = 1.0 - len(unequal) / len(apart) if apart else None
    return {"mirrored": None if share is None else round(share, 4), "unequal": unequal}


_SIDEWAYS = ("jawLeft", "mouthLeft", "tongueTipLeft", "tongueRollLeft", "tongueLeft")


def _spread(values: np.ndarray | None) -> dict[str, float] | None:
    if values is None:
        return None
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    return {
        "median": round(float(np.median(values)), 4),
        "p95": round(float(np.percentile(values, 95)), 4),
        "max": round(float(values.max()), 4),
    }


def measure_lips(
    envelope: np.ndarray, times: np.ndarray, aperture: np.ndarray, *, search: float = 0.08
) -> dict[str, Any]:
    """Measures whether the lips of a take move with its sound.

    Loudness and aperture, both between half a hertz and eight, are correlated at the clock that was
    found; the best within `search` counts, for lips lead sounds by some frames. Chance is the same
    with the sound rolled by everything beyond half a second: other words of the same voice.

    Args:
      envelope: [N] dB at 200 values a second, value i at i / 200 s (`align.envelope`).
      times: [F] s of the motion on the audio's clock.
      aperture: [F] of the lips (`rig.aperture`).
      search: s around the clock that was found.

    Returns:
      correlation (None without two seconds of both, or with still lips); lag_s, of the sound after
      the lips; chance, its 95th percentile; z, standard deviations above its mean; belongs: True or
      False when that is clear, else None.
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
    at = np.arange(first, last + 1)
    mouth = _band(np.interp(at / rate, times, aperture))
    sound = _band(np.asarray(envelope, np.float64)[first : last + 1])
    norm = float(np.sqrt((mouth @ mouth) * (sound @ sound)))
    if norm <= 1e-9 * len(at) or float(np.ptp(aperture)) <= _DEAD:
        return none
    # Circular, so that every shift compares the same samples.
    every = np.fft.irfft(np.fft.rfft(sound) * np.conj(np.fft.rfft(mouth)), len(at)) / norm
    reach = round(search * rate)
    near = np.concatenate([every[len(at) - reach :], every[: reach + 1]])
    best = int(np.argmax(near))
    far = every[rate // 2 : len(at) - rate // 2]
    # Chance may look around as far as we do.
    tops = np.lib.stride_tricks.sliding_window_view(far, 2 * reach + 1).max(axis=1)
    z = (float(near[best]) - float(tops.mean())) / max(float(tops.std()), 1e-9)
    chance = float(np.percentile(tops, 95))
    belongs: bool | None = None
    # A list read at a steady pace resembles itself at every item: there height must tell.
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
    """Returns a 200 Hz signal without what is slower than 0.5 Hz or faster than 8 Hz, about."""
    out = _average(signal, 13)
    return out - _average(out, min(401, (len(out) - 1) // 2 * 2 + 1))


def _average(signal: np.ndarray, width: int) -> np.ndarray:
    window = np.hanning(width + 2)[1:-1]
    padded = np.pad(signal, width // 2, "edge")
    return np.convolve(padded, window / window.sum(), "valid")


def thumbnail(
    envelope: np.ndarray | None,
    times: np.ndarray,
    aperture: np.ndarray,
    residual: np.ndarray | None = None,
    *,
    points: int = THUMBNAIL_POINTS,
) -> dict[str, Any]:
    """Returns what a small picture of a take needs: loudness, aperture and residual over time.

    Each point is the largest value of its stretch of time, so that no burst is lost.

    Args:
      envelope: [N] dB at 200 a second, or None.
      times: [F] s on the audio's clock.
      aperture: [F].
      residual: [F] mm, or None.
      points: at most this many.

    Returns:
      {"start", "seconds", "loudness", "aperture", "residual"}; the last three are lists of equal
      length (None where a stretch holds nothing), loudness in [0, 1]. Empty lists for what is
      missing.
    """
    times = np.asarray(times, np.float64)
    empty: dict[str, Any] = {
        "start": 0.0,
        "seconds": 0.0,
        "loudness": [],
        "aperture": [],
        "residual": [],
    }
    if not len(times):
        return empty
    start = min(0.0, float(times[0]))
    end = float(times[-1])
    if envelope is not None and len(envelope):
        end = max(end, len(envelope) / align.ENVELOPE_RATE)
    count = int(min(points, max(1, len(times))))
    length = max(end - start, 1e-3)

    def pool(at: np.ndarray, values: np.ndarray, digits: int) -> list[float | None]:
        fine = np.isfinite(values)
        place = np.clip(((at - start) / length * count).astype(int), 0, count - 1)[fine]
        top = np.full(count, -np.inf)
        np.maximum.at(top, place, np.asarray(values, np.float64)[fine])
        return [round(float(v), digits) if np.isfinite(v) else None for v in top]

    out = empty | {"start": round(start, 3), "seconds": round(length, 3)}
    out["aperture"] = pool(times, np.asarray(aperture, np.float64), 3)
    if residual is not None:
        out["residual"] = pool(times, np.asarray(residual, np.float64), 3)
    if envelope is not None and len(envelope):
        level = np.asarray(envelope, np.float64)
        low, high = float(level.min()), float(level.max())
        at = np.arange(len(level)) / align.ENVELOPE_RATE
        out["loudness"] = pool(at, (level - low) / max(high - low, 1e-9), 2)
    return out


def quarantine_reasons(measures: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    """Returns the reasons, in words, for which a take is put aside; none for a good one.

    Args:
      measures: a take's "audio", "motion", "lips" and "clock", each a dict as the functions here
        return it; what is missing or None is not judged.
      thresholds: 0 switches one off.
    """
    sound, curves = measures.get("audio") or {}, measures.get("motion") or {}
    mouth, clock = measures.get("lips") or {}, measures.get("clock") or {}
    saturated = curves.get("saturated") or {}
    channel = max(sorted(saturated), key=lambda n: saturated[n], default="")
    drift = clock.get("drift")
    sure = (clock.get("drift_confidence") or 0.0) >= _SURE
    values: list[tuple[str, float | None, str, str]] = [
        (
            "least_snr_db",
            sound.get("snr_db") if sound.get("snr_sure", True) else None,
            "signal-to-noise ratio",
            " dB",
        ),
        ("most_clipping", sound.get("clipping"), "share of clipped samples", ""),
        ("most_silence", sound.get("silence"), "share of silence", ""),
        (
            "least_band_hz",
            sound.get("band_hz") if sound.get("band_sure", True) else None,
            "highest frequency in the sound",
            " Hz",
        ),
        ("least_lip_correlation", mouth.get("correlation"), "correlation of lips and sound", ""),
        (
            "most_residual_mm",
            (curves.get("residual_mm") or {}).get("median"),
            "median residual of the solve",
            " mm",
        ),
        (
            "most_drift",
            abs(drift) if drift is not None and sure else None,
            "drift of the clocks",
            " s/s",
        ),
        ("most_frozen", curves.get("frozen"), "share of frozen frames", ""),
        ("most_jumps", curves.get("jumps"), "share of jumping frames", ""),
        ("most_missing", curves.get("missing"), "share of missing frames", ""),
        (
            "most_saturated",
            saturated.get(channel),
            f"share of frames with {channel} at its limit",
            "",
        ),
    ]
    return [
        line
        for key, value, what, unit in values
        if (line := _reason(key, value, what, unit, float(getattr(thresholds, key))))
    ]


def _reason(key: str, value: float | None, what: str, unit: str, limit: float) -> str:
    if value is None or not np.isfinite(value) or limit == 0:
        return ""
    shown = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if key.startswith("least"):
        return f"{what} {shown}{unit} is below {limit:g} ({key})" if value < limit else ""
    return f"{what} {shown}{unit} is above {limit:g} ({key})" if value > limit else ""
