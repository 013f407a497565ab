"""`conv_w2v_autocorr`, the network of the v2.3 models: maps half a second of audio to a frame.

Everything in `Network` and `autocorrelation` follows NVIDIA's source. A frame depends only on the
8,320 samples (0.52 s) around its time; there is no recurrence.

    features of the first N transformer layers of wav2vec 2.0, mixed   → linear → 256 ┐
    25 windows of 640 samples → 32 autocorrelations → 5 convolutions  → 256 ┴→ 512 a window
    25 windows → 4 convolutions of stride 2 in time (13, 7, 4, 2) → linear → 256
    emotion concatenated after each of these → two linear maps → skin, jaw, eyes
                                                    → two linear maps → tongue

`Network.track` is specific to this package: at 50 frames per second the windows of neighbouring
frames coincide, so a track is encoded once and each frame uses the 25 windows around it. For the
autocorrelation, the result equals that of frame-by-frame computation; wav2vec 2.0, however, reads
the whole track instead of half a second, unlike in NVIDIA's models.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.models.nvidia.conv_w2v_autocorr.autocorrelation import WINDOWS
from a2fjax.models.nvidia.frame_layout import FrameLayout
from a2fjax.models.nvidia.layers import ChannelNoise, convolution, linear, norm_relu


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of the network; the defaults are NVIDIA's.

    Attributes:
      layout: layout of an output frame.
      encoder_layers: number of wav2vec 2.0 transformer layers whose features are mixed.
      encoder_width: width of these features.
      implicit: width of the learned emotion of a training frame.
      explicit: number of emotions that a user can set.
      explicit_width: width of their embedding.
      width: width of most layers.
      lag_widths: widths of the convolutions along the lags.
      phonemes: number of phonemes per language classified from the features of wav2vec 2.0, used
        only in training; NVIDIA's examples have none.
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
"""Mark v2.3: 301 values per frame; 18,273,331 parameters including the encoder."""

CLAIRE = Size(FrameLayout(140, 10, 15, 4), encoder_layers=4)
"""Claire and James v2.3.1: 169 values per frame."""


class Network(nn.Module):
    """The network; see the module.

    Attributes:
      size: widths of the network.
      dtype: dtype of activations; parameters and the two heads are float32.
    """

    size: Size
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        size, layout, dtype = self.size, self.size.layout, self.dtype
        self.noise = ChannelNoise()
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

    def encode(self, lags: Array, features: Array, *, train: bool = False) -> Array:
        """Encodes windows to the context vectors that the rest of the network uses.

        Args:
          lags: [B, ..., 32] autocorrelation.
          features: [B, ..., encoder_layers, encoder_width] of the same windows.
          train: enables channel noise.

        Returns:
          [B, ..., 2 * width]: first the part from wav2vec 2.0, then the part from the
          autocorrelation.
        """
        mix = self.w2v_feature_coeffs / jnp.sum(self.w2v_feature_coeffs)
        mixed = jnp.einsum("...lc,l->...c", features, mix)
        speech = jax.nn.relu(self.w2v_linear_mapping(mixed))
        # NVIDIA's noise on the autocorrelation itself is omitted: normalised by its root mean
        # square over the single channel, it is 1.
        x = lags[..., None]
        for conv in (self.freq1, self.freq2, self.freq3, self.freq4, self.freq5):
            x = self.noise(norm_relu(conv(x)), train=train)
        return jnp.concatenate([speech, x[..., 0, :]], axis=-1)

    def decode(
        self, context: Array, implicit: Array, explicit: Array, *, train: bool = False
    ) -> Array:
        """Decodes context vectors to frames [B, S, D] float32.

        Args:
          context: [B, S, 25, 2 * width], from `encode`.
          implicit: [B, S, implicit].
          explicit: [B, S, explicit].
          train: enables channel noise.
        """
        emotion = jnp.concatenate([implicit, self.linear_explicit_emo(explicit)], axis=-1)
        emotion = emotion.astype(self.dtype)
        x = context
        for conv in (self.time1, self.time2, self.time3, self.time4):
            x = self.noise(norm_relu(conv(x)), train=train)
            beside = jnp.broadcast_to(emotion[..., None, :], (*x.shape[:-1], emotion.shape[-1]))
            x = jnp.concatenate([x, beside], axis=-1)
        # NVIDIA orders values by channel, with the two time steps of each side by side.
        x = x.swapaxes(-1, -2).reshape(*x.shape[:2], -1)
        x = jnp.concatenate([norm_relu(self.time5(x)), emotion], axis=-1)
        rest = self.linear_skin_jaw_eyes2(self.linear_skin_jaw_eyes1(x))
        skin = self.size.layout.skin
        parts = [rest[..., :skin], rest[..., skin:]]
        if self.size.layout.tongue:
            parts.insert(1, self.linear_tongue2(self.linear_tongue1(x)))
        return jnp.concatenate(parts, axis=-1).astype(jnp.float32)

    def phonemes(self, context: Array, *, train: bool = False) -> tuple[Array, ...]:
        """Returns phoneme logits [B, S, 25, count] of each language; see `decode`."""
        x = context[..., : self.size.width]
        for conv in (self.phoneme_conv1, self.phoneme_conv2):
            x = self.noise(norm_relu(conv(x)), train=train)
        return tuple(head(x) for head in self.phoneme_regressors)

    def __call__(
        self,
        lags: Array,
        features: Array,
        implicit: Array,
        explicit: Array,
        *,
        train: bool = False,
    ) -> dict[str, Any]:
        """Runs the network as NVIDIA does, on frames with separate windows.

        Args:
          lags: [B, S, 25, 32], from `buffer_autocorrelation`.
          features: [B, S, 25, encoder_layers, encoder_width], features of the S pieces of 8,320
            samples, each encoded separately (without normalisation: wav2vec 2.0 reads the original
            audio).
          implicit: [B, S, implicit], learned; one vector per training frame (`implicit_emotions`).
          explicit: [B, S, explicit], one-hot; zeros for neutral.
          train: enables channel noise. The S frames of an item share its draws.

        Returns:
          "frames" [B, S, D]: skin, tongue, jaw, eyes; "phonemes": a tuple of logits
          [B, S, 25, count], empty without languages.
        """
        context = self.encode(lags, features, train=train)
        return self._outputs(context, implicit, explicit, train)

    def track(
        self,
        lags: Array,
        features: Array,
        implicit: Array,
        explicit: Array,
        *,
        train: bool = False,
    ) -> dict[str, Any]:
        """Runs the network on the frames of a track at 50 frames per second.

        Args:
          lags: [B, T + 24, 32], from `track_autocorrelation`.
          features: [B, T + 24, encoder_layers, encoder_width] of the same windows, with window i
            centred on sample 320 * (i - 12) of the track.
          implicit: [B, T, implicit].
          explicit: [B, T, explicit].
          train: enables channel noise.

        Returns:
          As for `__call__`, with T frames.
        """
        encoded = self.encode(lags, features, train=train)
        frames = jnp.arange(implicit.shape[1])
        context = encoded[:, frames[:, None] + jnp.arange(WINDOWS)]
        return self._outputs(context, implicit, explicit, train)

    def _outputs(
        self, context: Array, implicit: Array, explicit: Array, train: bool
    ) -> dict[str, Any]:
        phonemes = self.phonemes(context, train=train) if self.size.phonemes else ()
        frames = self.decode(context, implicit, explicit, train=train)
        return {"frames": frames, "phonemes": phonemes}


def implicit_emotions(key: Array, frames: int, width: int = 16) -> Array:
    """Returns the initial table [frames, width] of learned emotions: N(0, 0.01).

    A row is the emotion of one training frame, learned jointly with the network at a separate
    learning rate; at inference, the row of a user-selected frame applies to all frames. The table
    is not part of the network or its parameter count.
    """
    return 0.01 * jax.random.normal(key, (frames, width))
