"""The programs of a run and what they take, as shapes and shardings: nothing here needs a device.

Training compiles them for the devices it has; planning compiles the same ones for devices that are
only described.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from a2fjax.batch import Batch
from a2fjax.config import Config
from a2fjax.models import flops as cost
from a2fjax.models.params import Params
from a2fjax.sharding import mesh as mesh_lib
from a2fjax.tasks.base import Task
from a2fjax.train import optimizer as optimizer_lib
from a2fjax.train import state as state_lib
from a2fjax.train import step as step_lib
from a2fjax.train.state import TrainState

VOTES = ("stop", "save")
"""What any process may ask of all. Whether any device's row asks for it comes out of the step's own
program: the answer is the same on all, at the same step, and costs no round of its own."""


def place(
    config: Config,
    task: Task,
    spec: Batch,
    devices: Sequence[jax.Device] | None = None,
) -> Mesh:
    """Returns the mesh of a run, its preset resolved, and checks that the batch divides.

    Args:
      config: of the run.
      task: what is trained.
      spec: a global batch.
      devices: all devices by default; those of a topology that is not there, for planning.

    Raises:
      InputError: names the key, its value and the nearest that works.
    """
    devices = list(jax.devices() if devices is None else devices)
    chosen = config.sharding
    if chosen.preset:
        chosen = mesh_lib.choose(chosen, devices, state_bytes(config, task, spec))
    mesh = mesh_lib.make(chosen, devices)
    hosts = len({device.process_index for device in mesh.devices.flat})
    mesh_lib.check_batch_size(
        config.data.batch_size, mesh, hosts=hosts, accumulate=config.accumulate
    )
    return mesh


def state_bytes(config: Config, task: Task, spec: Batch) -> int:
    """Returns the bytes of a whole state with a gradient; only shapes are computed."""
    state = jax.eval_shape(_creation(config, task)[0], spec, task.pretrained)
    leaves = [*jax.tree.leaves(state), *jax.tree.leaves(state.params)]
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def _creation(config: Config, task: Task) -> tuple[Callable[..., TrainState], Any]:
    encoder = config.audio.encoder
    factor = 1.0 if encoder.train_from is None else encoder.learning_rate
    optimizer = optimizer_lib.build(config.optim, config.steps, factor)
    average = config.optim.ema_decay > 0
    create = functools.partial(state_lib.create, task, optimizer, seed=config.seed, average=average)
    return create, optimizer


class Programs:
    """Initialisation, update and held-out measurement of one run on one mesh.

    Attributes:
      mesh: the devices.
      abstract: the state as `ShapeDtypeStruct`s with their shardings.
      shardings: those of the state, as a tree.
      batch: a global batch as `ShapeDtypeStruct`s with their shardings.
      update: (state, batch) -> (state, metrics), neither jitted nor with votes.
      votes: what processes ask for at a step (`VOTES`), one row a device, with its sharding.
      train_step: jitted (state, batch, votes) -> (state, metrics, result of the votes); takes the
        state's memory.
      eval_step: jitted (state, batch, index, votes) -> (terms, result of the votes).
      count: jitted votes -> result.
    """

    def __init__(self, config: Config, task: Task, spec: Batch, mesh: Mesh) -> None:
        """Traces shapes only.

        Args:
          config: of the run.
          task: what is trained.
          spec: a global batch without shardings.
          mesh: as `place` gives it.
        """
        self.mesh = mesh
        self._create, optimizer = _creation(config, task)
        self._config, self._task, self._optimizer = config, task, optimizer
        abstract = jax.eval_shape(self._create, spec, task.pretrained)
        self.shardings = mesh_lib.state_shardings(abstract, mesh, config.sharding)
        self.abstract: TrainState = mesh_lib.with_shardings(abstract, self.shardings)
        self.batch_sharding = mesh_lib.batch_sharding(mesh)
        self.batch: Batch = mesh_lib.with_shardings(spec, self.batch_sharding)
        ballots = jax.ShapeDtypeStruct((mesh.size, len(VOTES)), jnp.int32)
        self.votes = mesh_lib.with_shardings(ballots, self.batch_sharding)
        everywhere = mesh_lib.replicated(mesh)
        update = step_lib.make_train_step(task, optimizer, config, mesh, self.shardings.params)
        self.update = update
        measure = step_lib.make_eval_step(task, config)

        def count(votes: jax.Array) -> jax.Array:
            return votes.max(axis=0)

        def train_step(state: TrainState, batch: Batch, votes: jax.Array) -> Any:
            return *update(state, batch), count(votes)

        def eval_step(state: TrainState, batch: Batch, index: jax.Array, votes: jax.Array) -> Any:
            return measure(state, batch, index), count(votes)

        self.count = jax.jit(count, in_shardings=self.batch_sharding, out_shardings=everywhere)
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
        """Returns the update, lowered for the mesh: what `.compile()` makes a program of."""
        with jax.set_mesh(self.mesh):
            return self.train_step.lower(self.abstract, self.batch, self.votes)

    def flops(self) -> float:
        """Returns the operations of an update of the whole batch, on all devices together.

        Those of the model alone: what `accumulate` and `remat` compute again does not count.
        """
        config = dataclasses.replace(self._config, accumulate=1, remat="none")
        update = step_lib.make_train_step(self._task, self._optimizer, config)
        return float(sum(cost.flops(update, self.abstract, self.batch).values()))

    def initialise(self, start: Params) -> TrainState:
        """Returns the state before the first update, on the devices.

        Args:
          start: weights that are not to start at random.
        """

        def create(start: Params) -> TrainState:
            return self._create(self.batch.filled(), start)

        state: TrainState = jax.jit(create, out_shardings=self.shardings)(start)
        return state
