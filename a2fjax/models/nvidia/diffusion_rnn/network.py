"""`diffusion_rnn`, the network of the v3.0 models: maps noisy motion and a step to clean motion.

Everything in `Network` and `resample` follows NVIDIA's source. The noise schedule (1,000 steps,
cosine) and the sampler are in `a2fjax.diffusion`.

    HuBERT-base's last hidden state, resampled to the motion's frames → linear → 256 ┐
    noisy frame: skin → 512, tongue → 20, jaw → 30, eyes → 8 → two linear layers → 285 │
    one-hot actor → linear → 32                                                        ├→ 861
    one-hot step → linear → Mish → 256                                                 │
    one-hot emotion → linear → 32                                                      ┘
    861 → two unidirectional GRU layers of 256 → a small head for each part + the actor's mean

Each part of a frame is (x - translate) / scale of that part and actor, and the prediction is the
clean frame in these units.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from a2fjax.models.nvidia.frame_layout import FrameLayout
from a2fjax.models.nvidia.layers import GRU, convolution, linear

ENCODER_LAYERS = 12
"""Number of HuBERT-base transformer layers; the last one's output is the feature."""

FROZEN_ENCODER = (r"^feature_extractor/", r"^feature_projection/", r"^encoder/layers/[01]/")
"""Patterns for `params.split` of the HuBERT weights that NVIDIA does not train.

The positional convolution and the norm between projection and first layer are trained, so the
gradient passes through the frozen layers; `encoders.wav2vec2.frozen_patterns` stops it before them.
"""


@dataclasses.dataclass(frozen=True)
class Size:
    """Widths of the network; the defaults are NVIDIA's.

    Attributes:
      layout: layout of a frame of motion.
      actors: number of actors in the one-hot identity.
      encoder_width: width of HuBERT's last hidden state.
      stack: number of feature frames concatenated per frame of motion: 1 at 60 frames per second, 2
        at 30, where features are resampled to 60. At 50 it is 1 [?]; NVIDIA does not use 50.
      explicit: number of emotions that a user can set.
      steps: number of diffusion steps.
      width: width of most layers.
      tongue_width: half the embedding width of a frame's tongue.
      jaw_width: half the embedding width of its jaw.
      eyes_width: half the embedding width of its eyes.
      emotion_width: width of the embedded emotion.
      actor_width: width of the embedded actor.
      recurrent_width: number of units per GRU layer.
      recurrent_layers: number of GRU layers.
      dropout: dropout rate between GRU layers in training.
    """

    layout: FrameLayout
    actors: int = 1
    encoder_width: int = 768
    stack: int = 1
    explicit: int = 10
    steps: int = 1000
    width: int = 256
    tongue_width: int = 10
    jaw_width: int = 15
    eyes_width: int = 4
    emotion_width: int = 32
    actor_width: int = 32
    recurrent_width: int = 256
    recurrent_layers: int = 2
    dropout: float = 0.3

    @property
    def fused(self) -> int:
        """Width of an embedded frame of motion."""
        widths = {
            "skin": self.width,
            "tongue": self.tongue_width,
            "jaw": self.jaw_width,
            "eyes": self.eyes_width,
        }
        return sum(widths[part] for part in self.layout.parts)


V3 = Size(FrameLayout(3 * 24_002, 3 * 5_602, 15, 4), actors=3)
"""Mark, Claire and James v3.0: 88,831 values per frame; 179,664,830 parameters with HuBERT."""


def resample(features: Array, feature_length: Array, length: Array, frames: int) -> Array:
    """Stretches features to the motion's frames by linear interpolation that keeps both ends.

    Args:
      features: [B, F, D].
      feature_length: [B] int, number of valid frames of `features`, at least 1.
      length: [B] int, number of frames that an item is stretched to, at least 1.
      frames: number of output frames T, at least the largest length.

    Returns:
      [B, T, D]; frames from `length` on repeat the last one. The result of an item does not depend
      on the other items.
    """
    gaps = jnp.maximum(length - 1, 1).astype(jnp.float32)
    ratio = jnp.where(length > 1, (feature_length - 1).astype(jnp.float32) / gaps, 0.0)
    last = (feature_length - 1)[:, None]
    position = jnp.arange(frames) * ratio[:, None]
    position = jnp.minimum(position, last.astype(jnp.float32))
    below = jnp.floor(position).astype(jnp.int32)
    above = jnp.minimum(below + 1, last)
    weight = (position - below)[..., None].astype(features.dtype)
    first = jnp.take_along_axis(features, below[..., None], axis=1)
    second = jnp.take_along_axis(features, above[..., None], axis=1)
    # Not a weighted sum of both: with a weight of 0, a NaN in the frame beyond must not matter.
    return first + weight * jnp.where(weight > 0, second - first, 0.0)


def stacked(features: Array, size: Size) -> Array:
    """Reshapes features [B, T * stack, D] to [B, T, stack * D], with neighbours side by side."""
    return features.reshape(features.shape[0], -1, size.stack * features.shape[-1])


class Head(nn.Module):
    """Linear → ReLU → linear, with the last layer initialised to zero.

    Attributes:
      depth: width of the input.
      hidden: width between the two linear layers.
      width: width of the output.
    """

    depth: int
    hidden: int
    width: int

    def setup(self) -> None:
        """Creates the layers."""
        self.linear_0 = linear(self.depth, self.hidden)
        self.linear_2 = linear(self.hidden, self.width, zero=True)

    def __call__(self, x: Array) -> Array:
        """Returns [..., width] for `x` [..., depth]."""
        return self.linear_2(jax.nn.relu(self.linear_0(x)))


