"""Speech level of a recording, and normalisation to one level that does not amplify silence.

NumPy only, so that data workers import it without jax.
"""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP

TARGET = 0.1
"""RMS level of normalised speech: -20 dB of full scale."""

FLOOR = 10 ** (-50 / 20)
"""Lowest speech level: quieter speech is amplified as if it had this one (-50 dB of full scale)."""

INAUDIBLE = 10 ** (-100 / 20)
"""RMS of digital silence, below the resolution of 16 bits."""

CONTRAST = 10 ** (6 / 20)
"""Speech rises and falls by more than this; noise and hum stay within 6 dB."""

ENOUGH = 10
"""Frames of speech (0.2 s) from which its level counts in full."""

_ROWS = 1 << 14


def frame_levels(audio: np.ndarray) -> np.ndarray:
    """Returns the level of each whole 20 ms frame, with and without its low frequencies.

    The levels of a long recording are those of its blocks, concatenated, when every block but the
    last is a multiple of 20 ms.

    Args:
      audio: [samples] float, 16 kHz.

    Returns:
      [frames, 2] float64: the RMS about the frame's mean (a constant offset is not loudness), and
      the RMS of the first difference, which attenuates rumble. One row for a recording shorter than
      a frame, none for an empty one.

    Raises:
      ValueError: audio has another shape.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1:
        raise ValueError(f"audio has shape {audio.shape}, expected [samples]")
    size = min(HOP, len(audio))
    if not size:
        return np.zeros((0, 2))
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    out = np.zeros((len(frames), 2))
    for i in range(0, len(frames), _ROWS):
        rows = frames[i : i + _ROWS].astype(np.float64)
        out[i : i + _ROWS, 0] = rows.std(axis=1)
        if size > 1:
            out[i : i + _ROWS, 1] = np.sqrt(np.mean(np.diff(rows, axis=1) ** 2, axis=1))
    return out


def speech_level(audio: np.ndarray) -> float:
    """Returns the level of the speech in a recording, the divisor of `normalise`.

    Args:
      audio: [samples] float, 16 kHz, full scale 1.

    Returns:
      RMS of the loud parts of speech, at least `FLOOR`; see `speech_level_of_frames`.

    Example:
        >>> time_s = np.arange(16_000) / 16_000
        >>> envelope = np.clip(np.sin(2 * np.pi * 2 * time_s), 0, None)
        >>> voice = 0.3 * envelope * np.sin(2 * np.pi * 140 * time_s)
        >>> round(speech_level(voice), 2)
        0.21
        >>> normalised = normalise(voice, speech_level(voice))
        >>> round(speech_level(normalised), 2)
        0.1
    """
    return speech_level_of_frames(frame_levels(audio))


def speech_level_of_frames(levels: np.ndarray) -> float:
    """Returns the level of speech from `frame_levels`, for recordings that do not fit in memory.

    Speech frames are those whose differences are 6 dB or more above the noise floor (10th
    percentile of the frames that are not digital silence). The level is their 95th percentile, so
    neither pauses nor a knock count. A recording without speech frames keeps its level unless it is
    louder than `TARGET`: the result is at least `TARGET`. With less than 0.2 s of speech the two
    levels are mixed in dB.

    Args:
      levels: [frames, 2], linear.

    Returns:
      RMS, linear, at least `FLOOR`.
    """
    levels = np.asarray(levels, np.float64)
    levels = levels[levels[:, 0] > INAUDIBLE]
    if not len(levels):
        return TARGET
    audible, brisk = levels.T
    speech = audible[brisk > CONTRAST * np.percentile(brisk, 10)]
    share = min(1.0, len(speech) / ENOUGH)
    quiet = max(float(np.percentile(audible, 95)), TARGET)
    loud = max(float(np.percentile(speech, 95)), FLOOR) if len(speech) else quiet
    return float(loud**share * quiet ** (1 - share))


def normalise(audio: np.ndarray, speech_level: float) -> np.ndarray:
    """Returns audio of any shape as float32, scaled from `speech_level` to `TARGET`."""
    return np.asarray(audio, np.float32) * np.float32(TARGET / speech_level)
