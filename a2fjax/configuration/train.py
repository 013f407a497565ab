"""Settings of training: loss, optimiser, sharding, checkpoints, evaluation and logs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar

from a2fjax import registry, rig
from a2fjax.configuration.bounds import (
    Choice,
    Keys,
    NamedSettings,
    NonNegative,
    Positive,
    Rule,
    Share,
    ShareBelowOne,
)
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossTermConfig:
    """Settings that every added loss term has; a term with settings of its own extends it.

    Attributes:
      weight: factor of the term in the loss.
    """

    weight: Annotated[float, NonNegative] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the loss terms; a term of weight 0 is not computed.

    Attributes:
      position: weight of the masked mean squared error of the channels (angles / 30 degrees).
      velocity: weight of the squared error of the frame difference, lambda_vel.
      aperture: weight of the squared error of the lip aperture.
      closure: weight of the aperture's error where the truth is nearly closed
        (exp(-gap / closure_width)).
      closure_width: gap at which `closure` has fallen to 1/e, in rig units.
      balance: how far channels that move little count as much as those that move much, from 0 (an
        error is an error) to 1 (errors in units of each channel's deviation): lips roll by a sixth
        of what the jaw opens, and a squared error of that hardly counts.
      group_weights: factor of position and velocity by channel group of `rig.GROUPS`, multiplied
        where groups overlap.
      terms: further terms by registered name, each with its settings: {"jerk": {"weight": 0.1}}.
      sync: run folders of sync experts (docs/sync.md) that judge whether the predicted motion is in
        step with the speech. Only training reads them.
      sync_weights: weight of each expert's term, or one number for all of them. A term is 0 for the
        true motion and 1 for that of another clip, whichever the expert.
      sync_start: updates before the experts count.
      sync_ramp: updates over which their weight then rises from 0 to the whole; 0 for at once.
      sync_least_alpha: least share alpha of clean motion at which the experts judge a diffusion
        model; with more noise the denoised motion is a mean of several.
      sync_unchecked: takes experts that have not passed their gate; reports on the run say so.
      sync_adversary: run folder of a contrastive expert that a discriminator starts from, which is
        trained beside the motion model; "" for none. Only training reads it.
      sync_adversary_weight: weight of the discriminator's term in the motion model's loss, which is
        0 for the true motion and 1 for what the discriminator rejects with full margin.
      sync_adversary_rate: peak learning rate of the discriminator; the rest of its optimiser is as
        in `optim`.
      sync_adversary_penalty: factor gamma of half the squared gradient of the discriminator on true
        motion, in standard deviations (R1).
    """

    BUILT_IN: ClassVar[tuple[str, ...]] = ("position", "velocity", "aperture", "closure")

    position: Annotated[float, NonNegative] = 1.0
    velocity: Annotated[float, NonNegative] = 1.0
    aperture: Annotated[float, NonNegative] = 1.0
    closure: Annotated[float, NonNegative] = 1.0
    closure_width: Annotated[float, Positive] = 0.05
    balance: Annotated[float, Share] = 0.0
    group_weights: Annotated[Mapping[str, float], Keys("group", *rig.GROUPS)] = dataclasses.field(
        default_factory=dict
    )
    terms: Annotated[
        Mapping[str, LossTermConfig], NamedSettings(registry.losses, LossTermConfig)
    ] = dataclasses.field(default_factory=dict)
    sync: tuple[str, ...] = ()
    sync_weights: Annotated[tuple[float, ...], Positive] = (0.02,)
    sync_start: Annotated[int, NonNegative] = 200
    sync_ramp: Annotated[int, NonNegative] = 800
    sync_least_alpha: Annotated[float, Share] = 0.7
    sync_unchecked: bool = False
    sync_adversary: str = ""
    sync_adversary_weight: Annotated[float, Positive] = 0.02
    sync_adversary_rate: Annotated[float, Positive] = 2e-4
    sync_adversary_penalty: Annotated[float, NonNegative] = 1.0

    @property
    def sync_runs(self) -> tuple[str, ...]:
        """Run folders of all experts that training reads: of `sync` and of `sync_adversary`."""
        return (*self.sync, *((self.sync_adversary,) if self.sync_adversary else ()))

    def validate(self, where: str = "config") -> None:
        """Checks that `terms` names no built-in term, and that every expert has one weight.

        Raises:
          InputError: names the key.
        """
        for name in self.BUILT_IN:
            if name in self.terms:
                raise InputError(f"{where}: loss.terms.{name}: a built-in term; set loss.{name}")
        for run in self.sync:
            if self.sync.count(run) > 1:
                raise InputError(f"{where}: loss.sync: {run} stands twice; expected other runs")
        if self.sync and len(self.sync_weights) not in (1, len(self.sync)):
            raise InputError(
                f"{where}: loss.sync_weights={self.sync_weights!r}: expected one number, or one "
                f"for each of the {len(self.sync)} experts of loss.sync"
            )

    def sync_weight(self, index: int) -> float:
        """Returns the weight of an expert's term.

        Args:
          index: position in `sync`.
        """
        return self.sync_weights[index if len(self.sync_weights) > 1 else 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warm-up and cosine decay.

    Attributes:
      learning_rate: peak learning rate.
      final_fraction: share of the peak that is left at the last step.
      warmup_steps: steps of linear warm-up from zero.
      weight_decay: decoupled weight decay, of matrices only, not of biases and scales.
      b1, b2: Adam's decay rates of the two moments.
      eps: Adam's epsilon.
      clip_norm: limit of the global gradient norm; 0 for none.
      ema_decay: decay of the averaged parameters that evaluation and export use; 0 for none.
    """

    learning_rate: Annotated[float, Positive] = 2e-3
    final_fraction: Annotated[float, Share] = 0.01
    warmup_steps: Annotated[int, NonNegative] = 100
    weight_decay: Annotated[float, NonNegative] = 1e-2
    b1: Annotated[float, ShareBelowOne] = 0.9
    b2: Annotated[float, ShareBelowOne] = 0.99
    eps: float = 1e-8
    clip_norm: Annotated[float, NonNegative] = 1.0
    ema_decay: Annotated[float, ShareBelowOne] = 0.999


def check_schedule(config: OptimConfig, steps: int) -> None:
    """Checks that the learning-rate schedule fits the run.

    Raises:
      InputError: names the key, its value and what was expected.
    """
    if config.warmup_steps >= steps:
        raise InputError(
            f"config: optim.warmup_steps={config.warmup_steps}: expected fewer than steps={steps}; "
            f"add --config.optim.warmup_steps={steps // 10}"
        )


def _rules_problem(rules: Mapping[str, str]) -> str:
    for pattern, rule in rules.items():
        try:
            re.compile(pattern)
        except re.error as error:
            return f": {pattern!r} is not a regular expression ({error})"
        if rule != "replicate" and not rule.isdecimal():
            return f": {pattern!r}: {rule!r}: expected 'replicate' or the number of an axis"
    return ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingConfig:
    """How many devices hold one copy of the state together, and which arrays are sharded.

    Attributes:
      data: copies of the state; -1 takes the remaining devices.
      fsdp: devices that share a copy, each holding a shard of the large arrays; -1 takes the
        remaining devices.
      preset: "" uses the two numbers above. "replicate" is a copy on each device, "host" one shared
        by the devices of a host, whose links are fast, "all" one shared by all, and "auto" the
        first of these that leaves most of each device's memory to activations
        (`sharding.device_mesh.resolve_preset`).
      rules: sharding of arrays by path (as the parameter table writes them) instead of along the
        longest axis: regular expression -> "replicate", or the number of the axis to shard. The
        first expression found in a path applies.
      min_mib: arrays smaller than this stay whole on each device: gathering them costs more than
        it saves.
    """

    data: int = -1
    fsdp: int = 1
    preset: Annotated[str, Choice("", "replicate", "host", "all", "auto")] = ""
    rules: Annotated[
        Mapping[str, str], Rule('"replicate" or an axis by expression', _rules_problem)
    ] = dataclasses.field(default_factory=dict)
    min_mib: Annotated[float, NonNegative] = 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When states are saved and which are kept.

    Attributes:
      every_steps: steps between saves; the last one is saved as well.
      every_minutes: saves also whenever this long has passed since the last save; 0 for never.
      keep_latest: newest states kept.
      keep_best: best states kept, by `best_metric`.
      best_metric: logged evaluation value that ranks states; lower is better.
    """

    every_steps: Annotated[int, Positive] = 200
    every_minutes: Annotated[float, NonNegative] = 0.0
    keep_latest: Annotated[int, Positive] = 2
    keep_best: Annotated[int, NonNegative] = 1
    best_metric: str = "eval/loss"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """Loss and quick metrics on held-out windows while training.

    Attributes:
      split: part of the manifest to evaluate on.
      every_steps: steps between evaluations; also after the last step. 0 for never.
      batches: number of batches.
    """

    split: str = "val"
    every_steps: Annotated[int, NonNegative] = 200
    batches: Annotated[int, Positive] = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Console lines, metrics and profiles of a training run.

    Attributes:
      every_steps: steps between lines in metrics.jsonl and on the console.
      wandb: mirrors metrics to Weights & Biases (offline without an account).
      wandb_project: name of the project there.
      profile_step: update from which on a few are traced into RUN/profile, which TensorBoard and
        Perfetto open; 0 for none.
      profile_steps: number of updates traced.
      hang_minutes: without a finished update, evaluation batch or save for this long, every process
        prints where its threads stand and ends with exit code 70; 0 for never. Compiling may take
        ten times as long.
    """

    every_steps: Annotated[int, Positive] = 20
    wandb: bool = False
    wandb_project: str = "a2fjax"
    profile_step: Annotated[int, NonNegative] = 0
    profile_steps: Annotated[int, Positive] = 3
    hang_minutes: Annotated[float, NonNegative] = 10.0
