"""Log-mel of whole clips in NumPy: 40 bands, for baselines and for warping takes in time.

`audio.mel.log_mel` would compile a program for every length. Bands are pairs of its 80 bins.
"""

from __future__ import annotations

import functools

import numpy as np

from a2fjax.audio import HOP, level, mel
from a2fjax.data import records

BANDS = mel.BINS // 2
_FLOOR_DB = -60.0
_SPEECH_RMS = 0.1


def power(clip: records.Clip) -> np.ndarray:
    """Returns the power [T, 40] float32 of a clip at the level of the training."""
    return mel_power(level.normalise(clip.audio, clip.speech_level), clip.frames)


def log_mel(power: np.ndarray) -> np.ndarray:
    """Returns the natural log of a power [T, 40] above a floor 60 dB below speech."""
    return np.log(power + _floor())


def log_energy(power: np.ndarray) -> np.ndarray:
    """Returns [T, 1], the natural log of the power over all bands, with the same floor."""
    return np.log(power.sum(1, keepdims=True) + _floor().sum())


def mel_power(audio: np.ndarray, frames: int) -> np.ndarray:
    """Returns the power [frames, 40] of audio [S] at 16 kHz; frame t lies at sample 320 t."""
    padded = np.zeros((frames + 1) * HOP, np.float32)
    usable = min(len(audio), frames * HOP)
    padded[HOP : HOP + usable] = audio[:usable]
    blocks = padded.reshape(frames + 1, HOP)
    framed = np.concatenate([blocks[:-1], blocks[1:]], axis=1) * mel.window()
    spectrum = np.fft.rfft(framed, mel.FFT)
    squares = spectrum.real**2 + spectrum.imag**2
    return (squares @ mel.filterbank()).reshape(frames, BANDS, 2).sum(2)


def stacked(features: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """Stacks features [T, F] at t + each tap to [T, taps F], repeating the ends."""
    index = np.clip(np.arange(len(features))[:, None] + taps, 0, len(features) - 1)
    return features[index].reshape(len(features), -1)


@functools.cache
def _floor() -> np.ndarray:
    noise = mel.white_noise_power(_SPEECH_RMS * 10 ** (_FLOOR_DB / 20))
    return noise.reshape(BANDS, 2).sum(1)
