"""The regression model for live audio: causal, with a look-ahead that is chosen at run time.

A frame's motion depends on the past and on L frames of audio after it. Only the first convolution
hears them: its kernel has a tap for each frame up to the longest look-ahead, and a shorter one
leaves out the last taps. Everything behind it is causal, so one set of weights serves every
look-ahead; L enters as a condition as well. `a2fjax.streaming.step` computes the same network frame
by frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.audio.live_features import LiveFeatures
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, StreamingConfig
from a2fjax.errors import InputError
from a2fjax.models import conditioning
from a2fjax.models.audio_model import AudioModel
from a2fjax.models.backbone import channel_dropout, frames_per_layer
from a2fjax.models.condition_embeddings import embed_conditions
from a2fjax.models.gru import GRU
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.regression import default_constants
from a2fjax.models.rngs import streams
from a2fjax.sharding import constraints


class LookaheadConv(nn.Module):
    """A convolution over time that hears only as many future frames as its input allows.

    Attributes:
      width: output channels.
      past: frames before the present one.
      future: most frames after it.
      dtype: dtype of the operands.
    """

    width: int
    past: int
    future: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, lookahead: Array | int) -> Array:
        """Returns [B, T, width] of `x` [B, T + n, C], zero outside.

        Args:
          x: input; with a fixed look-ahead n is that number of frames, otherwise 0.
          lookahead: frames that each item hears: [B], or one number for all.
        """
        taps = self.past + 1 + self.future
        shape = (taps, x.shape[-1], self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.width,)).astype(self.dtype)
        x = x.astype(self.dtype)
        if isinstance(lookahead, int):
            x = jnp.pad(x, ((0, 0), (self.past, 0), (0, 0)))
            y = jax.lax.conv_general_dilated(
                x,
                kernel[: self.past + 1 + lookahead],
                (1,),
                "VALID",
                dimension_numbers=("NWC", "WIO", "NWC"),
            )
            return y + bias
        frames = x.shape[1]
        x = jnp.pad(x, ((0, 0), (self.past, self.future), (0, 0)))
        heard = jnp.arange(taps) - self.past <= lookahead[:, None]
        windows = jnp.stack([x[:, i : i + frames] for i in range(taps)], axis=2)
        windows = jnp.where(heard[:, None, :, None], windows, 0)
        flat = windows.reshape(*windows.shape[:2], -1)
        return jnp.matmul(flat, kernel.reshape(-1, self.width)) + bias


class Network(nn.Module):
    """Maps signals and conditions to motion; uses the collection "constants".

    Attributes:
      config: sizes, conditions, look-aheads and dropout.
      dtype: dtype of activations; parameters, the recurrent state and the output are float32.
    """

    config: StreamingConfig
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, signals: Array, batch: Batch, lookahead: Array | int, *, train: bool = False
    ) -> Array:
        """Returns the motion [B, T, 72] float32, not clipped.

        Args:
          signals: [B, T + n, F] relative to silence; n as in `LookaheadConv`.
          batch: uses identity, identity_mask, emotion and subject.
          lookahead: frames heard ahead, [B] or one number for all.
          train: enables dropout and noise.
        """
        config, dtype = self.config, self.dtype
        constants = self.variables["constants"]
        conditions = embed_conditions(config, batch, constants, train)
        ahead = jnp.broadcast_to(jnp.asarray(lookahead), (signals.shape[0],))
        known = jnp.asarray(config.lookahead_frames)
        conditions.append((ahead[:, None] == known).astype(jnp.float32))

        past = frames_per_layer(config.past_frames, config.conv_layers)
        x = LookaheadConv(
            config.conv_width, past[0], config.lookahead_frames[-1], dtype, name="conv_0"
        )(signals, lookahead)
        for i in range(config.conv_layers):
            if i:
                x = nn.Conv(
                    config.conv_width,
                    (past[i] + 1,),
                    padding=((past[i], 0),),
                    dtype=dtype,
                    name=f"conv_{i}",
                )(x)
            x = nn.gelu(nn.LayerNorm(dtype=dtype, name=f"norm_{i}")(x))
            x = channel_dropout(config.dropout, train)(x)
        x = conditioning.FiLM(name="film")(x, conditions, dtype)
        x = GRU(config.recurrent_width, dtype=dtype, name="gru")(x.swapaxes(0, 1))
        x = nn.Dense(rig.NUM_CHANNELS, name="head")(x).swapaxes(0, 1)
        x = conditioning.FiLM(name="head_film")(x, conditions)
        return constants["motion_mean"] + constants["motion_std"] * x


class StreamingRegression(AudioModel):
    """The regression model for live audio; see `a2fjax.models.base.Model`.

    Example:
        >>> import jax
        >>> from a2fjax.batch import Batch
        >>> from a2fjax.configuration import AudioConfig, StreamingConfig
        >>> model = StreamingRegression(StreamingConfig(conv_width=8), AudioConfig())
        >>> batch = Batch.spec(size=2, frames=50, points=64)
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), batch)
        >>> jax.eval_shape(model.apply, variables, batch)["motion"].shape
        (2, 50, 72)
        >>> model.lookahead_frames, model.lookahead_seconds
        (5, 0.12)

    Attributes:
      config: sizes, conditions and look-aheads.
      live: signals of live audio.
    """

    def __init__(
        self,
        config: StreamingConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the model; arguments as `a2fjax.models.regression.Regression`.

        Raises:
          InputError: `audio` names a speech encoder.
        """
        named = [name for name in audio.features if ":" in name]
        if named:
            raise InputError(
                f"audio.features: {named[0]!r} hears whole clips and cannot stream; expected mel, "
                "pitch or both with model.kind='streaming'"
            )
        super().__init__(audio, precision, default_constants(config), constants, encoders)
        self.config = config
        self.live = LiveFeatures(self.audio_features.frontend)
        self.network = Network(config, self.dtype)

    @property
    def lookahead_frames(self) -> int:
        """Number of future frames that a frame depends on where no look-ahead is drawn."""
        return self.config.lookahead_ms * rig.FPS // 1000

    @property
    def lookahead_seconds(self) -> float:
        """Delay from a frame's time to the last sample that it depends on, in seconds."""
        return (self.lookahead_frames + 1) / rig.FPS

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns {"params": ..., "constants": ...}; see `a2fjax.models.base.Model`."""
        zeros = self.audio_features.zeros(batch).signals
        lookahead = jnp.zeros(zeros.shape[:1], jnp.int32)
        params = self.draw_params(self.network, key, zeros, batch, lookahead)
        return {"params": params, "constants": self.device_constants()}

    def draw_lookahead(self, key: Array, size: int) -> Array:
        """Returns the look-aheads [size] int32 in frames of a training batch.

        Args:
          key: of the step, as given to `apply`.
          size: number of items.
        """
        known = jnp.asarray(self.config.lookahead_frames, jnp.int32)
        return known[jax.random.randint(streams(key)["lookahead"], (size,), 0, len(known))]

    def apply(
        self, variables: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]}; clipped to the rig's ranges unless training.

        Training draws a look-ahead for each item; otherwise that of the configuration is used.

        Raises:
          ValueError: training without a key.
        """
        rngs = self.streams(key, train)
        valid = jnp.arange(batch.audio.shape[1]) < HOP * batch.length[:, None]
        audio = jnp.where(valid, batch.audio, 0.0)
        lookahead: Array | int = self.lookahead_frames
        if train:
            assert key is not None
            lookahead = self.draw_lookahead(key, audio.shape[0])
        else:
            # A stream hears silence after its end for as long as frames wait for their future.
            audio = jnp.pad(audio, ((0, 0), (0, self.lookahead_frames * HOP)))
        signals = constraints.per_example(self.live.features)(audio) - self.live.silence()
        motion: Any = self.network.apply(
            {"params": variables["params"], "constants": variables["constants"]},
            signals,
            batch,
            lookahead,
            train=train,
            rngs=rngs,
        )
        if not train:
            motion = jnp.clip(motion, rig.MIN, rig.MAX)
        return {"motion": motion}
