"""A step compiled for a number of streams, with its weights on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.batch import Batch
from a2fjax.errors import InputError
from a2fjax.models.params import Params
from a2fjax.streaming.contract import State, Step


class CompiledStep:
    """A step that is compiled, and called once, at construction; calls never compile.

    Attributes:
      step: the step.
      size: number of streams B.
      fingerprint: names the weights, for `snapshot`.
    """

    def __init__(self, step: Step, variables: Params, size: int = 1, *, fingerprint: str):
        """Compiles the step for `size` streams and moves the weights to the device."""
        self.step, self.size, self.fingerprint = step, size, fingerprint
        self._variables = {k: variables[k] for k in ("params", "constants")}
        self._weights = jax.device_put(step.weights(variables))
        self._start = step.start(size)
        inputs = {
            "audio": ((size, step.hop * HOP), np.float32),
            "identity": ((size, step.identity_width), np.float32),
            "emotion": ((size, rig.NUM_EMOTIONS), np.float32),
            "active": ((size,), np.bool_),
            "reset": ((size,), np.bool_),
        }
        self._inputs = [(name, shape, np.dtype(kind)) for name, (shape, kind) in inputs.items()]
        self._state = [(name, x.shape, x.dtype) for name, x in self._start.items()]
        self._rows = {"active": np.ones(size, bool), "reset": np.zeros(size, bool)}
        specs = {name: jax.ShapeDtypeStruct(*spec) for name, *spec in self._inputs}
        self._compiled = (
            jax.jit(step.__call__)
            .lower(
                self._weights,
                specs["audio"],
                self._start,
                *(specs[k] for k in ("identity", "emotion", "active", "reset")),
            )
            .compile()
        )
        # The first call allocates what the others reuse.
        zeros = [np.zeros(shape, dtype) for _, shape, dtype in self._inputs]
        jax.block_until_ready(self._compiled(self._weights, zeros[0], self._start, *zeros[1:]))

    def start(self) -> State:
        """Returns the state of streams at their start."""
        return dict(self._start)

    def embed_identity(self, batch: Batch) -> np.ndarray:
        """Returns the identities [B, E] of a batch; see `contract.Step.embed_identity`."""
        return np.asarray(jax.jit(self.step.embed_identity)(self._variables, batch))

    def __call__(
        self,
        audio: np.ndarray,
        state: Mapping[str, Any],
        identity: np.ndarray,
        emotion: np.ndarray,
        active: np.ndarray | None = None,
        reset: np.ndarray | None = None,
    ) -> tuple[np.ndarray, State]:
        """Returns (motion [B, n, 72], next state); arguments as `contract.Step.__call__`.

        Args:
          audio: [B, 320 n] float32.
          state: from `start` or the call before.
          identity: [B, E] float32.
          emotion: [B, 5] float32.
          active: [B] bool; None for all.
          reset: [B] bool; None for none.

        Raises:
          InputError: an array of another shape or type, or audio of an active row that is not
            finite.
        """
        active = self._rows["active"] if active is None else active
        reset = self._rows["reset"] if reset is None else reset
        given = (audio, identity, emotion, active, reset)
        for (name, shape, dtype), value in zip(self._inputs, given, strict=True):
            _check(name, value, shape, dtype)
        for name, shape, dtype in self._state:
            if name not in state:
                raise InputError(f"state: has no {name!r}; start from `start()`")
            _check(name, state[name], shape, dtype)
        # The state would keep a NaN for as long as the stream lasts.
        if not np.isfinite(audio).all():
            wrong = np.flatnonzero(active & ~np.isfinite(audio).all(axis=1))
            if len(wrong):
                raise InputError(f"audio: row {wrong[0]} has samples that are not finite numbers")
        own = {name: state[name] for name in self._start}
        motion, new = self._compiled(self._weights, audio, own, identity, emotion, active, reset)
        return np.asarray(motion), new


def _check(name: str, value: Any, shape: tuple[int, ...], dtype: Any) -> None:
    found, kind = getattr(value, "shape", None), getattr(value, "dtype", type(value).__name__)
    if found != shape or kind != dtype:
        hop = "; the hop is fixed: use a Stream for blocks of any size" if name == "audio" else ""
        raise InputError(
            f"{name}: has shape {found} and type {kind}, expected {shape} and "
            f"{np.dtype(dtype).name}{hop}"
        )
