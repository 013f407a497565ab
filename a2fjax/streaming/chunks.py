"""A model of whole clips as a step: a window of audio slides, and its last frames leave in chunks.

Each call hears a chunk of frames and predicts the window of `context + chunk + lookahead` frames
that ends with them, always of one shape, so that one program serves a stream from its first sample
on. A stream younger than its window begins at the window's first frame; the rest is padding, which
models respect. The frames that leave are those before the look-ahead, cross-faded with what the
call before predicted for them.

The noise of diffusion models is a function of (seed, row, number of the frame, purpose), so that
windows of one stream agree where they overlap. `frames`, the state's counter, places the window.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from a2fjax import rig
from a2fjax.audio import HOP, running_level
from a2fjax.batch import Batch
from a2fjax.errors import InputError
from a2fjax.models.condition_embeddings import IdentityEmbedding, given_identity
from a2fjax.models.diffusion import Diffusion
from a2fjax.models.params import Params
from a2fjax.streaming import cells, contract
from a2fjax.streaming.contract import State, StateEntry

_WRAP = 1 << 30
"""The counter goes back by half of it there, after 248 days; the noise begins to repeat."""


@dataclasses.dataclass(frozen=True)
class Chunking:
    """Lengths of the chunks of a stream, in frames of 20 ms.

    Attributes:
      chunk: frames returned together.
      lookahead: frames of audio after a chunk that its prediction depends on.
      context: frames of audio before a chunk; each prediction covers the sum of all three.
      fade: frames over which neighbouring chunks are cross-faded, at most `lookahead` and `chunk`.
    """

    chunk: int = 8
    lookahead: int = 16
    context: int = 104
    fade: int = 4

    @property
    def window(self) -> int:
        """Frames of a prediction."""
        return self.context + self.chunk + self.lookahead

    def check(self, stride: int) -> None:
        """Checks that the lengths are consistent and fit a model.

        Args:
          stride: of the model; see `models.base.Model`.

        Raises:
          InputError: they are not or do not.
        """
        if self.chunk < 1 or min(self.lookahead, self.context, self.fade) < 0:
            raise InputError(f"{self}: expected a chunk of at least 1 frame and no negative number")
        if self.chunk % stride or self.window % stride:
            raise InputError(
                f"chunk={self.chunk}, context + chunk + lookahead={self.window}: this model's "
                f"lower levels hold {stride} frames each; expected multiples of {stride}"
            )
        if self.fade > min(self.lookahead, self.chunk):
            raise InputError(
                f"fade={self.fade}: expected at most lookahead={self.lookahead} and "
                f"chunk={self.chunk}: both chunks must know the frames"
            )


@dataclasses.dataclass(frozen=True)
class ChunkStep:
    """The step of a diffusion model; see `contract.Step`. Row r draws sample r.

    Attributes:
      model: the network, with the sampler of its configuration.
      chunking: lengths of the window.

    Example:
        >>> from a2fjax.configuration import AudioConfig, DiffusionConfig, SampleConfig, UNetConfig
        >>> config = DiffusionConfig(
        ...     conv_width=8, recurrent_width=8, identity="none", sample=SampleConfig(steps=1),
        ...     unet=UNetConfig(widths=(8,), heads=1),
        ... )
        >>> step = ChunkStep(Diffusion(config, AudioConfig()), Chunking(context=8))
        >>> step.hop, step.lookahead, sorted(step.entries)
        (8, 16, ['audio', 'emotion', 'frames', 'level', 'tail'])
    """

    model: Diffusion
    chunking: Chunking = Chunking()

    def __post_init__(self) -> None:
        """Checks the lengths.

        Raises:
          InputError: as `Chunking.check`.
        """
        self.chunking.check(self.model.stride)

    @property
    def lookahead(self) -> int:
        """Frames L heard before a frame leaves."""
        return self.chunking.lookahead

    @property
    def hop(self) -> int:
        """Frames n of a call."""
        return self.chunking.chunk

    @property
    def identity_width(self) -> int:
        """Width E of an identity; 0 for a model without one."""
        config = self.model.config
        return config.identity_width if config.identity == "mesh" or config.identity_residual else 0

    @property
    def entries(self) -> dict[str, StateEntry]:
        """The state by name."""
        lengths = self.chunking
        shapes = {
            "audio": ((lengths.window - lengths.chunk) * HOP,),
            "level": running_level.SHAPE,
            "emotion": (lengths.context, rig.NUM_EMOTIONS),
            "tail": (lengths.fade, rig.NUM_CHANNELS),
        }
        found = {name: StateEntry(shape) for name, shape in shapes.items() if 0 not in shape}
        return found | {"frames": StateEntry((), "int32")}

    def start(self, size: int) -> State:
        """Returns the state of `size` streams at their start: zeros."""
        return contract.start(self.entries, size)

    def weights(self, variables: Params) -> Params:
        """Returns the variables themselves."""
        return variables

    def embed_identity(self, variables: Params, batch: Batch) -> Array:
        """Returns the identities [B, E] float32 for `__call__`."""
        if not self.identity_width:
            return jnp.zeros((batch.length.shape[0], 0))
        backbone = {
            "params": variables["params"]["condition_encoder"]["backbone"],
            "constants": variables["constants"],
        }
        found: Any = IdentityEmbedding(self.model.config).apply(backbone, batch)
        return jnp.asarray(found, jnp.float32)

    def __call__(
        self,
        weights: Params,
        audio: Array,
        state: State,
        identity: Array,
        emotion: Array,
        active: Array,
        reset: Array,
    ) -> tuple[Array, State]:
        """Hears one chunk; see `contract.Step`."""
        lengths, size = self.chunking, audio.shape[0]
        state = cells.restarted(state, reset)
        chunk = audio.reshape(size, self.hop, HOP)
        level, gains = lax.scan(running_level.update, state["level"], chunk.swapaxes(0, 1))
        heard = state["frames"] + self.hop
        first = jnp.maximum(heard - lengths.window, 0)

        # The window ends with the latest frame; at the start of a stream it is moved to begin with
        # frame 0.
        early = jnp.maximum(lengths.window - heard, 0)
        held = jnp.concatenate([_held(state, "audio", (HOP,), size), chunk], axis=1)
        moods = jnp.repeat(emotion[:, None], self.hop + self.lookahead, axis=1)
        moods = jnp.concatenate([_held(state, "emotion", (rig.NUM_EMOTIONS,), size), moods], axis=1)
        valid = jnp.arange(lengths.window) < jnp.minimum(heard, lengths.window)[:, None]
        window = jnp.where(valid[..., None], _frames(held, early, lengths.window), 0.0)
        batch = Batch.zeros(size, lengths.window, 1, normals=self.model.config.identity_normals)
        batch = batch.replace(
            audio=window.reshape(size, -1) * gains[-1][:, None],
            length=heard - first,
            frame_mask=valid,
            identity_mask=jnp.ones(size, bool),
            subject=jnp.zeros(size, jnp.int32),
            emotion=_frames(moods, early, lengths.window),
            start=first,
            sample_index=jnp.arange(size, dtype=jnp.int32),
        )
        with given_identity(identity if self.identity_width else None, self.model.config):
            predicted = self.model.apply(weights, batch)["motion"]

        begin = heard - self.lookahead - self.hop
        found = _frames(predicted, begin - first, self.hop + lengths.fade)
        motion, tail = found[:, : self.hop], found[:, self.hop :]
        if lengths.fade:
            rising = (jnp.arange(lengths.fade)[:, None] + 0.5) / lengths.fade
            rising = jnp.where((state["frames"] > 0)[:, None, None], rising, 1.0)
            fresh = motion[:, : lengths.fade]
            faded = state["tail"] * (1.0 - rising) + fresh * rising
            motion = jnp.concatenate([faded, motion[:, lengths.fade :]], axis=1)
        began = begin[:, None] + jnp.arange(self.hop) >= 0
        motion = jnp.where((began & active[:, None])[..., None], motion, 0.0)
        new = {
            "audio": held[:, self.hop :].reshape(size, -1),
            "level": level,
            "emotion": moods[:, self.hop :][:, : lengths.context],
            "tail": tail,
            "frames": jnp.where(heard >= _WRAP, heard - _WRAP // 2, heard),
        }
        return motion, cells.advanced(state, new, active)


def _held(state: Mapping[str, Array], name: str, shape: tuple[int, ...], size: int) -> Array:
    """Returns an array of the state as frames [B, T, ...]; T is 0 where the state has none."""
    if name not in state:
        return jnp.zeros((size, 0, *shape))
    return state[name].reshape(size, -1, *shape)


def _frames(x: Array, begin: Array, count: int) -> Array:
    """Returns `count` frames of x [B, T, D] from `begin` [B] on, the nearest for missing ones."""
    index = jnp.clip(begin[:, None] + np.arange(count), 0, x.shape[1] - 1)
    return jnp.take_along_axis(x, index[..., None], axis=1)
