"""Experiments become frozen dataclasses, once; an unknown key is an error with near names.

An experiment is a Python file with `get_config(variant="") -> ml_collections.ConfigDict` of plain
values. `load` reads it, applies `--config.path.to.key=value` overrides and returns a `Resolved`:
the dataclasses, where each value came from, and a fingerprint.

experiment                            `Config`, the whole
audio, data, models, nvidia, sync, train    its groups, with bounds and meaning beside each field
bounds                                the bounds
build                                 from plain values to the dataclasses
plugins                               digests of plugins' code
read                                  files, overrides and a run's config.json
reference                             every key with its meaning, for people
"""

from a2fjax.configuration.audio import SIGNALS, AudioConfig, EncoderConfig
from a2fjax.configuration.build import build, build_config
from a2fjax.configuration.data import AugmentConfig, DataConfig, check_weights
from a2fjax.configuration.experiment import Config
from a2fjax.configuration.models import (
    BackboneConfig,
    ConditionedConfig,
    DiffusionConfig,
    ModelConfig,
    RegressionConfig,
    SampleConfig,
    StreamingConfig,
    UNetConfig,
)
from a2fjax.configuration.nvidia import ConvW2vAutocorrConfig, DiffusionRnnConfig, NvidiaConfig
from a2fjax.configuration.plugins import warn as warn_plugin_changes
from a2fjax.configuration.read import (
    Resolved,
    check_sealed,
    digest,
    fingerprint,
    flatten,
    from_json,
    load,
    parse_overrides,
    parse_value,
)
from a2fjax.configuration.sync import SyncConfig, SyncnetConfig, SyncnetInverseConfig
from a2fjax.configuration.train import (
    CheckpointConfig,
    EvalConfig,
    LogConfig,
    LossConfig,
    LossTermConfig,
    OptimConfig,
    ShardingConfig,
    check_schedule,
)

__all__ = [
    "AudioConfig",
    "AugmentConfig",
    "BackboneConfig",
    "CheckpointConfig",
    "ConditionedConfig",
    "Config",
    "ConvW2vAutocorrConfig",
    "DataConfig",
    "DiffusionConfig",
    "DiffusionRnnConfig",
    "EncoderConfig",
    "EvalConfig",
    "LogConfig",
    "LossConfig",
    "LossTermConfig",
    "ModelConfig",
    "NvidiaConfig",
    "OptimConfig",
    "RegressionConfig",
    "Resolved",
    "SIGNALS",
    "SampleConfig",
    "ShardingConfig",
    "StreamingConfig",
    "SyncConfig",
    "SyncnetConfig",
    "SyncnetInverseConfig",
    "UNetConfig",
    "build",
    "build_config",
    "check_schedule",
    "check_weights",
    "digest",
    "fingerprint",
    "flatten",
    "check_sealed",
    "from_json",
    "load",
    "parse_overrides",
    "parse_value",
    "warn_plugin_changes",
]
