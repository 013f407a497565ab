"""Autocorrelation of audio windows, the second input of `conv_w2v_autocorr`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP
from a2fjax.sharding import constraints

WINDOWS = 25
WINDOW = 2 * HOP
LAGS = 32
BUFFER = (WINDOWS + 1) * HOP
"""Number of samples that a frame depends on, 8,320, centred on its time."""

REACH = WINDOWS // 2
"""Number of windows before and after the window centred on a frame's time."""

_TRANSFORM = 672  # At least WINDOW + LAGS - 1, with small prime factors.

GAIN = 8.912028121636435
"""Factor from audio with a peak of 1 to the level that the network was trained with."""

QUIET = 0.01
"""Largest peak of a silent track, which is not normalised."""


def norm_factor(audio: np.ndarray) -> float:
    """Returns the normalisation divisor of a track [samples]: its peak, or 1 for silence.

    Example:
        >>> norm_factor(np.array([0.1, -0.5]))
        0.5
    """
    peak = float(np.max(np.abs(audio), initial=0.0))
    return peak if peak > QUIET else 1.0


def buffers(audio: Array, centres: Array) -> Array:
    """Returns the 8,320 samples around each centre, with zeros beyond the ends.

    Args:
      audio: [B, samples], 16 kHz.
      centres: [S] int, samples; NVIDIA's frame i at f frames per second lies at (i + 0.5) / f s.

    Returns:
      [B, S, 8320].
    """
    index = centres[:, None] - BUFFER // 2 + jnp.arange(BUFFER)
    inside = (index >= 0) & (index < audio.shape[1])
    return jnp.where(inside, audio[:, jnp.clip(index, 0, audio.shape[1] - 1)], 0.0)


def autocorrelation(windows: Array) -> Array:
    """Computes the autocorrelation of windows after subtracting their means.

    r_k = 1/640 * sum_n w_n w_(n+k) with w = (x - mean x) * Hann (symmetric), k = 0 to 31.

    Args:
      windows: [..., 640].

    Returns:
      [..., 32] float32.
    """
    windows = jnp.asarray(windows, jnp.float32)
    windows = windows - jnp.mean(windows, axis=-1, keepdims=True)
    windows = windows * np.hanning(WINDOW).astype(np.float32)
    # Uses the Wiener-Khinchin theorem; zero padding prevents circular wrap-around.
    spectrum = jnp.fft.rfft(windows, _TRANSFORM)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.fft.irfft(power, _TRANSFORM)[..., :LAGS] / WINDOW


def buffer_autocorrelation(audio: Array, factor: Array | None = None) -> Array:
    """Returns the network's input for frames with separate audio buffers.

    Args:
      audio: [B, S, 8320], from `buffers`.
      factor: [B], from `norm_factor`; None for 1. NVIDIA's exported models lack the division, so
        presumably their callers perform it [?].

    Returns:
      [B, S, 25, 32].
    """
    hops = audio.reshape(*audio.shape[:-1], WINDOWS + 1, HOP)
    windows = jnp.concatenate([hops[..., :-1, :], hops[..., 1:, :]], axis=-1)
    return autocorrelation(_scaled(windows, factor))


def track_autocorrelation(audio: Array, factor: Array | None = None) -> Array:
    """Returns the autocorrelation of every window that the frames of a track depend on.

    Args:
      audio: [B, 320 * T], zeros beyond the end of an item.
      factor: [B], from `norm_factor`; None for 1.

    Returns:
      [B, T + 24, 32]; window i is centred on sample 320 * (i - 12), and frame t uses windows t to t
      + 24.
    """
    # A window extends half its length beyond its centre.
    audio = jnp.pad(audio, ((0, 0), ((REACH + 1) * HOP, REACH * HOP)))
    hops = audio.reshape(audio.shape[0], -1, HOP)
    windows = _scaled(jnp.concatenate([hops[:, :-1], hops[:, 1:]], axis=-1), factor)
    return constraints.per_example(autocorrelation)(windows)


def _scaled(windows: Array, factor: Array | None) -> Array:
    if factor is None:
        return windows * GAIN
    return windows * (GAIN / factor).reshape(-1, *(1,) * (windows.ndim - 1))
