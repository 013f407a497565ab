"""Input audio: files of any format and arrays at any rate, read as blocks of 16 kHz mono."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from a2fjax.audio import (
    HOP,
    SAMPLE_RATE,
    channels,
    findings,
    io,
    level,
    limits,
    measures,
    num_frames,
    sound_descriptor,
)
from a2fjax.errors import InputError

BLOCK_SECONDS = 10.0
"""Length of the blocks in seconds; a whole number of motion frames."""

Audio = str | Path | tuple[np.ndarray, float]
"""Path of an audio or video file, or (samples, rate in Hz)."""


class RecordingStats:
    """Statistics of a recording from a first pass in bounded memory.

    Attributes:
      samples: number of samples at 16 kHz.
      speech_level: RMS of the speech, equal to `level.speech_level` of the whole recording.
      low, high: [frames] smallest and largest sample of each motion frame, for plots.
      band_levels: [frames, bands] of `sound_descriptor.band_levels`.
    """

    def __init__(self, blocks: Iterable[np.ndarray]):
        """Reads all blocks; each except the last must hold a whole number of motion frames."""
        levels, bands, low, high = [], [], [], []
        self.samples = 0
        for block in blocks:
            # Ignore a final part shorter than a frame unless it is the only one.
            if len(block) >= HOP or not self.samples:
                levels.append(level.frame_levels(block))
            bands.append(sound_descriptor.band_levels(block))
            self.samples += len(block)
            starts = np.arange(0, len(block), HOP)
            low.append(np.minimum.reduceat(block, starts))
            high.append(np.maximum.reduceat(block, starts))
        self.speech_level = level.speech_level_of_frames(np.concatenate(levels))
        self.band_levels = np.concatenate(bands)
        self.low, self.high = np.concatenate(low), np.concatenate(high)

    @property
    def frames(self) -> int:
        """Number of motion frames that cover the recording."""
        return num_frames(self.samples)


class Recording:
    """A recording that can be read repeatedly from its start, one block at a time.

    Example:
        >>> recording = Recording((np.zeros(44_100), 44_100))
        >>> recording.stats.frames, [len(block) for block in recording.blocks()]
        (50, [16000])

    Attributes:
      name: file name without its folder; "audio" for arrays.
    """

    def __init__(self, audio: Audio) -> None:
        """Checks the audio; reads only the header of a file.

        Args:
          audio: path of a WAV, FLAC, OGG, MP3 or video file at any rate and with any number of
            channels, or a pair (samples [S] or [S, channels] float in [-1, 1], rate in Hz).

        Raises:
          InputError: another kind of file, fewer than two samples, samples that are not finite or
            not floating point, or a rate that is not positive.
        """
        if isinstance(audio, str | Path):
            self.name = Path(audio).name
            self._path: Path | None = Path(audio)
            io.info(audio)
        else:
            self.name = "audio"
            self._path = None
            self._given, self._rate = _checked(audio)
            self._choice = channels.choose([(self._rate, self._given)])
            self._samples = _mono_16_khz(self._choice.mix(self._given), self._rate)

    def blocks(self) -> Iterator[np.ndarray]:
        """Returns the samples [n] float32, 16 kHz mono, in blocks of `BLOCK_SECONDS`.

        Raises:
          InputError: the file is damaged; raised when iteration reaches the damaged part.
        """
        if self._path is not None:
            return io.blocks(self._path, BLOCK_SECONDS)
        size = round(BLOCK_SECONDS * SAMPLE_RATE)
        return (self._samples[i : i + size] for i in range(0, len(self._samples), size))

    @functools.cached_property
    def stats(self) -> RecordingStats:
        """Statistics of the whole recording, computed in one pass on first access."""
        return RecordingStats(self.blocks())

    @functools.cached_property
    def warnings(self) -> list[str]:
        """Lists sound faults that may spoil the prediction, one line each.

        Raises:
          InputError: as `blocks`.
        """
        if self._path is not None:
            return findings.warnings(measures.measure(self._path))
        return findings.warnings(measures.measure_pieces([(self._rate, self._given)], self._choice))


def _checked(audio: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
    """Returns (samples [S, channels] float32, rate in Hz) of a pair (samples, rate)."""
    try:
        given, rate = audio
        samples, rate = np.asarray(given), float(rate)
    except (TypeError, ValueError):
        raise InputError(
            "audio: expected a path or a pair (samples, rate), such as (samples, 48000)"
        ) from None
    if samples.ndim not in (1, 2) or len(samples) < 2 or 0 in samples.shape:
        raise InputError(
            f"audio has shape {samples.shape}, expected [samples] or [samples, channels]"
        )
    if not np.issubdtype(samples.dtype, np.floating):
        raise InputError(
            f"audio has type {samples.dtype}, expected floats in [-1, 1]; divide 16-bit samples by "
            "32768"
        )
    if not rate > 0:
        raise InputError(f"audio rate {rate:g}: expected samples a second, such as 48000")
    limits.check_rate(rate, "audio")
    if samples.ndim == 2 and samples.shape[1] > limits.MOST_CHANNELS:
        raise InputError(
            f"audio has shape {samples.shape}, expected [samples, channels] with at most "
            f"{limits.MOST_CHANNELS} channels; transpose it"
        )
    samples = samples.astype(np.float32).reshape(len(samples), -1)
    finite = np.isfinite(samples).all(axis=1)
    if not finite.all():
        raise InputError(
            f"audio: sample at {int(np.argmin(finite)) / rate:.4f} s is not a finite number"
        )
    return samples, rate


def _mono_16_khz(mono: np.ndarray, rate: float) -> np.ndarray:
    """Returns samples [S] at `rate` as float32 at 16 kHz."""
    import soxr

    samples = len(mono)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE).astype(np.float32)
    if len(mono) < 2:
        raise InputError(f"audio: is too short, {samples} samples at {rate:g} Hz")
    return mono
