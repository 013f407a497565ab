"""`conv_w2v_autocorr`, the network of the v2.3 models: half a second of audio to one frame.

Known from NVIDIA's source: everything in `Network`, `autocorrelation` and `buffers`. A frame
depends on 8,320 samples (0.52 s) about its instant and on nothing else; there is no recurrence.

    features of the first N transformer layers of wav2vec 2.0, mixed   → linear → 256 ┐
    25 windows of 640 samples → 32 autocorrelations → 5 convolutions  → 256 ┴→ 512 a window
    25 windows → 4 convolutions of stride 2 in time (13, 7, 4, 2) → linear → 256
    emotion beside the channels after each of these → two linear maps → skin, jaw, eyes
                                                    → two linear maps → tongue

Ours is the second way in (`Network.track`): at 50 frames a second the windows of neighbouring
frames coincide, so a track is encoded once and each frame looks at the 25 windows about it. For
the autocorrelation this gives the same numbers as frame by frame; wav2vec 2.0 then hears the whole
track instead of half a second, which NVIDIA's models never did.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.audio import HOP
from a2fjax.models.nvidia.frame_layout import FrameLayout
from a2fjax.models.nvidia.layers import channel_noise, convolution, linear, norm_relu
from a2fjax.sharding import constraints

WINDOWS = 25
WINDOW = 2 * HOP
LAGS = 32
BUFFER = (WINDOWS + 1) * HOP
"""Samples that a frame sees, 8,320; its instant is in their middle."""

REACH = WINDOWS // 2
"""Windows before and after the one that is centred on a frame's instant."""

_TRANSFORM = 672  # At least WINDOW + LAGS - 1, and a product of small primes.

GAIN = 8.912028121636435
"""Brings audio whose peak is 1 to the size that the autocorrelation was scaled for."""

QUIET = 0.01
"""Largest peak that is taken for silence: such a track is not normalised."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of the network; the defaults are NVIDIA's.

    Attributes:
      layout: of a frame of the output.
      encoder_layers: transformer layers of wav2vec 2.0 whose features are mixed.
      encoder_width: of these features.
      implicit: width of the learned emotion of a training frame.
      explicit: emotions that a user names.
      explicit_width: what these are mapped to.
      width: of most layers.
      lag_widths: of the convolutions along the lags.
      phonemes: of each language whose phonemes are told from the features of wav2vec 2.0, which
        only training uses; the examples that NVIDIA ships have none.
    """

    layout: FrameLayout
    encoder_layers: int = 1
    encoder_width: int = 768
    implicit: int = 16
    explicit: int = 10
    explicit_width: int = 8
    width: int = 256
    lag_widths: tuple[int, int, int, int] = (72, 108, 162, 243)
    phonemes: tuple[int, ...] = ()


MARK = Size(FrameLayout(272, 10, 15, 4), encoder_layers=1)
"""Mark v2.3: 301 numbers a frame; 18,273,331 parameters with the encoder."""

CLAIRE = Size(FrameLayout(140, 10, 15, 4), encoder_layers=4)
"""Claire and James v2.3.1: 169 numbers a frame."""


def norm_factor(audio: np.ndarray) -> float:
    """Returns what a whole track [samples] is divided by: its peak, or 1 where that is silence."""
    peak = float(np.max(np.abs(audio), initial=0.0))
    return peak if peak > QUIET else 1.0


def buffers(audio: Array, centres: Array) -> Array:
    """Returns the 8,320 samples about each instant, zeros beyond the ends.

    Args:
      audio: [B, samples], 16 kHz.
      centres: [S] int, samples; NVIDIA's frame i at f frames a second is at (i + 0.5) / f s.

    Returns:
      [B, S, 8320].
    """
    index = centres[:, None] - BUFFER // 2 + jnp.arange(BUFFER)
    inside = (index >= 0) & (index < audio.shape[1])
    return jnp.where(inside, audio[:, jnp.clip(index, 0, audio.shape[1] - 1)], 0.0)


def autocorrelation(windows: Array) -> Array:
    """Returns the autocorrelation of windows, of which each is freed of its mean first.

    r_k = 1/640 * sum_n w_n w_(n+k) of w = (x - mean x) * Hann (symmetric), k = 0 to 31.

    Args:
      windows: [..., 640].

    Returns:
      [..., 32] float32.
    """
    windows = jnp.asarray(windows, jnp.float32)
    windows = windows - jnp.mean(windows, axis=-1, keepdims=True)
    windows = windows * np.hanning(WINDOW).astype(np.float32)
    # By Wiener-Khinchin; zeros behind a window keep its end away from its beginning.
    spectrum = jnp.fft.rfft(windows, _TRANSFORM)
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return jnp.fft.irfft(power, _TRANSFORM)[..., :LAGS] / WINDOW


