"""Registers the network "tiny_conv"."""

import dataclasses

from a2fjax import configuration, registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyConvConfig(configuration.ModelConfig):
    """One convolution over the signals.

    Attributes:
      width: channels of the convolution.
    """

    width: int = 32


registry.models.register("tiny_conv", "a2f_example_model.task:build", settings=TinyConvConfig)
