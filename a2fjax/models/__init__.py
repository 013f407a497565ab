"""Networks as two pure functions, `init` and `apply`; see `a2fjax.models.base.Model`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

import numpy as np

from a2fjax import registry

if TYPE_CHECKING:
    from a2fjax.config import Config
    from a2fjax.models.base import Model
    from a2fjax.models.pretrained import Encoders


def build(
    config: Config,
    constants: Mapping[str, np.ndarray] | None = None,
    encoders: Encoders | None = None,
) -> Model:
    """Returns the model of a configuration.

    Args:
      config: whole experiment; `model`, `audio` and `precision` matter here.
      constants: statistics of the training data that `init` puts into the parameters, as
        `a2fjax.tasks.constants` computes them; None where `init` is not used for its values,
        because parameters come from a checkpoint.
      encoders: by key, as `a2fjax.models.pretrained.load` or `restore` give them; None reads
        those that the configuration names.

    Raises:
      InputError: an encoder cannot be read.
    """
    build_task = registry.models.get(config.model.kind, where="config: model.kind: ").load()
    return cast("Model", build_task(config, constants, encoders).model)
