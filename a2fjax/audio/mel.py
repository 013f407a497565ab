"""Log-mel spectrogram in JAX: 80 bins, 50 frames per second.

Hann window of 640 samples (40 ms), hop 320, power spectrum of 1024 points, Slaney's mel scale with
triangles of equal area from 0 to 8 kHz. Frame t is the window centred on sample 320 * t, with zeros
outside the clip. It depends on `LOOKAHEAD` samples after its centre and `LOOKBACK` before it.

Sources: M. Slaney, "Auditory Toolbox", Interval Research Technical Report 1998-010 (scale and
filters, as librosa's default `htk=False, norm="slaney"`).
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax.audio import HOP, SAMPLE_RATE, num_frames

BINS = 80
WINDOW = 2 * HOP
FFT = 1024

LOOKAHEAD = HOP - 1
"""Last sample that frame t depends on, relative to its centre 320 * t."""

LOOKBACK = HOP - 1
"""First sample that frame t depends on, before its centre (the window is 0 at its start)."""

_LINEAR_STEP = 200.0 / 3.0  # Hz per mel below the break.
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27.0  # Natural log of frequency per mel above it.


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Converts Hz to mels of Slaney's scale: linear below 1 kHz, logarithmic above."""
    hz = np.asarray(hz, np.float64)
    above = _BREAK_HZ / _LINEAR_STEP + np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _LINEAR_STEP, above)


def mel_to_hz(mel: np.ndarray) -> np.ndarray:
    """Converts mels to Hz; the inverse of `hz_to_mel`."""
    mel = np.asarray(mel, np.float64)
    over = np.maximum(mel - _BREAK_HZ / _LINEAR_STEP, 0.0)
    return np.where(over > 0, _BREAK_HZ * np.exp(over * _LOG_STEP), mel * _LINEAR_STEP)


@functools.cache
def filterbank() -> np.ndarray:
    """Returns the weights [513, 80] float32 from power spectrum to mel bins, read-only."""
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(np.array(SAMPLE_RATE / 2)), BINS + 2))
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    weights = (triangles * 2.0 / (edges[2:] - edges[:-2])).astype(np.float32)
    weights.flags.writeable = False
    return weights


@functools.cache
def window() -> np.ndarray:
    """Returns the periodic Hann window [640] float32, read-only; it peaks at the frame's centre."""
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    hann.flags.writeable = False
    return hann


def white_noise_power(rms: float) -> np.ndarray:
    """Returns the expected power [80] of each mel bin for white noise of an RMS level."""
    energy = float(np.sum(window().astype(np.float64) ** 2))
    return rms**2 * energy * filterbank().astype(np.float64).sum(axis=0)


@jax.jit
def log_mel(audio: jax.Array, *, floor: float | jax.Array = 1e-10) -> jax.Array:
    """Returns the natural log of mel power with a soft floor: `log(mel + floor)`.

    Args:
      audio: [B, S] float, 16 kHz.
      floor: power added before the log: one value or [80].

    Returns:
      [B, T, 80] float32 with T = ceil(S / 320).

    Raises:
      ValueError: audio is not [B, S] with at least one sample.

    Example:
        >>> log_mel(jnp.zeros((1, 1600))).shape
        (1, 5, 80)
    """
    return log_mel_of_frames(frames(audio), floor)


def frames(audio: jax.Array) -> jax.Array:
    """Returns the frames [B, T, `WINDOW`] of audio [B, S], without the window's weights.

    Raises:
      ValueError: as `log_mel`.
    """
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise ValueError(f"audio has shape {audio.shape}, expected [batch, samples]")
    count = num_frames(audio.shape[1])
    # The window spans two hops, so frames are pairs of neighbouring blocks, without a gather.
    padded = jnp.pad(
        audio.astype(jnp.float32), ((0, 0), (HOP, count * HOP - audio.shape[1]))
    ).reshape(audio.shape[0], count + 1, HOP)
    return jnp.concatenate([padded[:, :-1], padded[:, 1:]], axis=-1)


def log_mel_of_frames(framed: jax.Array, floor: float | np.ndarray | jax.Array) -> jax.Array:
    """Returns the `log_mel` [..., 80] of frames [..., `WINDOW`], not yet windowed."""
    framed = framed * window()
    spectrum = jnp.fft.rfft(framed, n=FFT)
    power = spectrum.real**2 + spectrum.imag**2
    # HIGHEST: accelerators multiply float32 matrices with fewer bits by default.
    mel = jnp.matmul(power, jnp.asarray(filterbank()), precision=jax.lax.Precision.HIGHEST)
    return jnp.log(mel + floor)
