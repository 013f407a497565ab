"""Prepares and checks the starting point of a run: encoders, constants and initial weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp

from a2fjax import tasks
from a2fjax.configuration import Config, Resolved, SyncConfig, plugins
from a2fjax.data.feature_cache import writer
from a2fjax.data.feature_cache.format import FeatureSpec
from a2fjax.errors import InputError, nearest
from a2fjax.models import params as params_lib
from a2fjax.models import pretrained
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.tasks.base import Task
from a2fjax.training import checkpoints
from a2fjax.training.distributed import broadcast
from a2fjax.training.inputs import Inputs


def with_task(resolved: Resolved, task: type | str) -> Resolved:
    """Returns the experiment with `config.task` set to a class or its import path.

    Raises:
      InputError: the class cannot be imported by name.

    Example:
      >>> from a2fjax import configuration
      >>> from a2fjax.tasks.regression import RegressionTask
      >>> with_task(configuration.load(None), RegressionTask).config.task
      'a2fjax.tasks.regression:RegressionTask'
    """
    name = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    if "<locals>" in name or name.startswith("__main__:"):
        raise InputError(
            f"task {name}: cannot be imported when the run is loaded; expected a class at the top "
            "of an importable module"
        )
    tasks.resolve(name, where="task: ")
    config = dataclasses.replace(resolved.config, task=name)
    return dataclasses.replace(
        resolved,
        config=config,
        sources={**resolved.sources, "task": "task="},
        plugins=plugins.digests(config),
    )


def load_encoders(config: Config, workdir: Path) -> Encoders:
    """Loads a run's encoders from its folder if it has checkpoints, else as configured."""
    pretrained.check_feature_source(config)
    if checkpoints.steps_in(workdir / checkpoints.FOLDER):
        return pretrained.restore(workdir, config.audio)
    return pretrained.load_or_restore(workdir, config.audio, config.init_from)


def build_task(config: Config, workdir: Path, encoders: Encoders) -> Task:
    """Builds the configured task with the constants of its run.

    The constants come from the run's checkpoints, else from the run in `config.init_from`.
    Otherwise the first process measures them on the training data; always for a sync expert, whose
    constants are of the people that it trains on.

    Raises:
      InputError: there are no shards, or `init_from` is not a run.
    """
    if has_checkpoint(workdir):
        constants = checkpoints.load_params(workdir)[1]["constants"]
    elif config.init_from and not isinstance(config.model, SyncConfig):
        constants = checkpoints.load_params(config.init_from)[1]["constants"]
    else:
        # Measured by one process, because sums on another machine may differ in the last bits.
        measured = tasks.constants(config, encoders=encoders) if jax.process_index() == 0 else {}
        constants = broadcast.broadcast_arrays(measured)
    return tasks.build(config, constants, encoders)


def initial_params(config: Config, workdir: Path) -> Params:
    """Returns the weights of the run in `config.init_from`; {} if this run has checkpoints.

    Raises:
      InputError: `init_from` is not a run.
    """
    if not config.init_from or has_checkpoint(workdir):
        return {}
    return checkpoints.load_params(config.init_from)[1]


def has_checkpoint(workdir: Path) -> bool:
    """Returns True if a folder holds a run with a complete checkpoint."""
    return (workdir / "config.json").is_file() and bool(checkpoints.steps(workdir))


def feature_specs(encoders: Encoders) -> dict[str, FeatureSpec]:
    """Returns the spec of each encoder's hidden states in feature caches, by encoder key."""
    return {key: writer.feature_spec(*loaded) for key, loaded in encoders.items()}


def check_best_metric(config: Config, task: Task, inputs: Inputs) -> None:
    """Checks that evaluation computes `checkpoint.best_metric`, from shapes alone.

    Raises:
      InputError: there is no such metric; the message names the nearest.
    """
    if not (config.checkpoint.keep_best and config.eval.every_steps):
        return
    metric, names = config.checkpoint.best_metric, ["eval/loss"]
    if metric in names:
        return
    key, spec = jax.random.key(0), inputs.spec()
    params = jax.eval_shape(lambda batch: task.init(key, batch), spec)
    params = params_lib.merge(params, task.pretrained)
    _, terms = jax.eval_shape(
        lambda p, batch: task.loss(p, batch, key, step=jnp.int32(0), train=False), params, spec
    )
    names += [f"eval/loss/{name}" for name in terms]
    if metric not in names:
        raise InputError(f"config: checkpoint.best_metric={metric!r}{nearest(metric, names)}")


def merge_initial(
    task: Task, params: Params, initial: Params, abstract: Params, *, name: str
) -> Params:
    """Returns the weights that replace random initial values.

    Args:
      task: adapts the other run's weights with `warm_start`.
      params: pretrained weights of the task.
      initial: weights from `initial_params`.
      abstract: shapes of all parameters.
      name: name of the other run, for messages.

    Raises:
      InputError: the other run has another model.
    """
    if not initial:
        return params
    merged = params_lib.overlay(params, task.warm_start(initial))
    checkpoints.check_params(merged, abstract, name=name)
    return merged
