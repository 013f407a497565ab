"""Whisper's log-mel spectrogram, 100 spectra a second."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP, SAMPLE_RATE, mel
from a2fjax.sharding import constraints

FFT = 400
MEL_HOP = HOP // 2
RANGE = 8.0
"""Decades of power below a window's loudest value that are distinguished."""

_LEAST_POWER = 1e-10


@functools.cache
def filterbank(bins: int = 80) -> np.ndarray:
    """Returns the Slaney weights [201, bins] float32 from power to mel bins, read-only."""
    edges = mel.mel_to_hz(np.linspace(0.0, mel.hz_to_mel(np.array(SAMPLE_RATE / 2)), bins + 2))
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, None]
    rising = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    weights = (triangles * 2.0 / (edges[2:] - edges[:-2])).astype(np.float32)
    weights.flags.writeable = False
    return weights


@functools.partial(jax.jit, static_argnames=("bins", "reflect_end", "peak"))
def log_mel(
    audio: Array,
    *,
    bins: int = 80,
    reflect_end: bool = False,
    valid: Array | None = None,
    peak: float | None = None,
) -> Array:
    """Returns Whisper's log-mel spectrogram: `(max(log10 mel, peak - 8) + 4) / 4`.

    Hann windows of 400 samples, hop 160; spectrum j is centred on sample 160 * j. As in the
    original, the first 200 samples are mirrored before the clip.

    Args:
      audio: [B, S] float, 16 kHz, S a multiple of 320.
      bins: mel bins.
      reflect_end: mirrors the last samples too, as the original does after 30 s; otherwise digital
        silence follows.
      valid: [B, S / 160] bool, spectra that may set the peak; all when None.
      peak: log10 of the mel power that counts as the loudest; None for each clip's own.

    Returns:
      [B, S / 160, bins] float32.

    Raises:
      ValueError: S is no multiple of 320, or 0.
    """
    batch, samples = audio.shape
    if not samples or samples % HOP:
        raise ValueError(f"audio has {samples} samples, expected a multiple of {HOP}")
    audio = jnp.pad(audio.astype(jnp.float32), ((0, 0), (FFT // 2, 0)), mode="reflect")
    after = FFT // 2 - MEL_HOP
    audio = jnp.pad(audio, ((0, 0), (0, after)), mode="reflect" if reflect_end else "constant")
    # Windows are five blocks of 80 samples and start every second block, without a gather.
    block = MEL_HOP // 2
    count = samples // MEL_HOP
    blocks = audio.reshape(batch, 2 * count + 3, block)
    framed = jnp.concatenate([blocks[:, i : i + 2 * count - 1 : 2] for i in range(5)], axis=-1)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    transform = constraints.per_example(functools.partial(jnp.fft.rfft, n=FFT))
    spectrum = transform(framed * hann.astype(np.float32))
    power = spectrum.real**2 + spectrum.imag**2
    weights = jnp.asarray(filterbank(bins))
    # HIGHEST: accelerators multiply float32 matrices with fewer bits by default.
    power = jnp.matmul(power, weights, precision=jax.lax.Precision.HIGHEST)
    log_power = jnp.log10(jnp.maximum(power, _LEAST_POWER))
    if peak is None:
        counted = log_power if valid is None else jnp.where(valid[..., None], log_power, -jnp.inf)
        loudest = counted.max(axis=(1, 2), keepdims=True)
    else:
        loudest = jnp.float32(peak)
    return (jnp.maximum(log_power, loudest - RANGE) + 4.0) / 4.0
