"""Computes curves of jaw, lips and tongue from phones: coarticulation with exact closures.

The movement of each articulator is the mean of the targets of all phones, weighted by dominance
functions that decay exponentially around each phone (Cohen and Massaro 1993, "Modeling
coarticulation in synthetic visual speech"): with dominance a_s and rate theta_g of a group of
articulators, D_s(t) = a_s exp(-theta_g d_s(t)), d_s the distance to the phone's middle part, and

    x_g(t) = sum_s D_s(t) target_s / sum_s D_s(t).

A weighted mean never fully reaches a target. Two movements are therefore modelled as gestures,
minimum-jerk windows that reach one: lip closure in p, b, m (almost complete in f, v), and rest in
pauses. Both scale the lip aperture of `a2fjax.rig` after style and emotion, so the lips meet for
every speaker and every emotion. All curves are band-limited to about 10 Hz.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from scipy.interpolate import CubicSpline

from a2fjax import rig
from data_pipeline.demo import phones, style
from data_pipeline.demo.phones import Segment
from data_pipeline.demo.style import Style

RATE = 200
"""Samples a second at which curves are made; what other clocks need is interpolated by splines."""

_FALL = {"jaw": 15.0, "round": 13.0, "spread": 14.0, "lips": 20.0, "tongue": 20.0}
_SMOOTHING = 0.014
_STRESS = (0.90, 1.0, 1.14)
_SHORTEST_REST = 0.06
_FULL_REST = 0.15


@dataclasses.dataclass(frozen=True)
class Curves:
    """Motion as a function of time: `values` [N, 72] at `n / RATE` seconds."""

    values: np.ndarray

    @property
    def duration(self) -> float:
        """Seconds from the first to the last sample."""
        return (len(self.values) - 1) / RATE

    def at(self, times: np.ndarray) -> np.ndarray:
        """Returns the motion [T, 72] float32 at times in seconds.

        Interpolates between samples with cubic splines and holds the first and last values.
        """
        inside = np.clip(times, 0.0, self.duration)
        return rig.clip(self._spline(inside)).astype(np.float32)

    @functools.cached_property
    def _spline(self) -> CubicSpline:
        return CubicSpline(np.arange(len(self.values)) / RATE, self.values)


def minimum_jerk(x: np.ndarray) -> np.ndarray:
    """Returns the minimum-jerk step from 0 at x = 0 to 1 at x = 1 (Flash and Hogan 1985)."""
    x = np.clip(x, 0.0, 1.0)
    return x**3 * (10.0 - 15.0 * x + 6.0 * x**2)


def window(times: np.ndarray, begin: float, full: float, until: float, end: float) -> np.ndarray:
    """Returns a window [N] that is 0 outside (begin, end) and 1 within [full, until]."""
    rise = minimum_jerk((times - begin) / (full - begin))
    return rise * (1.0 - minimum_jerk((times - until) / (end - until)))


def rest(times: np.ndarray, segments: Sequence[Segment]) -> np.ndarray:
    """Returns the weight [N] of the rest pose: 1 in pauses, before and after speech.

    Lips part about 0.1 s before a phrase. Pauses shorter than 0.06 s have no rest; from 0.15 s on,
    rest is complete.
    """
    total = np.zeros_like(times)
    for i, s in enumerate(segments):
        length = s.end - s.start
        if s.phone.kind != "silence" or length < _SHORTEST_REST:
            continue
        first, last = i == 0, i == len(segments) - 1
        depth = (
            1.0
            if first or last
            else minimum_jerk(np.array((length - _SHORTEST_REST) / (_FULL_REST - _SHORTEST_REST)))
        )
        begin, full = s.start - 0.03, s.start + min(0.13, 0.42 * length)
        until, end = s.end - min(0.10, 0.40 * length), s.end + 0.02
        if first:
            begin, full = -2.0, -1.0
        if last:
            until, end = s.end + 1.0, s.end + 2.0
        total = np.maximum(total, depth * window(times, begin, full, until, end))
    return total


def closure(times: np.ndarray, segments: Sequence[Segment], speed: np.ndarray) -> np.ndarray:
    """Returns the share [N] by which the lip gestures reduce the lip opening: 1 is closed.

    Args:
      times: [N] seconds.
      segments: segments of the utterance.
      speed: [N] factor on the speed of gestures.
    """
    open_share = np.ones_like(times)
    for i, s in enumerate(segments):
        degree = s.phone.targets[phones.INDEX["closure"]]
        if s.phone.kind != "consonant" or s.phone.name == "W" or degree == 0.0:
            continue
        pace = float(np.interp(s.start, times, speed))
        rise, fall = 0.055 / pace, 0.050 / pace
        # A stop opens at its burst; other closures end a little before the phone does.
        full, until = s.start + 0.005, s.release - (0.0 if s.release < s.end else 0.012)
        if s.phone.name in ("F", "B"):
            full, until = s.start + 0.012, s.end - 0.012
        if until - full < 0.026:
            middle = 0.5 * (full + until)
            full, until = middle - 0.013, middle + 0.013
        # Lips at rest before or after a closure do not part in between.
        if i and segments[i - 1].phone.kind == "silence":
            full -= min(0.12, segments[i - 1].end - segments[i - 1].start)
        if i + 1 < len(segments) and segments[i + 1].phone.kind == "silence":
            until += min(0.12, segments[i + 1].end - segments[i + 1].start)
        gesture = window(times, full - rise, full, until, until + fall)
        open_share *= 1.0 - degree * gesture
    return 1.0 - open_share


def _smooth(values: np.ndarray) -> np.ndarray:
    half = int(4 * _SMOOTHING * RATE)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / (_SMOOTHING * RATE)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(values, ((half, half), (0, 0)), mode="edge")
    # One product per tap instead of one convolution per column: few taps, many columns.
    return sum(k * padded[i : i + len(values)] for i, k in enumerate(kernel))


def coarticulate(times: np.ndarray, segments: Sequence[Segment], speed: np.ndarray) -> np.ndarray:
    """Returns the targets [N, len(phones.TARGETS)] blended over time by dominance.

    Args:
      times: [N] seconds.
      segments: segments of the utterance; silences set no target, see `rest`.
      speed: [N] factor on the decay rate of the dominances.
    """
    spoken = [s for s in segments if s.phone.kind != "silence"]
    values = np.zeros((len(times), len(phones.TARGETS)))
    if not spoken:
        return values
    targets = np.stack([s.phone.targets * _stress_factor(s) for s in spoken])
    # Closures are windows (see `closure`); the only lip target left here is rounding.
    column = phones.INDEX["closure"]
    for i, s in enumerate(spoken):
        if s.phone.name in ("P", "M", "F", "B"):
            targets[i, column] = 0.0
    middle = np.array([[0.5 * (s.start + s.end)] for s in spoken])
    half = np.array([[0.28 * (s.end - s.start)] for s in spoken])
    distance = np.maximum(np.abs(times[None] - middle) - half, 0.0)
    for g, (group, names) in enumerate(phones.GROUPS.items()):
        alpha = np.array([[s.phone.dominance[g]] for s in spoken])
        log_dominance = np.log(alpha) - _FALL[group] * speed[None] * distance
        share = np.exp(log_dominance - log_dominance.max(axis=0))
        share /= share.sum(axis=0)
        columns = [phones.INDEX[n] for n in names] + ([column] if group == "round" else [])
        values[:, columns] = share.T @ targets[:, columns]
    return _smooth(values)


def _stress_factor(segment: Segment) -> np.ndarray:
    factor = np.ones(len(phones.TARGETS))
    if segment.phone.kind == "vowel":
        factor[:] = _STRESS[segment.stress]
    factor[phones.INDEX["closure"]] = 1.0
    return factor


def _soft_limit(x: np.ndarray) -> np.ndarray:
    """Returns x below 0.8 and approaches 1 smoothly above it, to avoid hard clipping."""
    x = np.maximum(x, 0.0)
    return np.where(x < 0.8, x, 0.8 + 0.2 * np.tanh((x - 0.8) / 0.2))


def _positive(x: float) -> float:
    """Returns a smooth version of max(x, 0)."""
    return 0.5 * (x + float(np.hypot(x, 0.15)))


def articulate(
    segments: Sequence[Segment],
    times: np.ndarray,
    emotion: np.ndarray,
    manner: Style,
) -> np.ndarray:
    """Returns the pose [N, 72] determined by speech, emotion and style, without blinks and gaze.

    It depends only on its arguments: jaw, mouth and tongue have no random component.

    Args:
      segments: segments of the utterance.
      times: [N] seconds.
      emotion: [N, 5] weights summing to 1.
      manner: the speaker's style.
    """
    speed = emotion @ style.RATE
    x = dict(zip(phones.TARGETS, coarticulate(times, segments, speed).T, strict=True))
    resting = rest(times, segments)
    shut = closure(times, segments, speed)
    shut = 1.0 - (1.0 - x["closure"]) * (1.0 - shut) * (1.0 - resting)
    speaking = 1.0 - resting
    amplitude = manner.amplitude * (emotion @ style.AMPLITUDE)
    strength = speaking * amplitude
    # Lips must meet: pressing and rolling vary less between speakers than opening does.
    firmness = speaking * (0.55 + 0.45 * amplitude)
    pose = emotion @ style.POSE
    out = np.zeros((len(times), rig.NUM_CHANNELS))

    def put(name: str, value: np.ndarray) -> None:
        out[:, rig.INDEX[name]] += value

    jaw = strength * x["jaw"] * (1.0 + 0.40 * manner.jaw) + speaking * (emotion @ style.JAW)
    jaw = _soft_limit(jaw)
    put("jawOpen", jaw)
    put("mouthClose", shut * jaw)
    put("jawForward", strength * x["jawForward"] + 0.13 + 0.12 * manner.jaw)
    put("mouthFunnel", strength * x["funnel"] * (1.0 + 0.45 * manner.rounding))
    put("mouthPucker", strength * x["pucker"] * (1.0 - 0.45 * manner.rounding))
    put("mouthFunnel", np.full(len(times), 0.15 + 0.14 * manner.rounding))
    put("mouthPucker", np.full(len(times), 0.15 - 0.14 * manner.rounding))
    put("mouthRollLower", firmness * x["rollLower"] + 0.12 - 0.11 * manner.rounding)
    put("mouthRollUpper", firmness * x["rollUpper"] + 0.12 - 0.11 * manner.rounding)
    put("mouthShrugLower", firmness * x["shrugLower"] + 0.13 - 0.12 * manner.smile)
    put("mouthShrugUpper", firmness * x["shrugUpper"] + 0.11 + 0.10 * manner.smile)
    put("cheekPuff", speaking * x["puff"])
    put("tongueOut", speaking * x["tongueOut"])
    for name in phones.GROUPS["tongue"]:
        if name != "tongueOut":
            put(name, speaking * (0.7 + 0.3 * amplitude) * x[name])

    put("mouthLeft", np.full(len(times), 0.20 * _positive(manner.asymmetry)))
    put("mouthRight", np.full(len(times), 0.20 * _positive(-manner.asymmetry)))
    put("jawLeft", np.full(len(times), 0.10 * _positive(manner.asymmetry)))
    put("jawRight", np.full(len(times), 0.10 * _positive(-manner.asymmetry)))
    # Rounded lips cannot smile or frown fully.
    spread = 1.0 - 0.5 * np.clip(speaking * x["pucker"], 0.0, 1.0)
    lips = strength * (1.0 - 0.45 * manner.jaw)
    for side, sign in (("Left", 1.0), ("Right", -1.0)):
        share = 1.0 + 0.40 * sign * manner.asymmetry
        put("mouthStretch" + side, strength * share * x["stretch"])
        put("mouthStretch" + side, np.full(len(times), 0.09 - 0.08 * manner.rounding))
        put("mouthSmile" + side, strength * share * x["smile"])
        put("mouthSmile" + side, share * spread * (0.20 + 0.19 * manner.smile))
        put("mouthFrown" + side, share * spread * (0.16 - 0.15 * manner.smile))
        put("mouthDimple" + side, strength * share * x["dimple"])
        put("mouthDimple" + side, share * spread * (0.12 + 0.11 * manner.smile))
        put("mouthPress" + side, firmness * share * x["press"] + 0.12 - 0.11 * manner.jaw)
        put("mouthLowerDown" + side, lips * share * x["lowerDown"])
        raised = lips * share * (1.0 + 0.35 * manner.smile) * x["upperUp"]
        put("mouthUpperUp" + side, raised)
        for name in ("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress"):
            put(name + side, share * spread * pose[:, rig.INDEX[name + side]])
        for name in ("mouthLowerDown", "mouthUpperUp"):
            put(name + side, share * speaking * pose[:, rig.INDEX[name + side]])
            # Where the lips are closed, reduce all channels that enter the aperture with the jaw.
            out[:, rig.INDEX[name + side]] *= 1.0 - shut
    done = ("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress",
            "mouthLowerDown", "mouthUpperUp")  # fmt: skip
    for i, name in enumerate(rig.CHANNELS):
        if not name.startswith(done):
            out[:, i] += pose[:, i]
    open_pair = [rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]]
    limited = _soft_limit(out[:, : len(rig.WEIGHT_CHANNELS)])
    # jawOpen is already limited and mouthClose is a share of it: limiting again parts the lips.
    limited[:, open_pair] = out[:, open_pair]
    out[:, : len(rig.WEIGHT_CHANNELS)] = limited
    return out