def buffer_autocorrelation(audio: Array, factor: Array | None = None) -> Array:
    """Returns the network's input of frames that each bring their own audio.

    Args:
      audio: [B, S, 8320], of `buffers`.
      factor: [B], of `norm_factor`; None for 1. NVIDIA's exported models lack the division, so
        who calls them must have done it [?].

    Returns:
      [B, S, 25, 32].
    """
    hops = audio.reshape(*audio.shape[:-1], WINDOWS + 1, HOP)
    windows = jnp.concatenate([hops[..., :-1, :], hops[..., 1:, :]], axis=-1)
    return autocorrelation(_scaled(windows, factor))


def track_autocorrelation(audio: Array, factor: Array | None = None) -> Array:
    """Returns the autocorrelation of every window that the frames of a track see.

    Args:
      audio: [B, 320 * T], zeros beyond the end of an item.
      factor: [B], of `norm_factor`; None for 1.

    Returns:
      [B, T + 24, 32]; window i is centred on sample 320 * (i - 12), and frame t sees windows t to
      t + 24.
    """
    # A window reaches half its length beyond its centre.
    audio = jnp.pad(audio, ((0, 0), ((REACH + 1) * HOP, REACH * HOP)))
    hops = audio.reshape(audio.shape[0], -1, HOP)
    windows = _scaled(jnp.concatenate([hops[:, :-1], hops[:, 1:]], axis=-1), factor)
    return constraints.per_example(autocorrelation)(windows)


def _scaled(windows: Array, factor: Array | None) -> Array:
    if factor is None:
        return windows * GAIN
    return windows * (GAIN / factor).reshape(-1, *(1,) * (windows.ndim - 1))


