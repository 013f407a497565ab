"""Trains a model: reads data and weights, claims the run folder, and runs the training loop."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path

import jax

from a2fjax import configuration as config_lib
from a2fjax import progress
from a2fjax.configuration import Resolved
from a2fjax.errors import EXIT_FAILED, InputError
from a2fjax.models import pretrained
from a2fjax.sharding import compilation_cache, device_mesh
from a2fjax.tasks.base import Task
from a2fjax.training import run_dir, starting_point, sync_loss
from a2fjax.training.checkpoint_writer import CheckpointWriter
from a2fjax.training.compiled_steps import build_mesh
from a2fjax.training.distributed import broadcast
from a2fjax.training.distributed.preemption import StopRequest
from a2fjax.training.distributed.watchdog import COMPILING, Watchdog
from a2fjax.training.inputs import Inputs, ShardInputs
from a2fjax.training.state import TrainState
from a2fjax.training.training_loop import Run, TrainingLoop


def train(
    resolved: Resolved,
    workdir: Path,
    *,
    task: Task | type | str | None = None,
    inputs: Inputs | None = None,
    say: Callable[[str], None] | None = None,
    watchdog: Watchdog | None = None,
) -> TrainState:
    """Trains until `config.steps` updates are done, continuing the run in `workdir`.

    Every process of a run calls this (see `distributed.session`). Only the first process writes to
    the folder, except that each process writes its own arrays of a checkpoint.

    Args:
      resolved: the experiment.
      workdir: run folder; created if it does not exist. A repeated call continues the run and gives
        the same numbers as an uninterrupted run.
      task: the task to train; by default the task of the configuration. A class, or its import path
        "package.module:Class", is recorded as `config.task`, so that loading the run builds it
        again. A task object is used directly and not recorded.
      inputs: source of batches; the configuration's shards by default.
      say: prints a line of progress; to standard output by default. Only the first process prints.
      watchdog: monitors progress; by default there is no limit.

    Returns:
      The state after the last update.

    Raises:
      InputError: the configuration, the shards and the folder do not match.
      WorkFailed: a value is not finite, or the disk cannot be written.
      Preempted: a signal requested a stop; the state is saved.

    Example:
      >>> from a2fjax import configuration
      >>> train(configuration.load(None), Path("run"))
      Traceback (most recent call last):
        ...
      a2fjax.errors.InputError: data.shards is empty: expected a folder ...wrote
    """
    first = jax.process_index() == 0
    say = (say or functools.partial(print, flush=True)) if first else _silent
    watchdog = watchdog or Watchdog(0)
    watchdog.beat("reading data and weights", factor=COMPILING)
    compilation_cache.enable()
    if isinstance(task, type | str):
        resolved = starting_point.with_task(resolved, task)
        task = None
    config = resolved.config
    with StopRequest() as stop, contextlib.ExitStack() as reading:
        reading.enter_context(progress.shown("reading data and weights", say))
        config_lib.check_schedule(config.optim, config.steps)
        device_mesh.check(config.sharding, config.data.batch_size, config.accumulate)
        encoders: pretrained.Encoders = {}
        # Check first: the encoders in the folder may belong to another run.
        run_dir.check(workdir, resolved)
        experts: list[sync_loss.Record] = []
        if task is None:
            encoders = starting_point.load_encoders(config, workdir)
            task = starting_point.build_task(config, workdir, encoders)
            task, experts = sync_loss.attach(task, config, workdir, encoders)
        elif config.loss.sync_runs:
            raise InputError("config: loss.sync: a task object has its own losses; give a class")
        initial = starting_point.initial_params(config, workdir)
        if inputs is None:
            cached = config.data.encoder_features == "cached"
            inputs = ShardInputs(
                config,
                host=jax.process_index(),
                hosts=jax.process_count(),
                cached=starting_point.feature_specs(encoders) if cached else None,
            )
        mesh = build_mesh(config, task, inputs.spec())
        starting_point.check_best_metric(config, task, inputs)
        reading.close()
        with contextlib.ExitStack() as stack:
            if first:
                stack.enter_context(run_dir.claim(workdir, resolved))
                pretrained.save(workdir, encoders)
                sync_loss.write(workdir, experts)
            broadcast.barrier()
            stack.enter_context(jax.set_mesh(mesh))
            run = Run(resolved, workdir, stop, say, watchdog)
            checkpoints = stack.enter_context(
                CheckpointWriter(
                    workdir,
                    config.checkpoint,
                    on_failure=lambda error: watchdog.end(str(error), EXIT_FAILED),
                )
            )
            return TrainingLoop(run, task, inputs, mesh, checkpoints, initial).run()


def _silent(line: str) -> None:
    pass
