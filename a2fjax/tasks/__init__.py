"""A model joined to its losses; see `a2fjax.tasks.base.Task`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from a2fjax import registry

if TYPE_CHECKING:
    from a2fjax.config import Config
    from a2fjax.models.pretrained import Encoders
    from a2fjax.tasks.base import Task


def build(
    config: Config,
    constants: Mapping[str, np.ndarray] | None = None,
    encoders: Encoders | None = None,
) -> Task:
    """Returns the task of a configuration.

    Args:
      config: whole experiment.
      constants: of `constants`, which `Task.init` puts into the parameters; None where the
        parameters come from a checkpoint.
      encoders: see `a2fjax.models.build`.
    """
    build_task = registry.models.get(config.model.kind, where="config: model.kind: ").load()
    return cast("Task", build_task(config, constants, encoders))


def constants(
    config: Config,
    folders: Sequence[str | Path] | None = None,
    encoders: Encoders | None = None,
) -> dict[str, np.ndarray]:
    """Returns what the model takes from its training data; see `a2fjax.tasks.statistics`."""
    from a2fjax.tasks import statistics

    return statistics.constants(config, folders, encoders)
