"""Thresholds beyond which a take is quarantined; 0 switches one off."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from a2fjax.audio import findings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits of a take's measures; a take beyond one is quarantined, 0 disables a limit.

    Attributes:
      least_snr_db: signal-to-noise ratio of speech, dB.
      most_clipping: share of samples at the extreme values.
      most_silence: share of 20 ms frames without speech.
      least_band_hz: highest frequency in the audio, Hz, if certain.
      least_lip_correlation: correlation of lips and loudness, see `lips`.
      most_residual_mm: median over frames of the solver's residual, mm.
      most_lip_error: error of the lips over the take that its clock leaves, s, if certain.
      most_frozen: share of frames that repeat the one before.
      most_jumps: share of frames that jump.
      most_missing: share of frames that are missing or NaN.
      most_saturated: share of frames at the limit, for the worst channel.
    """

    least_snr_db: float = findings.LEAST_SNR_DB
    most_clipping: float = 0.01
    most_silence: float = findings.MOST_SILENCE
    least_band_hz: float = findings.LEAST_BAND_HZ
    least_lip_correlation: float = 0.0
    most_residual_mm: float = 3.0
    most_lip_error: float = 0.02
    most_frozen: float = 0.5
    most_jumps: float = 0.02
    most_missing: float = 0.3
    most_saturated: float = 0.5


def quarantine_reasons(measures: Mapping[str, Any], thresholds: Thresholds) -> list[str]:
    """Returns the reasons, as text, to quarantine a take; empty if there are none.

    Args:
      measures: a take's "audio", "motion", "lips" and "clock", each a dict as returned by the
        functions of this package; missing values and None are not checked.
      thresholds: the limits.

    Example:
        >>> quarantine_reasons({"motion": {"frozen": 0.7}}, Thresholds())
        ['share of frozen frames 0.7 is above 0.5 (most_frozen)']
    """
    sound, curves = measures.get("audio") or {}, measures.get("motion") or {}
    mouth, clock = measures.get("lips") or {}, measures.get("clock") or {}
    saturated = curves.get("saturated") or {}
    channel = max(sorted(saturated), key=lambda n: saturated[n], default="")
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
            "most_lip_error",
            clock.get("error"),
            "error of the lips' times",
            " s",
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
        reason
        for key, value, what, unit in values
        if (reason := _reason(key, value, what, unit, float(getattr(thresholds, key))))
    ]


def _reason(key: str, value: float | None, what: str, unit: str, limit: float) -> str:
    if value is None or not np.isfinite(value) or limit == 0:
        return ""
    shown = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    if key.startswith("least"):
        return f"{what} {shown}{unit} is below {limit:g} ({key})" if value < limit else ""
    return f"{what} {shown}{unit} is above {limit:g} ({key})" if value > limit else ""
