"""Measures of a take's curves: timing, frozen and jumping frames, noise, limits, symmetry."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from a2fjax import rig
from data_pipeline.timing import align

RATE_NAMES = {n * 1000 / 1001: f"{n}000/1001" for n in (24, 30, 48, 60, 120, 240)}
"""Rates that are written 23.976, 29.97, 59.94 and so on and are none of these."""

_STILL = 1e-5  # of a weight: below the noise of any capture, above float32 rounding
_LARGEST = 1e6  # times the scale of a channel
_DEAD = 1e-3
_LEAST_FPS = 11.5  # repeats that leave fewer different frames a second are frozen frames
_LIMIT = 1e-3
_TOGETHER = 8  # channels processed at once, to limit the memory of a long take
# Gaze normally jumps from one frame to the next (saccades).
_STEADY = np.array([not n.startswith("eyeLook") and "EyeRot" not in n for n in rig.CHANNELS])


def measure_motion(
    times: np.ndarray,
    curves: np.ndarray,
    observed: np.ndarray,
    residual: np.ndarray | None = None,
) -> dict[str, Any]:
    """Measures a take's curves, before they are clipped or resampled.

    Args:
      times: [F] s on the capture's clock, increasing.
      curves: [F, 72] rig units; NaN in missing frames.
      observed: [72] bool.
      residual: [F] residual of the solver in mm, or None.

    Returns:
      A JSON-serialisable dict.

      frames, seconds, fps (exact for NTSC rates), fps_name, jitter_ms: timing.
      missing: share of the frames of a steady clock that are absent or NaN; longest_gap_s: longest
        time between two frames.
      frozen: share of frames equal to the one before in all channels, except for regular repeats;
        longest_frozen_s; true_fps: rate of the motion if frames are repeated regularly (30 fps
        stored as 60), else None.
      jumps: share of frames, and jump_times [at most 20] s; see `find_jumps`.
      saturated {channel: share of frames at its upper limit, or at either limit of an angle}.
      range {channel: [1st, 50th, 99th percentile]}; dead: channels that never move.
      below, above: share of weights below 0 and above 1; outside: the worst channels.
      noise: standard deviation of white noise with the same frame-to-frame roughness, in weight
        units, median over moving channels.
      mirrored: share of moving left-right pairs that are exactly equal, None without pairs;
        unequal: the left channels of the other pairs.
      residual_mm {median, p95, max} or None.
      digest: digest of the curves rounded to a thousandth, the same for copies.
    """
    times = np.asarray(times, np.float64)
    curves = np.asarray(curves, np.float64)
    observed = np.asarray(observed, bool)
    channels = np.flatnonzero(observed)
    values = curves[:, channels] / rig.SCALE[channels]
    valid: np.ndarray = np.asarray(np.isfinite(values).all(axis=1))
    # A damaged capture holds any number; squares and whole numbers of 32 bits do not.
    values = np.clip(values, -_LARGEST, _LARGEST)
    out = _timing(times, valid)
    if len(channels):
        steps = np.round(np.nan_to_num(values) * 1000).astype("<i4")
        out["digest"] = hashlib.sha256(steps.tobytes() + channels.tobytes()).hexdigest()[:24]
    times, values = times[valid], values[valid]
    if not len(channels) or not len(values):
        return out | {"range": {}, "dead": [], "saturated": {}, "residual_mm": _spread(residual)}
    span = np.ptp(values, axis=0)
    moving = span > _DEAD
    out |= _frozen(times, values, out["fps"])
    steady = moving & _STEADY[channels]
    jumps = find_jumps(values[:, steady])
    out["jumps"] = round(float(jumps.mean()), 5)
    out["jump_times"] = [round(float(t), 4) for t in times[jumps][:20]]
    out["noise"] = _roughness(values[:, moving])
    out |= _limits(values, channels)
    out["dead"] = [rig.CHANNELS[c] for c, m in zip(channels, moving, strict=True) if not m]
    low, middle, high = np.percentile(values * rig.SCALE[channels], [1, 50, 99], axis=0)
    out["range"] = {
        rig.CHANNELS[c]: [round(float(v), 4) for v in row]
        for c, *row in zip(channels, low, middle, high, strict=True)
    }
    out |= _mirrored(values, channels, moving)
    out["residual_mm"] = _spread(residual)
    return out


def _timing(times: np.ndarray, valid: np.ndarray) -> dict[str, Any]:
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
    # With rounded times the median is a multiple of the clock's tick; mean and slope are not.
    single = float(gaps[gaps < 1.5 * np.median(gaps)].mean())
    steps = np.maximum(np.round(gaps / single), 1.0)
    position = np.concatenate([[0.0], np.cumsum(steps)])
    period = float(np.polyfit(position, times, 1)[0]) if frames > 2 else float(gaps[0])
    fps = align.exact_rate(1.0 / period)
    for rate in (24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 100.0, 120.0):
        # In a take this short, the difference comes only from rounding at the two ends.
        fps = rate if abs(fps - rate) < 1e-4 * rate and fps not in RATE_NAMES else fps
    apart = (
        times - np.polyval(np.polyfit(position, times, 1), position) if frames > 2 else np.zeros(1)
    )
    should = float(position[-1]) + 1.0
    return out | {
        "fps": round(fps, 6),
        "fps_name": RATE_NAMES.get(fps, f"{fps:.6g}"),
        "jitter_ms": round(1000 * float(apart.std()), 4),
        "missing": round(1.0 - float(valid.sum()) / should, 5),
        "longest_gap_s": round(float(gaps.max()), 4),
    }


def _frozen(times: np.ndarray, values: np.ndarray, fps: float | None) -> dict[str, Any]:
    out: dict[str, Any] = {"frozen": None, "longest_frozen_s": None, "true_fps": None}
    if len(values) < 2:
        return out
    same: np.ndarray = np.asarray((np.abs(np.diff(values, axis=0)) <= _STILL).all(axis=1))
    changes = np.flatnonzero(np.concatenate([[True], ~same, [True]]))
    runs = np.diff(changes)
    longest = int(np.argmax(runs))
    first, last = changes[longest], changes[longest] + runs[longest] - 1
    out["frozen"] = round(float(same.mean()), 5)
    out["longest_frozen_s"] = round(float(times[last] - times[first]), 4)
    # Repeated frames come in runs of one or two lengths; a held pose is one long run.
    inner = runs[1:-1]
    short = inner[inner <= 1.5 * np.median(inner)] if len(inner) else inner
    if fps and len(short) >= 10 and 2 * short.sum() >= len(values) - runs[longest]:
        repeats = short.mean()
        if 1.15 <= repeats <= 6 and short.std() <= 0.55:
            out["true_fps"] = round(float(fps / repeats), 3)
            if fps / repeats >= _LEAST_FPS:
                held = np.maximum(runs - np.ceil(repeats), 0)
                out["frozen"] = round(float(held.sum() / len(same)), 5)
    return out


def find_jumps(values: np.ndarray) -> np.ndarray:
    """Finds the frames [F] that jump.

    A spike is a single frame that deviates from the straight line through the two frames before
    and the two after it, which themselves lie within a fifth of its height of that line; a blink
    of five frames is not a spike. A step is a frame at which the whole face moves by four times the
    98th percentile of all steps and by five times the steps around it.

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
    """Returns the mask [F - 4] of spikes, from the third frame on; see `find_jumps`."""
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
    """Returns the residual noise of a parabola fitted to five frames (Savitzky and Golay 1964)."""
    if len(values) < 9 or not values.shape[1]:
        return None
    window = np.array([-3.0, 12.0, 17.0, 12.0, -3.0]) / 35.0
    each = [
        np.median(np.abs(column[2:-2] - np.convolve(column, window, "valid")))
        for column in values.T
    ]
    # The middle of the window retains 17/35 of the variance of white noise.
    return round(float(1.4826 * np.median(each) / np.sqrt(18.0 / 35.0)), 6)


