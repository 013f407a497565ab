"""One hop of audio to motion as a pure function: the network of `models.streaming` with a state.

The state (`contract`) holds the tail of the audio, the level, what pitch and convolutions need of
the past, the frames that wait for their look-ahead, and the recurrent state. `frames` counts the
frames of audio heard. It stops at 2^31 - 1, after 497 days, and only tells whether a stream is
younger than its look-ahead, so nothing happens then.

Frame t leaves with the audio of frame t + L, so a stream's first L frames of output are zeros, not
motion.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.batch import Batch
from a2fjax.models.backbone import frames_per_layer
from a2fjax.models.condition_embeddings import IdentityEmbedding
from a2fjax.models.params import Params
from a2fjax.models.streaming import StreamingRegression
from a2fjax.streaming import cells, contract
from a2fjax.streaming.contract import State, StateEntry

Weights = cells.Weights

_LAST_COUNT = np.int32(2**31 - 1)


@dataclasses.dataclass(frozen=True)
class StreamingStep:
    """The step of a model at one look-ahead.

    Attributes:
      model: the network.
      lookahead: frames L heard before a frame leaves, one of the model's.
      hop: frames n of a call.

    Example:
        >>> from a2fjax.configuration import AudioConfig, StreamingConfig
        >>> config = StreamingConfig(conv_width=8, recurrent_width=8, identity="none")
        >>> model = StreamingRegression(config, AudioConfig(features=("mel",)))
        >>> step = StreamingStep(model, lookahead=5)
        >>> weights = step.weights(model.init(jax.random.key(0), Batch.zeros(1, 8, 0)))
        >>> rows = jnp.ones(2, bool)
        >>> motion, state = step(
        ...     weights, jnp.zeros((2, HOP)), step.start(2), jnp.zeros((2, 0)),
        ...     jnp.zeros((2, 5)), rows, ~rows,
        ... )
        >>> motion.shape, sorted(state)
        ((2, 1, 72), ['ahead', 'audio', 'conv_1', 'conv_2', 'frames', 'gru', 'level'])
    """

    model: StreamingRegression
    lookahead: int
    hop: int = 1

    def __post_init__(self) -> None:
        """Checks the look-ahead and the hop.

        Raises:
          ValueError: a look-ahead that was not trained, or a hop below one frame.
        """
        if self.lookahead not in self.model.config.lookahead_frames or self.hop < 1:
            raise ValueError(f"lookahead={self.lookahead}, hop={self.hop}")

    @property
    def identity_width(self) -> int:
        """Width E of an identity; 0 for a model without one."""
        config = self.model.config
        return config.identity_width if self._has_identity else 0

    @property
    def entries(self) -> dict[str, StateEntry]:
        """The state by name."""
        config = self.model.config
        past = self._past
        width = self.model.audio_features.frontend.width
        shapes = dict(self.model.live.state_shapes)
        shapes["ahead"] = (past[0] + self.lookahead, width)
        shapes |= {f"conv_{i}": (past[i], config.conv_width) for i in range(1, len(past))}
        shapes["gru"] = (config.recurrent_width,)
        found = {name: StateEntry(shape) for name, shape in shapes.items() if 0 not in shape}
        return found | {"frames": StateEntry((), "int32")}

    def start(self, size: int) -> State:
        """Returns the state of `size` streams at their start: zeros."""
        return contract.start(self.entries, size)

    def weights(self, variables: Params) -> Weights:
        """Returns the weights that a step reads, by flat name.

        Kernels of convolutions are matrices of the taps that this look-ahead hears, and those of
        the recurrence hold its three gates (reset, update, candidate) side by side.

        Args:
          variables: "params" and "constants" of the model.
        """
        params, constants = variables["params"], variables["constants"]
        past = self._past
        out: Weights = {name: constants[name] for name in ("motion_mean", "motion_std")}
        out["silence"] = self._silence
        for i in range(len(past)):
            taps = past[i] + 1 + (self.lookahead if i == 0 else 0)
            kernel = params[f"conv_{i}"]["kernel"][:taps]
            out[f"conv_{i}.kernel"] = kernel.reshape(-1, kernel.shape[-1])
            out[f"conv_{i}.bias"] = params[f"conv_{i}"]["bias"]
            out |= {f"norm_{i}.{k}": params[f"norm_{i}"][k] for k in ("scale", "bias")}
        recurrent = params["gru"]
        for side in ("i", "h"):
            gates = [recurrent[f"{side}{gate}"]["kernel"] for gate in "rzn"]
            out[f"gru.{side}"] = jnp.concatenate(gates, axis=-1)
        out["gru.i_bias"] = jnp.concatenate([recurrent[f"i{gate}"]["bias"] for gate in "rzn"])
        out["gru.hn_bias"] = recurrent["hn"]["bias"]
        for film in ("film", "head_film"):
            # Its conditions one below the other: one product for all of them.
            kernels = [params[film][f"condition_{i}"]["kernel"] for i in range(len(params[film]))]
            out[f"{film}.kernel"] = jnp.concatenate(kernels)
        out["head.kernel"], out["head.bias"] = params["head"]["kernel"], params["head"]["bias"]
        hidden = params["emotion"]["hidden"]
        out["emotion.kernel"], out["emotion.bias"] = hidden["kernel"], hidden["bias"]
        return out

    def embed_identity(self, variables: Params, batch: Batch) -> Array:
        """Returns the identities [B, E] float32 for `__call__`.

        Args:
          variables: variables of the model.
          batch: identity, identity_mask and subject are read.
        """
        if not self._has_identity:
            return jnp.zeros((batch.length.shape[0], 0))
        found: Any = IdentityEmbedding(self.model.config).apply(variables, batch)
        return jnp.asarray(found, jnp.float32)

    def __call__(
        self,
        weights: Weights,
        audio: Array,
        state: State,
        identity: Array,
        emotion: Array,
        active: Array,
        reset: Array,
    ) -> tuple[Array, State]:
        """Hears one hop; see `contract.Step`."""
        state = cells.restarted(state, reset)
        conditions = self._conditions(weights, identity, emotion)
        frames = audio.reshape(audio.shape[0], self.hop, HOP)

        def frame(state: State, samples: Array) -> tuple[State, Array]:
            return self._frame(weights, state, samples, conditions)

        if self.hop == 1:
            new, motion = frame(state, frames[:, 0])
            motion = motion[:, None]
        else:
            new, motion = lax.scan(frame, state, frames.swapaxes(0, 1))
            motion = motion.swapaxes(0, 1)
        motion = jnp.where(cells.rows(active, motion), motion, 0.0)
        return motion, cells.advanced(state, new, active)

    @property
    def _has_identity(self) -> bool:
        config = self.model.config
        return config.identity == "mesh" or config.identity_residual

    @property
    def _past(self) -> list[int]:
        config = self.model.config
        return frames_per_layer(config.past_frames, config.conv_layers)

    @functools.cached_property
    def _silence(self) -> np.ndarray:
        with jax.ensure_compile_time_eval():
            return np.asarray(jax.jit(self.model.live.silence)())

    def _conditions(self, weights: Weights, identity: Array, emotion: Array) -> Array:
        """Returns the conditions [B, D] side by side."""
        embedded = nn.gelu(jnp.matmul(emotion, weights["emotion.kernel"]) + weights["emotion.bias"])
        known = np.asarray(self.model.config.lookahead_frames) == self.lookahead
        ahead = jnp.broadcast_to(jnp.asarray(known, jnp.float32), (emotion.shape[0], len(known)))
        return jnp.concatenate([identity, embedded, ahead], axis=-1)

    def _frame(
        self, weights: Weights, state: State, samples: Array, conditions: Array
    ) -> tuple[State, Array]:
        """Hears samples [B, 320] and returns (state, motion [B, 72])."""
        live = self.model.live
        heard, signals = live.advance({k: state[k] for k in live.state_shapes}, samples)
        new: State = dict(heard)
        x = signals - weights["silence"]
        # The frame that leaves; before it there is nothing, and its state stays at zero.
        began = state["frames"] >= self.lookahead
        new["frames"] = jnp.minimum(state["frames"], _LAST_COUNT - 1) + 1
        for i in range(self.model.config.conv_layers):
            kept = "ahead" if i == 0 else f"conv_{i}"
            window = x[:, None]
            if kept in state:
                window = jnp.concatenate([state[kept], window], axis=1)
                moved = window[:, 1:]
                new[kept] = (
                    moved if i == 0 else jnp.where(cells.rows(began, moved), moved, state[kept])
                )
            flat = window.reshape(window.shape[0], -1)
            y = jnp.matmul(flat, weights[f"conv_{i}.kernel"]) + weights[f"conv_{i}.bias"]
            x = nn.gelu(cells.layer_norm(y, weights[f"norm_{i}.scale"], weights[f"norm_{i}.bias"]))
        x = cells.film(weights["film.kernel"], x, conditions)
        hidden = cells.gru(weights, x, state["gru"])
        new["gru"] = jnp.where(cells.rows(began, hidden), hidden, state["gru"])
        y = jnp.matmul(hidden, weights["head.kernel"]) + weights["head.bias"]
        y = cells.film(weights["head_film.kernel"], y, conditions)
        motion = weights["motion_mean"] + weights["motion_std"] * y
        motion = jnp.clip(motion, rig.MIN, rig.MAX)
        return new, jnp.where(cells.rows(began, motion), motion, 0.0)