class Network(nn.Module):
    """The network; see the module.

    Attributes:
      size: widths.
      dtype: of activations; parameters and the two heads are float32.
    """

    size: Size
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Makes the layers."""
        size, layout, dtype = self.size, self.size.layout, self.dtype
        width = size.width
        joint = width + size.implicit + size.explicit_width
        self.w2v_feature_coeffs = self.param(
            "w2v_feature_coeffs", nn.initializers.ones_init(), (size.encoder_layers,)
        )
        self.w2v_linear_mapping = linear(size.encoder_width, width, dtype=dtype)
        one, two, three, four = size.lag_widths
        halve = {"taps": 3, "stride": 2, "padding": 1, "dtype": dtype}
        self.freq1 = convolution(1, one, **halve)
        self.freq2 = convolution(one, two, **halve)
        self.freq3 = convolution(two, three, **halve)
        self.freq4 = convolution(three, four, **halve)
        self.freq5 = convolution(four, width, taps=2, padding=0, dtype=dtype)
        self.time1 = convolution(2 * width, width, **halve)
        self.time2 = convolution(joint, width, **halve)
        self.time3 = convolution(joint, width, **halve)
        self.time4 = convolution(joint, width, **halve)
        self.time5 = linear(2 * joint, width, dtype=dtype)
        rest = layout.width - layout.tongue
        self.linear_skin_jaw_eyes1 = linear(joint, rest)
        self.linear_skin_jaw_eyes2 = linear(rest, rest)
        if layout.tongue:
            self.linear_tongue1 = linear(joint, layout.tongue)
            self.linear_tongue2 = linear(layout.tongue, layout.tongue)
        self.linear_explicit_emo = linear(size.explicit, size.explicit_width)
        if size.phonemes:
            same = {"taps": 3, "padding": 1, "dtype": dtype}
            self.phoneme_conv1 = convolution(width, width, **same)
            self.phoneme_conv2 = convolution(width, width, **same)
            self.phoneme_regressors = [linear(width, count) for count in size.phonemes]

    def encode(
        self, lags: Array, features: Array, keys: tuple[Array | None, ...] = (None,) * 5
    ) -> Array:
        """Returns what the rest of the network sees of each window.

        Args:
          lags: [B, ..., 32] autocorrelation.
          features: [B, ..., encoder_layers, encoder_width] of the same windows.
          keys: of the noise after each of the five convolutions.

        Returns:
          [B, ..., 2 * width], first what wav2vec 2.0 heard.
        """
        mix = self.w2v_feature_coeffs / jnp.sum(self.w2v_feature_coeffs)
        mixed = jnp.einsum("...lc,l->...c", features, mix)
        heard = jax.nn.relu(self.w2v_linear_mapping(mixed))
        # Their noise on the autocorrelation itself is left out: divided by the root of its mean
        # square over the one channel there is, it is 1.
        x = lags[..., None]
        for conv, key in zip(
            (self.freq1, self.freq2, self.freq3, self.freq4, self.freq5), keys, strict=True
        ):
            x = channel_noise(key, norm_relu(conv(x)))
        return jnp.concatenate([heard, x[..., 0, :]], axis=-1)

    def decode(
        self,
        context: Array,
        implicit: Array,
        explicit: Array,
        keys: tuple[Array | None, ...] = (None,) * 4,
    ) -> Array:
        """Returns the frames [B, S, D] float32.

        Args:
          context: [B, S, 25, 2 * width], of `encode`.
          implicit: [B, S, implicit].
          explicit: [B, S, explicit].
          keys: of the noise after each of the four convolutions in time.
        """
        emotion = jnp.concatenate([implicit, self.linear_explicit_emo(explicit)], axis=-1)
        emotion = emotion.astype(self.dtype)
        x = context
        for conv, key in zip((self.time1, self.time2, self.time3, self.time4), keys, strict=True):
            x = channel_noise(key, norm_relu(conv(x)))
            beside = jnp.broadcast_to(emotion[..., None, :], (*x.shape[:-1], emotion.shape[-1]))
            x = jnp.concatenate([x, beside], axis=-1)
        # Their order is channel by channel, the two instants of each side by side.
        x = x.swapaxes(-1, -2).reshape(*x.shape[:2], -1)
        x = jnp.concatenate([norm_relu(self.time5(x)), emotion], axis=-1)
        rest = self.linear_skin_jaw_eyes2(self.linear_skin_jaw_eyes1(x))
        skin = self.size.layout.skin
        parts = [rest[..., :skin], rest[..., skin:]]
        if self.size.layout.tongue:
            parts.insert(1, self.linear_tongue2(self.linear_tongue1(x)))
        return jnp.concatenate(parts, axis=-1).astype(jnp.float32)

    def phonemes(
        self, context: Array, keys: tuple[Array | None, ...] = (None,) * 2
    ) -> tuple[Array, ...]:
        """Returns logits [B, S, 25, count] of the phonemes of each language; see `decode`."""
        x = context[..., : self.size.width]
        for conv, key in zip((self.phoneme_conv1, self.phoneme_conv2), keys, strict=True):
            x = channel_noise(key, norm_relu(conv(x)))
        return tuple(head(x) for head in self.phoneme_regressors)

    def __call__(
        self,
        lags: Array,
        features: Array,
        implicit: Array,
        explicit: Array,
        key: Array | None = None,
    ) -> dict[str, Any]:
        """Runs the network as NVIDIA does, on frames that each bring their windows.

        Args:
          lags: [B, S, 25, 32], of `buffer_autocorrelation`.
          features: [B, S, 25, encoder_layers, encoder_width]: of the S pieces of 8,320 samples,
            each encoded alone (not normalised: wav2vec 2.0 hears the audio as it is).
          implicit: [B, S, implicit]; learned, a vector a training frame (`implicit_emotions`).
          explicit: [B, S, explicit]; one-hot, zeros for neutral.
          key: of the noise; None when not training. The S frames of an item share its draws.

        Returns:
          "frames" [B, S, D]: skin, tongue, jaw, eyes; "phonemes": a tuple of logits
          [B, S, 25, count], empty without languages.
        """
        lag_keys, time_keys, phoneme_keys = _keys(key)
        context = self.encode(lags, features, lag_keys)
        spoken = self.phonemes(context, phoneme_keys) if self.size.phonemes else ()
        return {"frames": self.decode(context, implicit, explicit, time_keys), "phonemes": spoken}

    def track(
        self,
        lags: Array,
        features: Array,
        implicit: Array,
        explicit: Array,
        key: Array | None = None,
    ) -> dict[str, Any]:
        """Runs the network on the frames of a track at 50 frames a second.

        Args:
          lags: [B, T + 24, 32], of `track_autocorrelation`.
          features: [B, T + 24, encoder_layers, encoder_width], of the same windows: each centred
            on sample 320 * (i - 12) of the track.
          implicit: [B, T, implicit].
          explicit: [B, T, explicit].
          key: of the noise; None when not training.

        Returns:
          As `__call__`, with T frames.
        """
        lag_keys, time_keys, phoneme_keys = _keys(key)
        encoded = self.encode(lags, features, lag_keys)
        frames = jnp.arange(implicit.shape[1])
        context = encoded[:, frames[:, None] + jnp.arange(WINDOWS)]
        spoken = self.phonemes(context, phoneme_keys) if self.size.phonemes else ()
        return {"frames": self.decode(context, implicit, explicit, time_keys), "phonemes": spoken}


def _keys(key: Array | None) -> tuple[tuple[Array | None, ...], ...]:
    keys: list[Array | None] = [None] * 11 if key is None else list(jax.random.split(key, 11))
    return tuple(keys[:5]), tuple(keys[5:9]), tuple(keys[9:])


def implicit_emotions(key: Array, frames: int, width: int = 16) -> Array:
    """Returns the initial table [frames, width] of learned emotions: N(0, 0.01).

    A row is the emotion of one training frame, learned with the network and at its own rate; at
    run time the row of a frame that a user points at stands for all. It is not part of the network
    and not in its counts.
    """
    return 0.01 * jax.random.normal(key, (frames, width))