def _limits(values: np.ndarray, channels: np.ndarray) -> dict[str, Any]:
    weight = np.isin(channels, rig.WEIGHT_CHANNELS)
    low, high = rig.MIN[channels] / rig.SCALE[channels], rig.MAX[channels] / rig.SCALE[channels]
    at_limit = values >= high - _LIMIT
    at_limit[:, ~weight] |= values[:, ~weight] <= low[~weight] + _LIMIT
    share = at_limit.mean(axis=0)
    below, above = (values < -_LIMIT) & weight, (values > 1 + _LIMIT) & weight
    outside = (below | above).mean(axis=0)
    worst = sorted(np.flatnonzero(outside).tolist(), key=lambda i: (-outside[i], i))[:5]
    count = max(1, int(weight.sum())) * len(values)
    return {
        "saturated": {
            rig.CHANNELS[c]: round(float(s), 5)
            for c, s in zip(channels, share, strict=True)
            if s > 0
        },
        "below": round(float(below.sum()) / count, 5),
        "above": round(float(above.sum()) / count, 5),
        "outside": {rig.CHANNELS[channels[i]]: round(float(outside[i]), 5) for i in worst},
    }


def _mirrored(values: np.ndarray, channels: np.ndarray, moving: np.ndarray) -> dict[str, Any]:
    column = {rig.CHANNELS[c]: i for i, c in enumerate(channels)}
    apart = {
        a: float(np.abs(values[:, column[a]] - values[:, column[b]]).max())
        for a, b in rig.MIRROR_PAIRS
        # Sideways motion of jaw, mouth or tongue is not a pair of sides.
        if a in column and b in column and a not in _SIDEWAYS and "EyeRot" not in a
        if moving[column[a]] or moving[column[b]]
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
