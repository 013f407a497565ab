"""Networks as two pure functions, `init` and `apply`; see `a2fjax.models.base.Model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from a2fjax import registry

if TYPE_CHECKING:
    from a2fjax.configuration import Config
    from a2fjax.models.base import Model
    from a2fjax.models.pretrained import Encoders


def build(
    config: Config,
    constants: Mapping[str, np.ndarray] | None = None,
    encoders: Encoders | None = None,
) -> Model:
    """Builds the model of a configuration.

    Args:
      config: the whole experiment; uses `model`, `audio` and `precision`.
      constants: statistics of the training data that `init` returns as the collection "constants",
        computed by `a2fjax.tasks.constants`; None if the variables come from a checkpoint.
      encoders: encoders by key, from `a2fjax.models.pretrained.load` or `restore`; None reads the
        configured ones.

    Raises:
      InputError: an encoder cannot be read.

    Example:
        >>> import jax
        >>> from a2fjax.batch import Batch
        >>> from a2fjax.configuration import Config
        >>> model = build(Config())
        >>> batch = Batch.spec(size=2, frames=50, points=64)
        >>> variables = jax.eval_shape(model.init, jax.random.key(0), batch)
        >>> jax.eval_shape(model.apply, variables, batch)["motion"].shape
        (2, 50, 72)
    """
    target = registry.models.get(config.model.kind, where="config: model.kind: ").load()
    make = getattr(target, "build", target)
    return cast("Model", make(config, constants, encoders).model)