class Smoothed(nn.Module):
    """Linear → a convolution of 9 along the *features* of a frame → ReLU.

    Attributes:
      depth: width of the input.
      width: width of the output.
      dtype: dtype of activations.
    """

    depth: int
    width: int
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.linear_0 = linear(self.depth, self.width, dtype=self.dtype)
        self.conv_1 = convolution(1, 1, 9, padding=4, dtype=self.dtype)

    def __call__(self, x: Array) -> Array:
        """Returns [..., width] for `x` [..., depth]."""
        return jax.nn.relu(self.conv_1(self.linear_0(x)[..., None])[..., 0])


class Layered(nn.Module):
    """Linear → ReLU → linear, and another ReLU if `closed`.

    Attributes:
      depth: width of the input.
      hidden: width between the two linear layers.
      width: width of the output.
      closed: append a ReLU.
      dtype: dtype of activations.
    """

    depth: int
    hidden: int
    width: int
    closed: bool
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        self.linear_0 = linear(self.depth, self.hidden, dtype=self.dtype)
        self.linear_2 = linear(self.hidden, self.width, dtype=self.dtype)

    def __call__(self, x: Array) -> Array:
        """Returns [..., width] for `x` [..., depth]."""
        x = self.linear_2(jax.nn.relu(self.linear_0(x)))
        return jax.nn.relu(x) if self.closed else x


class Network(nn.Module):
    """The network; see the module.

    Attributes:
      size: widths of the network.
      dtype: dtype of activations; parameters, the recurrent state and the heads are float32.
    """

    size: Size
    dtype: Any = jnp.float32

    def setup(self) -> None:
        """Creates the layers."""
        size, layout, dtype = self.size, self.size.layout, self.dtype
        self.proj_hubert = linear(size.encoder_width * size.stack, size.width, dtype=dtype)
        self.skin_embedding = Smoothed(layout.skin, 2 * size.width, dtype)
        if layout.tongue:
            self.tongue_embedding = Smoothed(layout.tongue, 2 * size.tongue_width, dtype)
        if layout.jaw:
            wide = 2 * size.jaw_width
            self.jaw_embedding = Layered(layout.jaw, wide, wide, True, dtype)
        if layout.eyes:
            wide = 2 * size.eyes_width
            self.eyes_embedding = Layered(layout.eyes, wide, wide, True, dtype)
        self.final = Layered(2 * size.fused, 2 * size.fused, size.fused, False, dtype)
        self.proj_time = linear(size.steps, size.width, dtype=dtype)
        self.embed_actor = linear(size.actors, size.actor_width, bias=False, dtype=dtype)
        self.embed_emo_vector = linear(size.explicit, size.emotion_width, bias=False, dtype=dtype)
        self.gru = GRU(size.recurrent_width, size.recurrent_layers, size.dropout, dtype)
        depth = size.recurrent_width
        self.final_layer_skin = Head(depth, 2 * depth, layout.skin)
        if layout.tongue:
            self.final_layer_tongue = Head(depth, 2 * depth, layout.tongue)
        if layout.jaw:
            self.final_layer_jaw = Head(depth, depth // 2, layout.jaw)
        if layout.eyes:
            self.final_layer_eyes = Head(depth, depth // 2, layout.eyes)

    def __call__(
        self,
        noisy: Array,
        step: Array,
        features: Array,
        actor: Array,
        emotion: Array,
        mean: Array,
        length: Array | None = None,
        state: Array | None = None,
        *,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Predicts the clean motion.

        Args:
          noisy: [B, T, D], noisy motion x_t.
          step: [B] int, step t in 0 ... steps - 1.
          features: [B, T, stack * encoder_width], from `resample` and `stacked`.
          actor: [B, actors], one-hot.
          emotion: [B, explicit] or [B, T, explicit]; zeros for neutral. Training uses one vector
            per item, streaming may use one per frame.
          mean: [actors, D], each actor's mean frame; constants, not learned.
          length: [B] int, valid frames; None for all.
          state: [recurrent_layers, B, recurrent_width] before the first frame, of the same step;
            None for zero.
          train: enables dropout.

        Returns:
          The prediction [B, T, D] float32, and the state after the last valid frame. A frame
          depends on itself, earlier ones, and the audio that `features` depend on.
        """
        batch, frames = noisy.shape[:2]
        if length is None:
            length = jnp.full(batch, frames)
        if emotion.ndim == 2:
            emotion = emotion[:, None]
        embedding = {
            part: getattr(self, f"{part}_embedding")(noisy[..., columns])
            for part, columns in self.size.layout.parts.items()
        }
        geometry = self.final(jnp.concatenate(list(embedding.values()), axis=-1))
        time = jax.nn.mish(self.proj_time(jax.nn.one_hot(step, self.size.steps)))
        tokens = [
            self.proj_hubert(features),
            geometry,
            self.embed_actor(actor)[:, None],
            time[:, None],
            self.embed_emo_vector(emotion),
        ]
        tokens = [jnp.broadcast_to(x, (batch, frames, x.shape[-1])) for x in tokens]
        hidden, state = self.gru(jnp.concatenate(tokens, axis=-1), length, state, train=train)
        parts = [getattr(self, f"final_layer_{part}")(hidden) for part in self.size.layout.parts]
        return jnp.concatenate(parts, axis=-1) + (actor @ mean)[:, None], state
