"""Tasks, which combine a model with its losses; see `a2fjax.tasks.base.Task`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from a2fjax import registry
from a2fjax.errors import InputError, nearest

if TYPE_CHECKING:
    from a2fjax.configuration import Config
    from a2fjax.models.pretrained import Encoders
    from a2fjax.tasks.base import Task


def build(
    config: Config,
    constants: Mapping[str, np.ndarray] | None = None,
    encoders: Encoders | None = None,
    *,
    task: str = "",
) -> Task:
    """Builds the task of a configuration.

    Args:
      config: the whole experiment; its `task`, or otherwise its model's kind, selects the task.
      constants: result of `constants`, which `Task.init` puts into the variables; None if these
        come from a checkpoint.
      encoders: encoders by key; None reads the configured ones.
      task: a name as in `resolve`, used instead of the configured one.

    Raises:
      InputError: no such task, contradictory settings, or an unreadable encoder.

    Example:
        >>> from a2fjax.configuration import Config
        >>> task = build(Config())
        >>> type(task).__name__, type(task.model).__name__
        ('RegressionTask', 'Regression')
    """
    name = task or config.task
    if name:
        make = resolve(name, where="" if task else "config: task: ")
    else:
        make = resolve(config.model.kind, where="config: model.kind: ")
    return make(config, constants, encoders)


def resolve(name: str, *, where: str = "") -> Callable[..., Task]:
    """Resolves a name to a function (config, constants, encoders) -> `Task`.

    Args:
      name: a registered kind of model, or "package.module:attribute" that refers to such a function
        or to a class with a `build` method like that of `tasks.base.SingleMotionTask`.
      where: prefix of error messages, such as the configuration key that holds the name.

    Raises:
      InputError: nothing is registered or importable under that name.

    Example:
        >>> resolve("regression").__self__.__name__
        'RegressionTask'
        >>> resolve("a2fjax.tasks.diffusion:DiffusionTask").__self__.__name__
        'DiffusionTask'
    """
    module_name, colon, attribute = name.partition(":")
    if not colon:
        target = registry.models.get(name, where=where).load()
    else:
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise InputError(
                f"{where}{name!r}: {module_name} cannot be imported ({error})"
            ) from None
        target = getattr(module, attribute, None)
        if target is None:
            raise InputError(
                f"{where}{name!r}: {module_name} has no {attribute!r}"
                f"{nearest(attribute, [n for n in vars(module) if not n.startswith('_')])}"
            )
    make: Any = getattr(target, "build", target)
    if not callable(make):
        raise InputError(f"{where}{name!r}: expected a class with `build`, or a function")
    return cast("Callable[..., Task]", make)


def constants(
    config: Config,
    folders: Sequence[str | Path] | None = None,
    encoders: Encoders | None = None,
) -> dict[str, np.ndarray]:
    """Computes a model's constants from its training data; see `a2fjax.tasks.statistics`."""
    from a2fjax.tasks import statistics

    return statistics.constants(config, folders, encoders)
