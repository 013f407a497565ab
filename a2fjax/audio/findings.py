"""Describes the faults of a recording, given its measures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

SEVERITIES = ("error", "warning", "note")
"""Spoils training; should be checked; good to know."""

LEAST_SNR_DB = 10.0
"""Signal-to-noise ratio in dB below which speech is hard to follow."""

MOST_SILENCE = 0.9
"""Share of frames without speech above which a recording is not one of speech."""

LEAST_BAND_HZ = 3000.0
"""Highest frequency in Hz below which consonants are missing."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One finding about one take, or about one recording.

    Attributes:
      key: the same for the same finding in other takes.
      severity: one of `SEVERITIES`.
      text: text for a single recording, such as "digital silence throughout".
      every: text for the dataset, to follow "n of m takes ".
    """

    key: str
    severity: str
    text: str
    every: str


def sound_findings(m: Mapping[str, Any]) -> list[Finding]:
    """Returns the findings about a recording, given its `measures.measure`; none without them."""
    out: list[Finding] = []
    if m.get("upsampled"):
        rate, limit = kilohertz(m["true_rate"]), kilohertz(round(m["band_hz"], -2))
        out.append(
            Finding(
                f"upsampled {rate}",
                "warning",
                f"nothing above {limit} kHz: {rate} kHz sound stored at {kilohertz(m['rate'])}",
                f"hold {rate} kHz sound stored at a higher rate: features above "
                f"{kilohertz(m['true_rate'] / 2)} kHz see nothing",
            )
        )
    if m.get("channels_why"):
        kind = "different speech" if len(m["channels_used"]) == m["channels"] else "chosen channels"
        every = {
            "different speech": "have channels with different speech, which are mixed",
            "chosen channels": "have sound channels without speech or of opposite polarity, which "
            "are not used",
        }[kind]
        out.append(Finding(kind, "warning", m["channels_why"], every))
    if m.get("hum_hz"):
        hum = f"{m['hum_hz']:g}"
        text = f"{hum} Hz hum, {m['hum_db']:.0f} dB above its surroundings"
        out.append(Finding(f"hum {hum}", "warning", text, f"have {hum} Hz mains hum"))
    if m.get("gated"):
        share = f"{100 * m['digital_silence']:.0f} % digital silence"
        every = "are gated (digital silence in the pauses): their noise in speech is not known"
        out.append(Finding("gated", "note", share, every))
    if (m.get("dc") or 0.0) > 0.005:
        out.append(
            Finding(
                "dc", "note", f"constant offset {m['dc']:.3f}", "have a constant offset in sound"
            )
        )
    if (m.get("clipping") or 0.0) > 0.0005:
        text = f"{100 * m['clipping']:.2g} % of samples clipped"
        out.append(Finding("clipping", "warning", text, "are clipped"))
    if m and m.get("speech_db") is None:
        out.append(Finding("silent", "error", "digital silence throughout", "hold no sound at all"))
    elif m and m["speech_db"] < -45:
        text = f"speech at {m['speech_db']:.0f} dB of full scale"
        out.append(Finding("quiet", "note", text, "are very quiet (speech below -45 dB)"))
    return out


def warnings(m: Mapping[str, Any]) -> list[str]:
    """Returns what a user should know before a recording drives a face, worst first.

    Args:
      m: result of `measures.measure`.

    Example:
        >>> warnings({"snr_db": 4.0, "snr_sure": True, "speech_db": -20.0})
        ['speech is 4 dB above the noise, expected 10 dB or more']
    """
    found = [f for f in sound_findings(m) if f.severity != "note"]
    out = [f.text for f in sorted(found, key=lambda f: SEVERITIES.index(f.severity))]
    if m.get("speech_db") is not None and (m.get("silence") or 0.0) > MOST_SILENCE:
        out.append(f"{100 * m['silence']:.0f} % is without speech")
    elif m.get("snr_db") is not None and m.get("snr_sure") and m["snr_db"] < LEAST_SNR_DB:
        out.append(
            f"speech is {m['snr_db']:.0f} dB above the noise, expected {LEAST_SNR_DB:g} dB or more"
        )
    if m.get("band_sure") and not m.get("upsampled") and (m.get("band_hz") or 1e9) < LEAST_BAND_HZ:
        out.append(f"nothing above {kilohertz(m['band_hz'])} kHz, where consonants are")
    return out


def kilohertz(hertz: float) -> str:
    """Returns a frequency in kHz with as few digits as needed: 22.05, 8, 4.4."""
    return f"{hertz / 1000:.4g}"
