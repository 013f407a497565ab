"""Postprocessing of motion: smoothing, gain and offset per channel, clipping to rig ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError, nearest


@dataclasses.dataclass(frozen=True)
class Adjustment:
    """Adjustments applied to predicted motion.

    Attributes:
      gain: [72] factors per channel.
      offset: [72] in rig units, added after the gain.
      smooth_ms: standard deviation of a Gaussian over time, in ms; 0 for none.
    """

    gain: np.ndarray = dataclasses.field(
        default_factory=lambda: np.ones(rig.NUM_CHANNELS, np.float32)
    )
    offset: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(rig.NUM_CHANNELS, np.float32)
    )
    smooth_ms: float = 0.0


Settings = Mapping[str, float] | Sequence[str]
"""Values by channel or group, or strings `name=value`"""


def adjustment(gains: Settings = (), offsets: Settings = (), smooth_ms: float = 0.0) -> Adjustment:
    """Builds an adjustment from settings per channel or per group of `rig.GROUPS`.

    Several settings of one channel multiply (gains) or add up (offsets).

    Example:
        >>> float(adjustment({"jawOpen": 1.5}).gain[rig.INDEX["jawOpen"]])
        1.5

    Raises:
      InputError: unknown name, not a finite number, a negative gain or smoothing over 500 ms.
    """
    result = Adjustment(smooth_ms=smooth_ms)
    if not 0 <= smooth_ms <= 500:
        raise InputError(f"smoothing {smooth_ms:g} ms: expected between 0 and 500")
    for text in _texts(gains):
        indices, value = _setting("gain", text)
        if value < 0:
            raise InputError(f"gain {text}: expected a factor of at least 0")
        result.gain[indices] *= value
    for text in _texts(offsets):
        indices, value = _setting("offset", text)
        result.offset[indices] += value
    return result


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
        sigma = settings.smooth_ms * rig.FPS / 1000
        self._reach = int(np.ceil(3 * sigma))
        taps = np.arange(-self._reach, self._reach + 1)
        self._taps = np.exp(-0.5 * (taps / sigma) ** 2) if self._reach else np.ones(1)
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
        weight = np.zeros((len(rows), 1))
        for shift, tap in zip(range(-self._reach, self._reach + 1), self._taps, strict=True):
            source = rows + shift
            inside = (source >= 0) & (source < len(self._pending))
            total[inside] += tap * self._pending[source[inside]]
            weight[inside] += tap
        drop = max(0, stop - self._reach)
        self._pending, self._done = self._pending[drop:], stop - drop
        out = (total / weight).astype(np.float32) * self._settings.gain + self._settings.offset
        return rig.clip(out).astype(np.float32)


def apply(motion: np.ndarray, settings: Adjustment) -> np.ndarray:
    """Returns motion [T, 72] adjusted and clipped to the ranges of the rig."""
    stage = Postprocess(settings)
    return np.concatenate([stage.push(motion), stage.finish()])
