"""Registers the loss term "jerk"."""

import dataclasses
from typing import Annotated

from a2fjax import registry
from a2fjax.configuration import LossTermConfig
from a2fjax.configuration.bounds import NonNegative


@dataclasses.dataclass(frozen=True, kw_only=True)
class JerkConfig(LossTermConfig):
    """Third difference of the predicted motion.

    Attributes:
      tolerance: jerk, in rig units a frame, that costs nothing.
    """

    tolerance: Annotated[float, NonNegative] = 0.0


registry.losses.register("jerk", "a2f_example_loss.jerk:jerk", settings=JerkConfig)
