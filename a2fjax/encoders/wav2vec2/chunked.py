"""wav2vec 2.0 on audio of any length, in overlapping windows of one size.

Windows limit attention and, in base architectures, the group norm, whose statistics cover the whole
audio. The statistics are therefore computed beforehand, so that only attention changes. Windows
overlap; frames near their ends are dropped and the rest is cross-faded.

Join error in 60 s of a synthetic voice with wav2vec 2.0 base and random weights, as a share of the
features' RMS about their mean over time (`join_error`: RMS, 99th percentile, maximum):

    window  overlap  statistics      rms    p99    max
    20 s    4 s      of the whole    0.035  0.040  0.042
    20 s    4 s      each its own    0.044  0.059  0.062
    20 s    0.5 s    of the whole    0.051  0.181  0.262
    10 s    2 s      of the whole    0.055  0.098  0.121

Random weights attend evenly to everything, so this is the effect of missing context rather than of
joins; with attention three times as sharp, at random positions, it is 0.27. Checkpoints, whose
attention is mostly local, may differ: measure them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.encoders.wav2vec2 import network
from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config
from a2fjax.encoders.wav2vec2.encoder import Wav2Vec2Encoder, apply_jit

WINDOW = 20.0
"""Length of a window in s."""

OVERLAP = 4.0
"""Overlap of neighbouring windows in s."""

_first = jax.jit(
    lambda config, params, values: network.channel_statistics(
        network.first_convolution(config, params, values)
    ),
    static_argnums=0,
)


def accumulate_statistics(
    config: Wav2Vec2Config, params: dict[str, Any], values: Array | np.ndarray, block: int
) -> network.Statistics | None:
    """Returns the group norm's statistics over audio of any length, computed in blocks.

    Args:
      config: architecture.
      params: parameters.
      values: [B, S] normalised audio.
      block: frames of the first convolution per block.

    Returns:
      Statistics of the whole audio (blocks are combined by the formula of Chan et al. 1983), None
      for architectures without a group norm.
    """
    if config.feat_extract_norm != "group":
        return None
    kernel, stride = config.conv_kernel[0], config.conv_stride[0]
    frames = config.frames(values.shape[1], 1)
    count, mean, square = 0, np.zeros(()), np.zeros(())
    for start in range(0, frames, block):
        more = min(block, frames - start)
        piece = values[:, start * stride : (start + more - 1) * stride + kernel]
        part = _first(config, params, piece)
        shift = np.asarray(part.mean, np.float64) - mean
        total = count + more
        square = square + more * np.asarray(part.variance, np.float64)
        square = square + shift**2 * count * more / total
        mean, count = mean + shift * more / total, total
    return network.Statistics(
        jnp.asarray(mean, jnp.float32), jnp.asarray(square / count, jnp.float32)
    )


def window_starts(frames: int, window: int, overlap: int) -> list[int]:
    """Returns the first frame of each window; the last one ends with the audio.

    Raises:
      ValueError: the overlap is not shorter than half a window.
    """
    if not 0 <= 2 * overlap < window:
        raise ValueError(f"overlap {overlap} must be under half of the window of {window} frames")
    if frames <= window:
        return [0]
    return [*range(0, frames - window, window - overlap), frames - window]


def _ramp(frames: int) -> np.ndarray:
    """Returns the weights of a window's first frames: 0 for a quarter, a rise, then 1."""
    position = (np.arange(frames) + 0.5) / max(frames, 1)
    return np.clip(2.0 * position - 0.5, 0.0, 1.0)


def encode_chunked(
    encoder: Wav2Vec2Encoder,
    params: dict[str, Any],
    audio: Array | np.ndarray,
    *,
    window: float = WINDOW,
    overlap: float = OVERLAP,
    layers: int | None = None,
    all_layers: bool = False,
    own_statistics: bool = False,
) -> np.ndarray:
    """Returns `Wav2Vec2Encoder.motion_features` of audio of any length.

    Memory on the device depends on the window only.

    Args:
      encoder: architecture and options.
      params: parameters.
      audio: [B, S] float, 16 kHz.
      window: length of a window in s; shorter audio is encoded at once.
      overlap: overlap of neighbouring windows in s, below half of the window.
      layers: see `Wav2Vec2Encoder.apply`.
      all_layers: whether to return all hidden states.
      own_statistics: whether each window has its own statistics of the group norm; to measure the
        effect of sharing them.

    Returns:
      [B, ceil(S / 320), D] float32, or with `all_layers` [N + 1, B, ceil(S / 320), D].

    Raises:
      ValueError: the overlap is not below half of the window, or audio is not [B, S].
    """
    values = np.asarray(encoder.align_to_motion(jnp.asarray(audio))[0])
    config = encoder.config
    frames = config.frames(values.shape[1])
    size, shared = round(window * rig.FPS), round(overlap * rig.FPS)
    starts = window_starts(frames, size, shared)
    size = min(size, frames)
    statistics = None
    if len(starts) > 1 and not own_statistics:
        statistics = accumulate_statistics(config, params, values, size * 64)

    out: np.ndarray | None = None
    for i, start in enumerate(starts):
        begin = start * config.hop
        piece = values[:, begin : begin + config.samples(size)]
        encoded = apply_jit(
            encoder, params, piece, statistics, layers=layers, all_layers=all_layers
        )
        states = np.asarray(encoded.hidden_states if all_layers else encoded.features)
        if out is None:
            out = np.zeros((*states.shape[:-2], frames, states.shape[-1]), np.float32)
            out[..., :size, :] = states
            continue
        # Neighbours share at least the overlap; the last two may share more.
        both = starts[i - 1] + size - start
        up = np.ones(size)
        up[:both] = _ramp(both)
        part = out[..., start : start + size, :]
        part += up[:, None].astype(np.float32) * (states - part)
    assert out is not None  # There is always a first window.
    return out


def join_error(whole: np.ndarray, joined: np.ndarray) -> dict[str, float]:
    """Measures how windows change features.

    Args:
      whole: [B, T, D] features of the whole audio.
      joined: those of `encode_chunked`.

    Returns:
      "rms", "p99" and "max" over frames of the RMS difference of a frame, as shares of the RMS of
      `whole` about its mean over time.
    """
    spread = np.sqrt(np.mean((whole - whole.mean(1, keepdims=True)) ** 2))
    error = np.sqrt(np.mean((joined - whole) ** 2, -1)) / spread
    return {
        "rms": float(np.sqrt(np.mean(error**2))),
        "p99": float(np.percentile(error, 99)),
        "max": float(error.max()),
    }
