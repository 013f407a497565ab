"""Augments training windows: level, filter, noise, speed, pauses and mirroring; NumPy only.

Audio and motion stay aligned: a change of timing applies to both. All randomness comes from the
generator that the caller passes, so a window is a function of (seed, index).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import scipy.fft

from a2fjax import rig
from a2fjax.audio import SAMPLE_RATE
from a2fjax.configuration import AugmentConfig
from a2fjax.data import noises, pauses
from a2fjax.data.windows import Window


def draw_speed(config: AugmentConfig, random: np.random.Generator) -> float:
    """Draws a playback speed, log-uniform within 1 +- `config.speed`."""
    draw = random.uniform(-1.0, 1.0)
    return float((1.0 + config.speed) ** draw) if config.enabled and config.speed else 1.0


def slowest(config: AugmentConfig) -> float:
    """Returns the factor by which the lowest speed of `draw_speed` lengthens a clip."""
    return 1.0 + config.speed if config.enabled else 1.0


def augment(
    window: Window,
    config: AugmentConfig,
    random: np.random.Generator,
    *,
    rest: np.ndarray | None = None,
) -> Window:
    """Applies every augmentation except speed, which `windows.cut` applies; modifies `window`.

    The order follows a recording: the performance (pause, mirror), the microphone (filter), the
    room (noise), the input level (gain).

    Args:
      window: a window from `windows.cut`.
      config: enables the augmentations. All random numbers are drawn in any case, so disabling
        one augmentation does not change the others.
      random: the only source of randomness.
      rest: `pauses.rest_pose` of the clip; None inserts no pause.
    """
    if not config.enabled:
        return window
    chance = random.random(3)
    pause_random, eq_random, noise_random, gain_random = random.spawn(4)
    if chance[0] < config.silence_prob and rest is not None:
        pauses.insert_pause(window, rest, pause_random)
    if chance[1] < config.mirror_prob:
        window.motion = rig.mirror(window.motion)
        window.channel_mask = window.channel_mask[rig.MIRROR_SOURCE]
        window.mirrored = True
    if config.eq_db > 0:
        window.audio = equalise(window.audio, config.eq_db, eq_random)
    if chance[2] < config.noise_prob:
        low, high = config.noise_snr_db
        noises.add_noise(window.audio, float(noise_random.uniform(low, high)), noise_random)
    if config.gain_db > 0:
        gain = 10 ** (gain_random.uniform(-config.gain_db, config.gain_db) / 20)
        window.audio *= np.float32(gain)
    window.audio[window.samples :] = 0.0
    return window


def mirror_points(points: np.ndarray) -> np.ndarray:
    """Returns identity points [P, 3 or 6] mirrored left to right, along the x axis."""
    return points * np.array([-1.0, 1.0, 1.0] * (points.shape[-1] // 3), np.float32)


@functools.cache
def _eq_basis(size: int) -> tuple[np.ndarray, int]:
    """Returns weights [controls, bins] that interpolate gains in dB, and the FFT length."""
    length = scipy.fft.next_fast_len(size + 1024, real=True)
    octave = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 60.0) / 60.0)
    centres = np.linspace(0.0, np.log2(8000.0 / 60.0), 7)
    width = centres[1] - centres[0]
    weights = np.exp(-0.5 * ((octave - centres[:, None]) / (0.7 * width)) ** 2)
    return (weights / weights.sum(axis=0)).astype(np.float32), length


def equalise(audio: np.ndarray, deviation_db: float, random: np.random.Generator) -> np.ndarray:
    """Returns audio [S] filtered by a random smooth equaliser without delay.

    Seven gains, a little over an octave apart, are drawn from a normal distribution with mean 0 dB
    and standard deviation `deviation_db`. The curve is smoothed between them, which lowers its
    deviation slightly. The filter has zero phase and so delays no frequency.
    """
    weights, length = _eq_basis(len(audio))
    gains = random.standard_normal(len(weights), dtype=np.float32)
    curve = (deviation_db * math.log(10) / 20 * gains) @ weights
    spectrum = scipy.fft.rfft(audio, length)
    spectrum *= np.exp(curve)
    return scipy.fft.irfft(spectrum, length)[: len(audio)]
