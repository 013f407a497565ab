"""Postprocessing of motion: smoothing, gain, offset and limits per channel, within rig ranges.

A file of adjustments is a JSON object by channel or group of `rig.GROUPS`; what it leaves out
stays as it is:

    {"jaw_mouth": {"gain": 1.1, "smooth_ms": 30},
     "jawOpen": {"offset": -0.02, "clamp": [0, 0.8]}}
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets, rig
from a2fjax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Adjustment:
    """Adjustments applied to predicted motion.

    Attributes:
      gain: [72] factors per channel.
      offset: [72] in rig units, added after the gain.
      smooth_ms: [72] standard deviation of a Gaussian over time, in ms; 0 for none.
      low, high: [72] limits in rig units, applied last.
    """

    gain: np.ndarray = dataclasses.field(
        default_factory=lambda: np.ones(rig.NUM_CHANNELS, np.float32)
    )
    offset: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(rig.NUM_CHANNELS, np.float32)
    )
    smooth_ms: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(rig.NUM_CHANNELS, np.float32)
    )
    low: np.ndarray = dataclasses.field(default_factory=rig.MIN.copy)
    high: np.ndarray = dataclasses.field(default_factory=rig.MAX.copy)


Settings = Mapping[str, float] | Sequence[str]
"""Values by channel or group, or strings `name=value`"""


Spec = str | Path | Mapping[str, Mapping[str, Any]]
"""A file of adjustments, or what is in one"""

_KEYS = ("gain", "offset", "clamp", "smooth_ms")
_MOST_SMOOTH = 500


def adjustment(
    gains: Settings = (),
    offsets: Settings = (),
    smooth_ms: float = 0.0,
    spec: Spec | None = None,
) -> Adjustment:
    """Builds an adjustment from settings per channel or per group of `rig.GROUPS`.

    Several settings of one channel multiply (gains) or add up (offsets); of several limits or
    smoothings, the last one of the file counts, and one of the file replaces `smooth_ms`.

    Example:
        >>> float(adjustment({"jawOpen": 1.5}).gain[rig.INDEX["jawOpen"]])
        1.5

    Raises:
      InputError: unknown name, not a finite number, a negative gain, smoothing over 500 ms, or a
        file that is no such JSON.
    """
    result = Adjustment()
    _smooth(result, rig.GROUPS["all"], smooth_ms, "smoothing")
    for text in _texts(gains):
        indices, value = _setting("gain", text)
        if value < 0:
            raise InputError(f"gain {text}: expected a factor of at least 0")
        result.gain[indices] *= value
    for text in _texts(offsets):
        indices, value = _setting("offset", text)
        result.offset[indices] += value
    if spec is not None:
        _apply_spec(result, spec)
    return result


def _smooth(result: Adjustment, indices: np.ndarray, milliseconds: float, where: str) -> None:
    if not 0 <= milliseconds <= _MOST_SMOOTH:
        raise InputError(f"{where} {milliseconds:g} ms: expected between 0 and {_MOST_SMOOTH}")
    result.smooth_ms[indices] = milliseconds


def _apply_spec(result: Adjustment, spec: Spec) -> None:
    name, data = "adjust", spec
    if isinstance(spec, str | Path):
        name, data = str(spec), budgets.parse_json(budgets.read_bytes(spec), name=str(spec))
    if not isinstance(data, Mapping) or not all(isinstance(v, Mapping) for v in data.values()):
        raise InputError(
            f'{name}: expected adjustments by channel, such as {{"jawOpen": {{"gain": 1.2}}}}'
        )
    for channel, values in data.items():
        indices = channels(str(channel), where=name)
        for key, value in values.items():
            where = f"{name}: {channel}.{key}"
            if key not in _KEYS:
                raise InputError(f"{where}: unknown{nearest(str(key), _KEYS)}")
            if key == "clamp":
                pair = value if isinstance(value, Sequence) and len(value) == 2 else (None, None)
                low, high = (_number(where, v, "[low, high]") for v in pair)
                if low > high:
                    raise InputError(f"{where}: {low:g} is above {high:g}")
                result.low[indices] = np.maximum(low, rig.MIN[indices])
                result.high[indices] = np.minimum(high, rig.MAX[indices])
                if (result.low > result.high).any():
                    raise InputError(f"{where}: outside the channel's range")
            elif key == "smooth_ms":
                _smooth(result, indices, _number(where, value, "milliseconds"), where)
            elif key == "gain":
                factor = _number(where, value, "a factor")
                if factor < 0:
                    raise InputError(f"{where}: expected a factor of at least 0")
                result.gain[indices] *= factor
            else:
                result.offset[indices] += _number(where, value, "a number")


def _number(where: str, value: Any, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{where}: {str(value)[:40]!r}: expected {expected}")
    return float(value)


def _texts(settings: Settings) -> Sequence[str]:
    if isinstance(settings, Mapping):
        return [f"{name}={value}" for name, value in settings.items()]
    return settings


def _setting(kind: str, text: str) -> tuple[np.ndarray, float]:
    name, _, number = text.partition("=")
    name = name.strip()
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{kind} {text!r}: expected name=number, such as jawOpen=1.2")
    return channels(name, where=f"{kind} {text!r}"), value


def channels(name: str, *, where: str) -> np.ndarray:
    """Returns the channel indices of a channel name or a group of `rig.GROUPS`.

    Raises:
      InputError: unknown name; the message names the nearest choice after `where`.
    """
    if name in rig.GROUPS:
        return rig.GROUPS[name]
    try:
        return np.array([rig.channel_index(name)])
    except InputError:
        choices = [*rig.GROUPS, *rig.CHANNELS]
        raise InputError(
            f"{where}: unknown channel or group {name!r}{nearest(name, choices)}"
        ) from None


class Postprocess:
    """Applies an `Adjustment` to motion in blocks; the result does not depend on block sizes.

    Smoothing near the first and last frame uses the available frames only, so a constant curve
    stays constant.
    """

    def __init__(self, settings: Adjustment):
        """Starts at frame 0."""
        self._settings = settings
        sigma = settings.smooth_ms.astype(np.float64) * rig.FPS / 1000
        reach = np.ceil(3 * sigma).astype(int)
        self._reach = int(reach.max())
        taps = np.arange(-self._reach, self._reach + 1)[:, None]
        # Each channel reaches as far as its own Gaussian, and without one it stays as it is.
        self._taps = np.exp(-0.5 * (taps / np.maximum(sigma, 1e-9)) ** 2) * (np.abs(taps) <= reach)
        self._pending = np.zeros((0, rig.NUM_CHANNELS), np.float32)
        self._done = 0  # Frames of `_pending` already returned and kept as context.

    def push(self, motion: np.ndarray) -> np.ndarray:
        """Adds [N, 72] frames and returns the [M, 72] frames they complete."""
        self._pending = np.concatenate([self._pending, np.asarray(motion, np.float32)])
        return self._emit(len(self._pending) - self._reach)

    def finish(self) -> np.ndarray:
        """Returns the remaining frames."""
        return self._emit(len(self._pending))

    def _emit(self, stop: int) -> np.ndarray:
        if stop <= self._done:
            return np.zeros((0, rig.NUM_CHANNELS), np.float32)
        rows = np.arange(self._done, stop)
        total = np.zeros((len(rows), rig.NUM_CHANNELS))
        weight = np.zeros((len(rows), rig.NUM_CHANNELS))
        for shift, tap in zip(range(-self._reach, self._reach + 1), self._taps, strict=True):
            source = rows + shift
            inside = (source >= 0) & (source < len(self._pending))
            total[inside] += tap * self._pending[source[inside]]
            weight[inside] += tap
        drop = max(0, stop - self._reach)
        self._pending, self._done = self._pending[drop:], stop - drop
        out = (total / weight).astype(np.float32) * self._settings.gain + self._settings.offset
        return np.clip(out, self._settings.low, self._settings.high).astype(np.float32)


def apply(motion: np.ndarray, settings: Adjustment) -> np.ndarray:
    """Returns motion [T, 72] adjusted and clipped to the ranges of the rig."""
    stage = Postprocess(settings)
    return np.concatenate([stage.push(motion), stage.finish()])
