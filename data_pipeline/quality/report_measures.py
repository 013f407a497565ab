"""The measures that a quality report tabulates, with their labels, units and thresholds."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number measured for each take.

    Attributes:
      name: key in the report.
      path: path of keys inside a take; the last may be "*" for the largest of a dict's values.
      label, unit: label and unit in the report.
      threshold: name in `thresholds.Thresholds`, or "".
      share: whether the value is in [0, 1] and shown in percent.
    """

    name: str
    path: tuple[str, ...]
    label: str
    unit: str = ""
    threshold: str = ""
    share: bool = False

    def value(self, take: Mapping[str, Any]) -> float | None:
        """Returns the value for a take, or None."""
        value: Any = take
        for key in self.path:
            if not isinstance(value, Mapping):
                return None
            value = max(value.values(), default=0.0) if key == "*" else value.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
        return None


MEASURES = (
    Measure("snr_db", ("audio", "snr_db"), "signal to noise", "dB", "least_snr_db"),
    Measure("noise_db", ("audio", "noise_db"), "noise floor", "dB"),
    Measure("speech_db", ("audio", "speech_db"), "speech level", "dB"),
    Measure("clipping", ("audio", "clipping"), "clipped", "%", "most_clipping", True),
    Measure("silence", ("audio", "silence"), "silence", "%", "most_silence", True),
    Measure("band_hz", ("audio", "band_hz"), "band limit", "Hz", "least_band_hz"),
    Measure("lips", ("lips", "correlation"), "lips with sound", "", "least_lip_correlation"),
    Measure("offset", ("clock", "seconds"), "offset", "s"),
    Measure("drift", ("clock", "drift"), "drift", "s/s"),
    Measure("lip_error", ("clock", "error"), "error of the lips", "s", "most_lip_error"),
    Measure("sync_offset", ("sync", "seconds"), "sound late by", "s"),
    Measure("sync_low", ("sync", "low"), "at least", "s"),
    Measure("sync_high", ("sync", "high"), "at most", "s"),
    Measure("sync_confidence", ("sync", "confidence"), "confidence of that", ""),
    Measure("residual", ("motion", "residual_mm", "median"), "residual", "mm", "most_residual_mm"),
    Measure("frozen", ("motion", "frozen"), "frozen", "%", "most_frozen", True),
    Measure("jumps", ("motion", "jumps"), "jumps", "%", "most_jumps", True),
    Measure("missing", ("motion", "missing"), "missing", "%", "most_missing", True),
    Measure("saturated", ("motion", "saturated", "*"), "saturated", "%", "most_saturated", True),
    Measure("motion_noise", ("motion", "noise"), "motion noise", ""),
    Measure("fps", ("motion", "fps"), "frame rate", "fps"),
    Measure("seconds", ("seconds",), "length", "s"),
)
