"""Audio of any length through Whisper's encoder, in overlapping windows."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP, SAMPLE_RATE, num_frames
from a2fjax.encoders.param_paths import Params
from a2fjax.encoders.whisper.encoder import WhisperEncoder
from a2fjax.errors import InputError

_STEP = 100  # Frames between the lengths that `encode_chunked` compiles.


def encode_chunked(
    encoder: WhisperEncoder,
    params: Params,
    audio: np.ndarray,
    *,
    window_s: float = 30.0,
    overlap_s: float = 4.0,
    layers: int | None = None,
    all_layers: bool = False,
    dtype: Any = jnp.float32,
) -> np.ndarray:
    """Returns the features of audio of any length.

    Audio longer than a window is encoded in overlapping windows of equal length; the last one ends
    with the audio. They are cross-faded over at most 0.2 s in the middle of an overlap; before and
    after, the window with more context counts.

    Args:
      encoder: of `load`.
      params: parameters.
      audio: [B, S] float, 16 kHz.
      window_s: length of a window in s, at most 30.
      overlap_s: overlap of neighbouring windows in s, below half of a window.
      layers: see `WhisperEncoder.apply`.
      all_layers: see `WhisperEncoder.apply`.
      dtype: see `WhisperEncoder.apply`.

    Returns:
      [B, T, D] float32, or [layers + 1, B, T, D]; see `WhisperEncoder.apply`.

    Raises:
      InputError: a window above 30 s, or an overlap that is not within 0 to half of it.
    """
    audio = np.asarray(audio, np.float32)
    longest = encoder.positions / (SAMPLE_RATE / HOP)
    window, overlap = (round(s * SAMPLE_RATE / HOP) for s in (window_s, overlap_s))
    if not 1 <= window <= encoder.positions:
        raise InputError(f"window_s={window_s}: expected above 0 to {longest:g} s")
    if not 0 <= 2 * overlap < window:
        raise InputError(f"overlap_s={overlap_s}: expected 0 to below half of {window_s:g} s")
    run = functools.partial(
        apply_jit, encoder, params, layers=layers, all_layers=all_layers, dtype=dtype
    )
    frames = num_frames(audio.shape[1])
    if frames <= window:
        # Silence up to one of a few compiled lengths; `length` masks it.
        room = min(window, -(-frames // _STEP) * _STEP)
        if encoder.pad:
            room = window
        samples = np.full(len(audio), audio.shape[1], np.int32)
        audio = np.pad(audio, ((0, 0), (0, room * HOP - audio.shape[1])))
        length = None if room == frames else samples
        return np.asarray(run(audio, length=length))[..., :frames, :]
    audio = np.pad(audio, ((0, 0), (0, frames * HOP - audio.shape[1])))
    starts = [*range(0, frames - window, window - overlap), frames - window]
    out: np.ndarray | None = None
    for first, second in zip([None, *starts], starts, strict=False):
        states = np.asarray(run(audio[:, second * HOP : (second + window) * HOP]))
        if out is None:
            out = np.zeros((*states.shape[:-2], frames, states.shape[-1]), np.float32)
            out[..., :window, :] = states
            continue
        assert first is not None
        shared = first + window - second
        share = _ramp(shared)[:, None]
        before = out[..., second : first + window, :]
        out[..., second : first + window, :] = (1 - share) * before + share * states[
            ..., :shared, :
        ]
        out[..., first + window : second + window, :] = states[..., shared:, :]
    assert out is not None
    return out


def _ramp(frames: int, most: int = 10) -> np.ndarray:
    """Returns the weights [frames] of the later window: 0, a rise in the middle, 1."""
    fade = max(1, min(frames, most))
    return np.clip((np.arange(frames) + 0.5 - (frames - fade) / 2) / fade, 0.0, 1.0).astype("f4")


@functools.partial(
    jax.jit, static_argnums=0, static_argnames=("layers", "all_layers", "dtype", "remat")
)
def apply_jit(encoder: WhisperEncoder, params: Params, audio: Array, **options: Any) -> Array:
    """Calls `WhisperEncoder.apply`, compiled."""
    return encoder.apply(params, audio, **options)
