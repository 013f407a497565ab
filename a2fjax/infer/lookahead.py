"""Which models stream, and with which look-ahead; without JAX."""

from __future__ import annotations

import dataclasses

from a2fjax.configuration import Config, DiffusionConfig, StreamingConfig
from a2fjax.errors import InputError

TRAIN = "experiments/regression_v2_3.py:streaming"
"""Experiment of the model that streams."""


def can_stream(config: Config) -> bool:
    """Returns whether the model of a configuration hears frame by frame."""
    return isinstance(config.model, StreamingConfig)


def streams_in_chunks(config: Config) -> bool:
    """Returns whether the model of a configuration streams chunk by chunk."""
    return isinstance(config.model, DiffusionConfig)


def with_lookahead(config: Config, lookahead_ms: int | None) -> Config:
    """Returns the configuration with another look-ahead; None leaves it as it is.

    Raises:
      InputError: the model has no such look-ahead, or none to choose.
    """
    if lookahead_ms is None:
        return config
    if not isinstance(config.model, StreamingConfig):
        raise InputError(
            f"lookahead_ms={lookahead_ms}: model.kind={config.model.kind!r} has no look-ahead to "
            f"choose; train {TRAIN}"
        )
    config.model.check_lookahead(lookahead_ms, where="lookahead_ms")
    model = dataclasses.replace(config.model, lookahead_ms=lookahead_ms)
    return dataclasses.replace(config, model=model)


def check_can_stream(config: Config) -> None:
    """Checks that a model hears frame by frame.

    Raises:
      InputError: it does not; says what to train instead.
    """
    if can_stream(config):
        return
    why = "hears the whole clip"
    if streams_in_chunks(config):
        why = "makes motion in chunks (Model.stream)"
    raise InputError(
        f"model.kind={config.model.kind!r} {why} and cannot stream frame by frame; train {TRAIN}"
    )
