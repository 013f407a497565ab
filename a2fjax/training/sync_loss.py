"""Sync experts as losses of a run: loaded, checked and recorded.

A run's folder has `FILE`, which names the checkpoint of each expert by the fingerprint of its
weights, with the constants of its term. A resumed run takes the same weights and constants or
stops. Checkpoints hold nothing of the experts, and only training reads their folders.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from a2fjax import budgets, files, sealed_json, typed_json
from a2fjax.configuration import Config
from a2fjax.data.dataset import ClipSource
from a2fjax.encoders.feature_names import feature_keys
from a2fjax.errors import InputError
from a2fjax.models.audio_features import COLLECTION as ENCODERS
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.syncnet import timing
from a2fjax.models.syncnet.model import SyncModel, Syncnet
from a2fjax.sync import normalisation
from a2fjax.tasks.adversary import Adversary, first_params
from a2fjax.tasks.base import Task
from a2fjax.tasks.sync_loss import LossExpert, SyncedMotionTask
from a2fjax.training import starting_point, sync_experts
from a2fjax.training.distributed import broadcast
from a2fjax.training.sync_experts import LoadedExpert

FILE = "sync_experts.json"
"""Name of the record in a run folder."""

LEAST_DIFFERENCE = 0.05
"""Least difference between the mean scores of true and of other motion for a discriminator."""


@dataclasses.dataclass(frozen=True)
class Record:
    """An expert that a run was trained with.

    Attributes:
      run: its run folder, as configured.
      kind: kind of its network.
      step: its checkpoint.
      weights: `sync.verdict.fingerprint` of its variables.
      passed: whether it had passed its gate.
      scale, gap: constants of its term; see `sync.normalisation`.
      start: the mean scores "right" and "wrong" (`sync.normalisation`) of an expert that a
        discriminator started from; None for an expert of `loss.sync`.
    """

    run: str
    kind: str
    step: int
    weights: str
    passed: bool
    scale: float
    gap: float
    start: tuple[float, float] | None = None


def recorded(run: str | Path) -> list[Record]:
    """Returns the experts that a run was trained with; [] for a run without.

    Raises:
      InputError: the record is damaged.
    """
    path = Path(run) / FILE
    if not path.is_file():
        return []
    values = budgets.load_json(path)
    if not (isinstance(values, dict) and sealed_json.is_sealed(values)):
        raise InputError(f"{path}: was changed after it was written; restore the file")
    return typed_json.build(list[Record], values.get("experts"), name=str(path))


def write(run: Path, experts: Sequence[Record]) -> None:
    """Writes the record of a run with experts."""
    if experts:
        values = {"experts": [dataclasses.asdict(expert) for expert in experts]}
        files.write_text(run / FILE, json.dumps(sealed_json.seal(values), indent=1) + "\n")


def attach(
    task: Task, config: Config, workdir: Path, encoders: Encoders
) -> tuple[Task, list[Record]]:
    """Returns the task with the experts of `config.loss`, and their records.

    Every process of a run calls this; the first one measures the constants of the terms.

    Args:
      task: the task to train.
      config: configuration of the run.
      workdir: its folder, whose record binds once it has a checkpoint.
      encoders: encoders of the run.

    Raises:
      InputError: the task takes no experts; an expert that cannot be loaded, failed its gate, does
        not fit the run's windows and features, or has other weights than the run began with; a
        discriminator that does not start from a contrastive expert.
    """
    names = config.loss.sync_runs
    if not names:
        return task, []
    if not isinstance(task, SyncedMotionTask):
        raise InputError(
            f"config: loss.{'sync' if config.loss.sync else 'sync_adversary'} with "
            f"model.kind={config.model.kind!r}: only regression and diffusion have losses by sync "
            "experts; leave it out"
        )
    task.with_experts(())  # Refuses before anything is read.
    before: list[Record] = []
    if starting_point.has_checkpoint(workdir):
        before = recorded(workdir)
        if [record.run for record in before] != list(names):
            raise InputError(
                f"{workdir / FILE}: does not name the experts of loss.sync={','.join(names)}, "
                "which the run began with; restore the file"
            )
    loaded = [_load(config, name, before[i] if before else None) for i, name in enumerate(names)]
    if config.loss.sync_adversary and not isinstance(loaded[-1].expert.model, Syncnet):
        raise InputError(
            f"config: loss.sync_adversary={names[-1]!r}: holds a {loaded[-1].expert.name!r}; "
            "expected a contrastive expert ('syncnet')"
        )
    keys = [
        _feature_keys(config, name, one, encoders) for name, one in zip(names, loaded, strict=True)
    ]
    records = before or _measured(config, loaded)
    experts: list[LossExpert] = []
    adversary = None
    for one, record, features in zip(loaded, records, keys, strict=True):
        variables = {k: v for k, v in one.expert.variables.items() if k != ENCODERS or not features}
        plain = jax.tree.map(np.asarray, variables)
        model = one.expert.model
        if record.start is None:
            experts.append(LossExpert(model, plain, record.scale, record.gap, features))
        else:
            adversary = _adversary(config, model, record, plain, features)
    return task.with_experts(experts, adversary), records


def _adversary(
    config: Config,
    model: SyncModel,
    record: Record,
    variables: Params,
    features: Mapping[str, str],
) -> Adversary:
    """Returns the discriminator that starts from an expert.

    Raises:
      InputError: the expert gives true motion hardly higher scores than that of other clips.
    """
    assert isinstance(model, Syncnet)
    right, wrong = record.start or (0.0, 0.0)
    if not right - wrong >= LEAST_DIFFERENCE:
        raise InputError(
            f"config: loss.sync_adversary={record.run!r}: gives true motion a mean score of "
            f"{right:.3f} and that of other clips {wrong:.3f}; expected {LEAST_DIFFERENCE} more"
        )
    return Adversary(
        model,
        params=first_params(variables["params"], right, wrong),
        frozen={k: v for k, v in variables.items() if k != "params"},
        optim=dataclasses.replace(config.optim, learning_rate=config.loss.sync_adversary_rate),
        penalty=config.loss.sync_adversary_penalty,
        features=features,
    )


def _load(config: Config, name: str, before: Record | None) -> LoadedExpert:
    if before is None:
        found = sync_experts.load_checked(
            name, unchecked=config.loss.sync_unchecked, flag="--config.loss.sync_unchecked=true"
        )
    else:  # Its gate counted when the run began; now the weights must be the same.
        found = sync_experts.load_checked(name, before.step, unchecked=True)
        if found.weights != before.weights:
            raise InputError(
                f"sync expert {name}: step {found.step} has weights {found.weights}, the run began "
                f"with {before.weights}; restore them, or take another --workdir"
            )
    settings = found.expert.model.config
    inner = settings.window_frames - 2 * settings.motion_reach
    least = max(inner + 2 * settings.audio_reach + timing.FARTHEST, settings.window_frames)
    if config.data.window_frames < least:
        raise InputError(
            f"config: data.window_frames={config.data.window_frames}: sync expert {name} compares "
            f"{settings.window_frames} frames with audio up to {timing.FARTHEST} frames away; "
            f"expected at least {least}"
        )
    return found


def _feature_keys(
    config: Config, name: str, loaded: LoadedExpert, encoders: Encoders
) -> dict[str, str]:
    """Returns the run's key of each encoder of an expert; {} where it hears the audio itself.

    Raises:
      InputError: the expert has an encoder that the run does not have.
    """
    audio = loaded.expert.model.audio_features
    own = {spec: key for key, spec in starting_point.feature_specs(encoders).items()}
    out = {}
    for key, feature in feature_keys(audio.config.features).items():
        pair = (audio.encoders[key], audio.pretrained[ENCODERS][key])
        found = own.get(starting_point.feature_specs({key: pair})[key])
        if found is None:
            raise InputError(
                f"sync expert {name}: hears {feature}, which this run does not; expected it in "
                f"audio.features={','.join(config.audio.features)}, or another expert"
            )
        out[key] = found
    return out if config.data.encoder_features == "cached" else {}


def _measured(config: Config, loaded: Sequence[LoadedExpert]) -> list[Record]:
    """Returns the records of a new run, with constants from one process."""
    found: list[dict[str, float]] = []
    if jax.process_index() == 0:
        source = ClipSource(config.data.shards, config.data.split)
        for run, one in zip(config.loss.sync_runs, loaded, strict=True):
            made = normalisation.measure(one.expert, source, name=f"sync expert {run}")
            found.append(dataclasses.asdict(made))
    found = broadcast.broadcast_from_first(found)
    records = []
    for i, (one, values) in enumerate(zip(loaded, found, strict=True)):
        start = (values["right"], values["wrong"]) if i >= len(config.loss.sync) else None
        run, kind = config.loss.sync_runs[i], one.expert.name
        constants = (values["scale"], values["gap"], start)
        records.append(Record(run, kind, one.step, one.weights, one.passed, *constants))
    return records
