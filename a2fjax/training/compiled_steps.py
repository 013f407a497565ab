"""Builds the jitted initialisation, training and evaluation steps from shapes and shardings alone.

Training compiles them for real devices; `a2fjax.plan` compiles them for described topologies.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from a2fjax.batch import Batch
from a2fjax.configuration import Config
from a2fjax.models import flops as cost
from a2fjax.models.params import Params
from a2fjax.sharding import device_mesh
from a2fjax.tasks.base import Task
from a2fjax.training import auxiliary
from a2fjax.training import optimizer as optimizer_lib
from a2fjax.training import state as state_lib
from a2fjax.training import step as step_lib
from a2fjax.training.state import TrainState

STOP_FLAGS = ("stop", "save")
"""Requests that any process can send to all processes. The program of each step reduces them over
the devices, so every process sees a request at the same step without a separate collective."""


def build_mesh(
    config: Config,
    task: Task,
    spec: Batch,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Resolves the sharding preset, builds the device mesh, and checks the batch size.

    Args:
      config: configuration of the run.
      task: the task to train.
      spec: shapes of a global batch.
      devices: all devices by default; the devices of a described topology for planning.

    Raises:
      InputError: the settings do not fit the devices; the message names the key, its value and the
        nearest valid value.
    """
    devices = list(jax.devices() if devices is None else devices)
    chosen = config.sharding
    if chosen.preset:
        chosen = device_mesh.resolve_preset(chosen, devices, state_bytes(config, task, spec))
    mesh = device_mesh.build(chosen, devices)
    hosts = len({device.process_index for device in mesh.devices.flat})
    device_mesh.check_batch_size(
        config.data.batch_size, mesh, hosts=hosts, accumulate=config.accumulate
    )
    return mesh


def state_bytes(config: Config, task: Task, spec: Batch) -> int:
    """Returns the size in bytes of a training state and a gradient, from shapes alone."""
    state = jax.eval_shape(_creation(config, task)[0], spec, task.pretrained)
    trained = auxiliary.trained(state.params, state.auxiliary)
    leaves = [*jax.tree.leaves(state), *jax.tree.leaves(trained)]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _creation(config: Config, task: Task) -> tuple[Callable[..., TrainState], Any]:
    encoder = config.audio.encoder
    factor = 1.0 if encoder.train_from is None else encoder.learning_rate
    optimizer = optimizer_lib.build(config.optim, config.steps, factor)
    average = config.optim.ema_decay > 0
    create = functools.partial(
        state_lib.create, task, optimizer, seed=config.seed, average=average, steps=config.steps
    )
    return create, optimizer


class CompiledSteps:
    """Initialisation, training step and evaluation step of one run on one device mesh.

    Attributes:
      mesh: the device mesh.
      abstract: the state as `ShapeDtypeStruct`s with their shardings.
      shardings: tree of the state's shardings.
      batch: a global batch as `ShapeDtypeStruct`s with their shardings.
      stop_flags: shape and sharding of the [devices, `STOP_FLAGS`] int32 requests.
      train_step: jitted (state, batch, stop_flags) -> (state, metrics, combined flags); donates the
        state's buffers.
      eval_step: jitted (state, batch, index, stop_flags) -> (terms, combined flags).
      combine_flags: jitted stop_flags -> combined flags [`STOP_FLAGS`].
    """

    def __init__(self, config: Config, task: Task, spec: Batch, mesh: Mesh) -> None:
        """Traces shapes; compiles nothing.

        Args:
          config: configuration of the run.
          task: the task to train.
          spec: shapes of a global batch, without shardings.
          mesh: device mesh from `build_mesh`.
        """
        self.mesh = mesh
        self._create, optimizer = _creation(config, task)
        self._config, self._task, self._optimizer = config, task, optimizer
        abstract = jax.eval_shape(self._create, spec, task.pretrained)
        self.shardings = device_mesh.state_shardings(abstract, mesh, config.sharding)
        self.abstract: TrainState = device_mesh.with_shardings(abstract, self.shardings)
        self.batch_sharding = device_mesh.batch_sharding(mesh)
        self.batch: Batch = device_mesh.with_shardings(spec, self.batch_sharding)
        stop_flags = jax.ShapeDtypeStruct((mesh.size, len(STOP_FLAGS)), jnp.int32)
        self.stop_flags = device_mesh.with_shardings(stop_flags, self.batch_sharding)
        everywhere = device_mesh.replicated(mesh)
        update = step_lib.make_train_step(task, optimizer, config, mesh, self.shardings)
        measure = step_lib.make_eval_step(task, config.seed)

        def combine(stop_flags: jax.Array) -> jax.Array:
            return stop_flags.max(axis=0)

        def train_step(state: TrainState, batch: Batch, stop_flags: jax.Array) -> Any:
            return *update(state, batch), combine(stop_flags)

        def eval_step(
            state: TrainState, batch: Batch, index: jax.Array, stop_flags: jax.Array
        ) -> Any:
            return measure(state, batch, index), combine(stop_flags)

        self.combine_flags = jax.jit(
            combine, in_shardings=self.batch_sharding, out_shardings=everywhere
        )
        self.train_step = jax.jit(
            train_step,
            in_shardings=(self.shardings, self.batch_sharding, self.batch_sharding),
            out_shardings=(self.shardings, everywhere, everywhere),
            donate_argnums=0,
        )
        self.eval_step = jax.jit(
            eval_step,
            in_shardings=(self.shardings, self.batch_sharding, everywhere, self.batch_sharding),
            out_shardings=everywhere,
        )

    def lower(self) -> Any:
        """Returns the training step lowered for the device mesh; `.compile()` compiles it."""
        with jax.set_mesh(self.mesh):
            return self._trace().lower()

    def _trace(self) -> Any:
        """Returns the traced training step; JAX traces it once and keeps the result."""
        with jax.set_mesh(self.mesh):
            return self.train_step.trace(self.abstract, self.batch, self.stop_flags)

    def operations(self) -> Counter[str]:
        """Returns the operations per update of the global batch, by kind (`models.flops`)."""
        return cost.of_jaxpr(self._trace().jaxpr) - cost.flops(self.combine_flags, self.stop_flags)

    def flops(self) -> float:
        """Returns the number of model operations per update of the global batch.

        Operations that `accumulate` and `remat` repeat count once.
        """
        config = dataclasses.replace(self._config, accumulate=1, remat="none")
        if config == self._config:
            return float(sum(self.operations().values()))
        update = step_lib.make_train_step(self._task, self._optimizer, config)
        return float(sum(cost.flops(update, self.abstract, self.batch).values()))

    def initialise(self, start: Params) -> TrainState:
        """Returns the initial state, on the devices.

        Args:
          start: weights that replace random initial values.
        """

        def create(start: Params) -> TrainState:
            return self._create(self.batch.filled(), start)

        state: TrainState = jax.jit(create, out_shardings=self.shardings)(start)
        return state


def requested(stop_flags: jax.Array) -> set[str]:
    """Returns the names of `STOP_FLAGS` that are set in combined flags.

    Example:
      >>> requested(jnp.array([0, 1]))
      {'save'}
    """
    pairs = zip(STOP_FLAGS, np.asarray(stop_flags), strict=True)
    return {name for name, flag in pairs if flag}
