"""From plain values to the dataclasses: unknown keys, wrong types and ranges are named."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from a2fjax import registry
from a2fjax.config.values import DataConfig, OptimConfig
from a2fjax.errors import InputError, nearest

SIGNALS = ("mel", "pitch")
"""Features that are computed from the waveform alone."""

CHOICES: dict[str, tuple[str, ...]] = {
    "precision": ("float32", "bfloat16"),
    "data.on_bad_record": ("skip", "raise"),
    "model.kind": ("regression", "diffusion", "conv_w2v_autocorr", "diffusion_rnn"),
    "model.diffusion.schedule": ("cosine", "linear"),
    "model.diffusion.target": ("v", "x0", "eps"),
    "model.diffusion.sample.sampler": ("angle", "dpm", "ddim", "ddpm", "consistency"),
    "model.nvidia.head": ("rig", "geometry"),
    "model.nvidia.sampler": ("ddpm", "ddim"),
    "model.recurrent": ("bidirectional", "causal"),
    "model.identity": ("mesh", "none"),
    "audio.encoder.precision": ("float32", "bfloat16"),
    "data.encoder_features": ("live", "cached"),
    "sharding.preset": ("", "replicate", "host", "all", "auto"),
    "remat": ("none", "dots"),
}
POSITIVE = (
    "steps accumulate log.profile_steps data.batch_size data.window_frames data.identity_points "
    "data.threads data.prefetch "
    "model.conv_layers model.conv_width model.recurrent_width model.identity_width "
    "model.emotion_width optim.learning_rate checkpoint.every_steps checkpoint.keep_latest "
    "log.every_steps eval.batches loss.closure_width audio.encoder.width data.context_frames "
    "audio.encoder.time_mask_frames model.nvidia.skin model.nvidia.width model.nvidia.steps "
    "model.nvidia.recurrent_width model.nvidia.recurrent_layers model.nvidia.sample_steps "
    "model.nvidia.solve_error model.diffusion.blocks model.diffusion.heads model.diffusion.window "
    "model.diffusion.snr_limit model.diffusion.distill_levels model.diffusion.sample.steps"
).split()
NON_NEGATIVE = (
    "data.workers sharding.min_mib log.profile_step log.hang_minutes model.past_frames "
    "model.future_frames model.dropout model.condition_dropout "
    "model.residual_dropout model.emotion_dropout "
    "loss.position loss.velocity loss.aperture loss.closure loss.balance optim.warmup_steps "
    "optim.weight_decay optim.clip_norm optim.ema_decay eval.every_steps checkpoint.keep_best "
    "data.augment.gain_db data.augment.eq_db data.augment.noise_prob data.augment.speed "
    "data.augment.silence_prob data.augment.mirror_prob checkpoint.every_minutes "
    "optim.b1 optim.b2 optim.final_fraction audio.encoder.learning_rate audio.encoder.noise "
    "audio.encoder.dropout audio.encoder.time_mask audio.encoder.part_dropout "
    "model.nvidia.tongue model.nvidia.actors model.nvidia.recurrent_dropout model.nvidia.vol_stab "
    "model.nvidia.lip_dist model.nvidia.emo_reg model.nvidia.exp_smooth "
    "model.diffusion.reach model.diffusion.dropout model.diffusion.pure_noise "
    "model.diffusion.coarse model.diffusion.audio_dropout model.diffusion.distill_steps "
    "model.diffusion.sample.eta model.diffusion.sample.audio model.diffusion.sample.emotion "
    "model.diffusion.sample.identity"
).split()
AT_MOST_ONE = (
    "model.condition_dropout data.augment.noise_prob data.augment.silence_prob "
    "model.residual_dropout model.emotion_dropout "
    "data.augment.mirror_prob optim.final_fraction audio.encoder.part_dropout "
    "loss.balance model.diffusion.pure_noise model.diffusion.audio_dropout "
    "model.diffusion.sample.eta"
).split()
BELOW_ONE = (
    "model.dropout optim.b1 optim.b2 optim.ema_decay audio.encoder.dropout audio.encoder.time_mask "
    "model.nvidia.recurrent_dropout model.diffusion.dropout"
).split()


def build(kind: Any, values: Mapping[str, Any], *, where: str, prefix: str = "") -> Any:
    """Returns the dataclass `kind` with `values`, checked for unknown keys, types and ranges.

    Raises:
      InputError: names the key, the value and what was expected.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}
    out: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if key not in fields:
            raise InputError(f"{where}: unknown key {path!r}{nearest(key, fields)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise InputError(f"{where}: {path}={value!r}: expected a group of keys")
            out[key] = build(hint, value, where=where, prefix=path + ".")
        else:
            out[key] = _check(_convert(hint, value, path, where), path, where)
    built = kind(**out)
    if kind is DataConfig and built.weights and built.shards:
        check_weights(built.weights, built.shards, where=f"{where}: ")
    return built


def check_schedule(config: OptimConfig, steps: int) -> None:
    """Checks that the schedule of learning rates fits the run.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    if config.warmup_steps >= steps:
        raise InputError(
            f"config: optim.warmup_steps={config.warmup_steps}: expected fewer than steps={steps}; "
            f"add --config.optim.warmup_steps={steps // 10}"
        )


def check_weights(weights: Sequence[float], folders: Sequence[str], *, where: str = "") -> None:
    """Checks the weights of a mixture of sets.

    Raises:
      InputError: not one for each folder, one that is negative, not finite or of no effect, or
        all are 0.
    """
    shown = f"{where}data.weights={tuple(weights)!r}"
    if len(weights) != len(folders):
        raise InputError(
            f"{shown}: expected one for each folder of data.shards ({len(folders)}), "
            f"got {len(weights)}"
        )
    for weight, folder in zip(weights, folders, strict=True):
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(f"{shown}: {weight!r} of {folder}: expected a number of at least 0")
    if not any(weights):
        raise InputError(f"{shown}: expected at least one above 0")
    for weight, folder in zip(weights, folders, strict=True):
        if 0 < weight < 1e-9 * max(weights):
            raise InputError(f"{shown}: {weight!r} of {folder} would never be drawn: give 0")


def _convert(hint: Any, value: Any, path: str, where: str) -> Any:
    def wrong(expected: str) -> InputError:
        return InputError(f"{where}: {path}={value!r}: expected {expected}")

    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, str) and typing.get_args(hint)[0] is str:
            value = [v for v in value.split(",") if v]
        if not isinstance(value, (list, tuple)):
            raise wrong("a list")
        args = typing.get_args(hint)
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, path, where) for v in value)
        if len(args) != len(value):
            raise wrong(f"{len(args)} values")
        return tuple(_convert(a, v, path, where) for a, v in zip(args, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise wrong("names with values")
        item = typing.get_args(hint)[1]
        return {str(k): _convert(item, v, f"{path}.{k}", where) for k, v in value.items()}
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = [a for a in typing.get_args(hint) if a is not type(None)]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise wrong(f"a value of type {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise wrong("a finite number")
    return value


def _check(value: Any, path: str, where: str) -> Any:
    if path in CHOICES:
        for item in value if isinstance(value, tuple) else (value,):
            if item not in CHOICES[path]:
                raise InputError(f"{where}: {path}={item!r}{nearest(item, CHOICES[path])}")
    if path in POSITIVE and not value > 0:
        raise InputError(f"{where}: {path}={value!r}: expected a value above 0")
    if path in NON_NEGATIVE and not value >= 0:
        raise InputError(f"{where}: {path}={value!r}: expected a value of at least 0")
    if path in AT_MOST_ONE and not value <= 1:
        raise InputError(f"{where}: {path}={value!r}: expected a share of at most 1")
    if path in BELOW_ONE and not value < 1:
        raise InputError(f"{where}: {path}={value!r}: expected a value below 1")
    if path == "audio.features":
        for item in value:
            kind, colon, rest = item.partition(":")
            encoders = registry.encoders.names()
            known = encoders if colon else SIGNALS
            if kind not in known or (colon and not rest):
                # Of an encoder only the kind is compared: a path has no nearest valid choice.
                near = nearest(kind, [*(() if colon else SIGNALS), *encoders])
                near = re.sub(f"({'|'.join(encoders)})", r"\1:PATH", near)
                near = near.replace("PATH", rest or "PATH")
                raise InputError(f"{where}: {path}={item!r}{near}")
    if path == "audio.encoder.layers" and value < -1:
        raise InputError(f"{where}: {path}={value!r}: expected -1 (all layers) or at least 0")
    if path == "audio.encoder.train_from" and value is not None and value < -1:
        raise InputError(
            f"{where}: {path}={value!r}: expected None (frozen), a layer from 0 on, or -1 for what "
            "comes before the layers as well"
        )
    if path == "sharding.rules":
        for pattern, rule in value.items():
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"{where}: {path}: {pattern!r} is no expression ({error})"
                ) from None
            if rule != "replicate" and not rule.isdecimal():
                raise InputError(
                    f"{where}: {path}: {pattern!r}: {rule!r}: expected 'replicate' or the number "
                    "of an axis"
                )
    if path == "loss.group_weights":
        from a2fjax.rig import GROUPS

        for name in value:
            if name not in GROUPS:
                raise InputError(f"{where}: {path}: unknown group {name!r}{nearest(name, GROUPS)}")
    return value
