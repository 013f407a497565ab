"""What every step of live audio offers: `CompiledStep`, `Stream` and `snapshot` need no more.

Conventions of the state:

- It is a flat dict of arrays whose axis 0 is the stream. Zeros are the start of a stream.
- Everything a stream remembers is in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.models.params import Params

State = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class StateEntry:
    """An array of the state.

    Attributes:
      shape: of one stream, without axis 0.
      dtype: "float32" or "int32".
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def nbytes(self) -> int:
        """Bytes of one stream."""
        return int(np.prod(self.shape, dtype=int)) * np.dtype(self.dtype).itemsize


def start(entries: Mapping[str, StateEntry], size: int) -> State:
    """Returns the state of `size` streams at their start: zeros."""
    return {name: jnp.zeros((size, *entry.shape), entry.dtype) for name, entry in entries.items()}


class Step(Protocol):
    """One hop of audio to motion as a pure function."""

    @property
    def lookahead(self) -> int:
        """Frames L heard before a frame leaves."""

    @property
    def hop(self) -> int:
        """Frames n of a call."""

    @property
    def identity_width(self) -> int:
        """Width E of an identity; 0 for a model without one."""

    @property
    def entries(self) -> dict[str, StateEntry]:
        """The state by name."""

    def start(self, size: int) -> State:
        """Returns the state of `size` streams at their start: zeros."""

    def weights(self, variables: Params) -> Any:
        """Returns the arrays that a call reads, made once from the variables of the model."""

    def embed_identity(self, variables: Params, batch: Batch) -> Array:
        """Returns the identities [B, E] float32 of a batch for `__call__`."""

    def __call__(
        self,
        weights: Any,
        audio: Array,
        state: State,
        identity: Array,
        emotion: Array,
        active: Array,
        reset: Array,
    ) -> tuple[Array, State]:
        """Hears one hop; a pure function of its arguments.

        Args:
          weights: from `weights`.
          audio: [B, 320 n] float32 samples at 16 kHz as recorded.
          state: the arrays of `entries`.
          identity: [B, E] float32 from `embed_identity`.
          emotion: [B, 5] float32 weights, of the frames that this call returns.
          active: [B] bool; rows that hear. The state of the others does not change, and their
            motion is zero.
          reset: [B] bool; rows that start anew before they hear. A row may be reset without being
            active.

        Returns:
          Motion [B, n, 72] float32 in rig units of the frames L before those heard, and the next
          state.
        """
