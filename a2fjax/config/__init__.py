"""Experiment values become frozen dataclasses, once; an unknown key is an error with near names.

An experiment is a Python file with `get_config(variant="") -> ml_collections.ConfigDict` of plain
values. `load` reads it, applies `--config.path.to.key=value` overrides and returns a `Resolved`:
the dataclasses every room works from, where each value came from, and a fingerprint.

values   the dataclasses
checks   types, ranges and names
read     files, overrides and a run's config.json
"""

from a2fjax.config.checks import (
    AT_MOST_ONE,
    BELOW_ONE,
    CHOICES,
    NON_NEGATIVE,
    POSITIVE,
    SIGNALS,
    build,
    check_schedule,
    check_weights,
)
from a2fjax.config.read import (
    Resolved,
    digest,
    fingerprint,
    flatten,
    from_json,
    load,
    parse_overrides,
    parse_value,
)
from a2fjax.config.values import (
    AudioConfig,
    AugmentConfig,
    CheckpointConfig,
    Config,
    DataConfig,
    DiffusionConfig,
    EncoderConfig,
    EvalConfig,
    LogConfig,
    LossConfig,
    ModelConfig,
    NvidiaConfig,
    OptimConfig,
    SampleConfig,
    ShardingConfig,
)

__all__ = [
    "AT_MOST_ONE",
    "AudioConfig",
    "AugmentConfig",
    "BELOW_ONE",
    "CHOICES",
    "CheckpointConfig",
    "Config",
    "DataConfig",
    "DiffusionConfig",
    "EncoderConfig",
    "EvalConfig",
    "LogConfig",
    "LossConfig",
    "ShardingConfig",
    "ModelConfig",
    "NON_NEGATIVE",
    "NvidiaConfig",
    "OptimConfig",
    "POSITIVE",
    "Resolved",
    "SIGNALS",
    "SampleConfig",
    "build",
    "check_schedule",
    "check_weights",
    "digest",
    "fingerprint",
    "flatten",
    "from_json",
    "load",
    "parse_overrides",
    "parse_value",
]
