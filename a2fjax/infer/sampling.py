"""Sampling settings of diffusion models that can be changed after training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from a2fjax import configuration as config_lib
from a2fjax.errors import InputError, nearest

PREFIX = "model.sample."

CONDITIONS = ("audio", "emotion", "identity")
"""Conditions with a guidance strength in `model.sample`."""


def is_sampled(config: config_lib.Config) -> bool:
    """Returns True if the configured model draws samples from a distribution."""
    return isinstance(config.model, config_lib.DiffusionConfig)


def with_sampling(config: config_lib.Config, values: Mapping[str, Any]) -> config_lib.Config:
    """Returns the configuration with values of `model.sample` replaced.

    Raises:
      InputError: not a diffusion model, or settings that the model does not support.
    """
    if not values:
        return config
    if not is_sampled(config):
        raise InputError(
            f"{', '.join(values)}: model.kind={config.model.kind!r} gives one motion for one "
            "recording; expected a run of model.kind='diffusion'"
        )
    from a2fjax.models import diffusion_checks

    settings = config.model
    assert isinstance(settings, config_lib.DiffusionConfig)
    guidance = [name for name in CONDITIONS if name in values]
    if settings.distill_steps and guidance:
        raise InputError(
            f"{', '.join(guidance)}: a student's guidance is what its teacher was given while it "
            "learnt; distil with other values of model.sample"
        )
    merged = dataclasses.asdict(settings.sample) | dict(values)
    sample = config_lib.build(config_lib.SampleConfig, merged, where="sampling", prefix=PREFIX)
    model = dataclasses.replace(settings, sample=sample)
    diffusion_checks.check_sampling(model)
    return dataclasses.replace(config, model=model)


def parse_guidance(guidance: str | Mapping[str, float] | None) -> dict[str, float]:
    """Parses guidance strengths from a mapping or text such as `audio=1.5,emotion=2`.

    Example:
        >>> parse_guidance("audio=1.5, emotion=2")
        {'audio': 1.5, 'emotion': 2.0}

    Raises:
      InputError: an unknown condition, or not a number of at least 0.
    """
    if not guidance:
        return {}
    if isinstance(guidance, str):
        pairs = [tuple(p.strip() for p in part.partition("=")[::2]) for part in guidance.split(",")]
    else:
        pairs = [(name, str(value)) for name, value in guidance.items()]
    strengths: dict[str, float] = {}
    for name, number in pairs:
        if name not in CONDITIONS:
            raise InputError(
                f"guidance {name}={number}: unknown condition{nearest(name, CONDITIONS)}"
            )
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise InputError(f"guidance {name}={number}: expected NAME=X with X of at least 0")
        strengths[name] = value
    return strengths
