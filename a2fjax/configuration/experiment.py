"""A whole experiment as one frozen dataclass."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

from a2fjax import registry
from a2fjax.configuration.audio import AudioConfig
from a2fjax.configuration.bounds import Choice, KindOf, Positive
from a2fjax.configuration.data import DataConfig
from a2fjax.configuration.models import ModelConfig, RegressionConfig
from a2fjax.configuration.train import (
    CheckpointConfig,
    EvalConfig,
    LogConfig,
    LossConfig,
    OptimConfig,
    ShardingConfig,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole experiment, resolved.

    Attributes:
      name: name of the experiment.
      plugins: importable packages that register parts of their own: encoders, losses, metrics,
        models, sources, schedulers, writers. Imported before the rest of the configuration is
        read; a digest of their code is saved with the run.
      allow_plugin_changes: continues a run although the code of its plugins has changed.
      seed: seed of parameters, data order, augmentation and dropout.
      steps: optimiser updates.
      precision: precision of activations; parameters and losses stay float32.
      accumulate: number of microbatches that a batch is computed in for its gradient; must divide
        the batch. Sums are those of the whole batch, whatever is masked where; only the draws of
        dropout and noise differ from those of another number.
      remat: what is kept of the forward pass for the backward one: "none" keeps everything,
        "dots" keeps the results of matrix products and convolutions and recomputes the rest.
      task: class that joins model and losses, "package.module:Class", in the place of the one of
        the model's kind; see `a2fjax.tasks.resolve`.
      init_from: run folder whose averaged weights training starts from, with its constants and
        encoders; "" starts at random.
      audio: audio features.
      data: data sets, windows and batches.
      model: the network; its keys are those of its kind.
      loss: weights of the loss terms.
      optim: optimiser and learning rate.
      sharding: distribution over devices.
      checkpoint: when states are saved and which are kept.
      eval: evaluation while training.
      log: logs and profiles.
    """

    name: str = "experiment"
    plugins: tuple[str, ...] = ()
    allow_plugin_changes: bool = False
    seed: int = 0
    steps: Annotated[int, Positive] = 1000
    precision: Annotated[str, Choice("float32", "bfloat16")] = "float32"
    accumulate: Annotated[int, Positive] = 1
    remat: Annotated[str, Choice("none", "dots")] = "none"
    task: str = ""
    init_from: str = ""
    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: Annotated[ModelConfig, KindOf(registry.models, ModelConfig, "regression")] = (
        dataclasses.field(default_factory=RegressionConfig)
    )
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    eval: EvalConfig = dataclasses.field(default_factory=EvalConfig)
    log: LogConfig = dataclasses.field(default_factory=LogConfig)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Imports the plugins where a pickled configuration is read: in loaders' worker processes.

        Raises:
          InputError: one cannot be imported there.
        """
        registry.load_plugins(state["plugins"])
        self.__dict__.update(state)
