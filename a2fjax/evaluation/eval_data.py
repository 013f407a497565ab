"""The data of an evaluation: clips, subjects and the model's inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax import configuration as config_lib
from a2fjax.data import mixture, records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError, nearest
from a2fjax.evaluation import baselines, eval_clips
from a2fjax.evaluation.beside import Beside
from a2fjax.infer.predictor import Request
from a2fjax.infer.training_conditions import TrainingConditions
from a2fjax.metrics import suite
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.sums import Sums, divide

DEFAULT_SPLITS = ("test_sentences", "test_subjects")


class Model(Protocol):
    """Interface of a model to evaluate, such as `a2fjax.infer.predictor.Predictor`.

    Attributes:
      config: configuration of the run, which names its training shards.
      step: training step of the checkpoint.
      fingerprint: fingerprint of configuration and step.
      training: the conditions that the model was trained with; see `Predictor`.
      subjects: names of the subjects with a learned residual; see `Predictor`.
    """

    config: config_lib.Config
    step: int
    fingerprint: str

    @property
    def training(self) -> TrainingConditions:
        """The conditions that the model was trained with."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects with a learned residual."""

    def points(self, mesh: Any, name: str) -> np.ndarray:
        """Returns the identity points of a neutral mesh; `name` is for warnings."""

    def batch(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """Returns the motion [T, 72] of each request."""


@dataclasses.dataclass(frozen=True)
class EvalData:
    """Data of an evaluation.

    Attributes:
      folders: folders of shards.
      manifests: manifest of each folder.
      splits: names of the splits to evaluate.
      have: names of all splits in the shards.
      known: statistics of the training set, for the baselines.
      training_folders: shards that these statistics come from.
      points: identity points by subject; empty for models without identity.
      trained: name in the run, by subject, for subjects with a learned residual.
      beside: alignments, a face and a judge.
      channels: [72] bool, the channels that are measured; None for all that a clip observes.
    """

    folders: list[str]
    manifests: list[records.Manifest]
    splits: list[str]
    have: list[str]
    known: baselines.TrainingStatistics
    training_folders: list[str]
    points: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    trained: dict[str, str] = dataclasses.field(default_factory=dict)
    channels: np.ndarray | None = None
    beside: Beside = dataclasses.field(default_factory=Beside)

    def ids(self) -> list[str]:
        """Returns the ids of all clips of the splits to evaluate."""
        entries = (e for m in self.manifests for shard in m.shards for e in shard.clips)
        return [entry["id"] for entry in entries if entry["split"] in self.splits]

    def training_ids(self) -> list[str]:
        """Returns the ids of the training clips, of which baselines are made."""
        return [] if self.known.measured else [entry.id for entry in self.known.takes.entries]

    def clips(self, split: str, limit: int | None = None) -> eval_clips.SplitClips:
        """Returns the clips of a split, at most `limit` of them."""
        others = [ClipSource(self.folders, other) for other in self.have if other != split]
        return eval_clips.SplitClips(
            ClipSource(self.folders, split),
            limit,
            others,
            beside=self.beside,
            channels=self.channels,
        )

    def nothing(self, split: str, chosen: eval_clips.SplitClips) -> InputError:
        """Returns the error for a split without a readable clip."""
        return InputError(
            f"no readable clip in split {split!r} of {', '.join(self.folders)}: "
            f"{chosen.skipped[0] if chosen.skipped else 'it is empty'}"
        )


def load(
    model: Model,
    shards: Sequence[str | Path] | None = None,
    splits: Sequence[str] | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> EvalData:
    """Returns the data to evaluate a model on.

    Args:
      model: model to evaluate.
      shards: folders of the clips; None for the run's training shards.
      splits: names of splits; None for the available ones of `DEFAULT_SPLITS`.
      say: called with each progress line.

    Raises:
      InputError: no such folder or split.
    """
    folders = [str(f) for f in (model.config.data.shards if shards is None else shards)]
    if not folders:
        raise InputError("no shards to evaluate on: the run names none; give some with --data")
    try:
        manifests = [records.read_manifest(folder) for folder in folders]
    except InputError as error:
        if shards is None:
            raise InputError(f"{error}, or name other shards with --data") from None
        raise
    have = _splits_in(manifests)
    chosen = _splits(manifests, folders, splits, have)
    known, training_folders = training_statistics(model.config, folders)
    points = {}
    if model.config.model.identity != "none":
        meshes = eval_clips.neutral_meshes(folders, manifests)
        say(f"sampling {len(meshes)} neutral meshes")
        points = {name: model.points(mesh, name) for name, mesh in meshes.items()}
    trained = trained_subjects(model, folders, manifests)
    return EvalData(folders, manifests, chosen, have, known, training_folders, points, trained)


def load_clips(
    shards: Sequence[str | Path],
    splits: Sequence[str] | None = None,
    *,
    say: Callable[[str], None] = lambda line: None,
) -> EvalData:
    """Returns data for curves of a program whose training set is unknown.

    The statistics for the baselines are those of the split `train`, else of the first measured one.

    Args:
      shards: folders of the clips.
      splits: names of splits; None for the available ones of `DEFAULT_SPLITS`.
      say: called with each progress line.

    Raises:
      InputError: no such folder or split.
    """
    folders = [str(f) for f in shards]
    manifests = [records.read_manifest(folder) for folder in folders]
    have = _splits_in(manifests)
    chosen = _splits(manifests, folders, splits, have)
    split = "train" if "train" in have else chosen[0]
    if split != "train":
        say(f"no split train: the constant mean and the other baselines are those of {split}")
    known = baselines.training_statistics(folders, split)
    known = dataclasses.replace(known, measured=split != "train")
    return EvalData(folders, manifests, chosen, have, known, folders)


def _splits_in(manifests: Sequence[records.Manifest]) -> list[str]:
    return sorted({e["split"] for m in manifests for shard in m.shards for e in shard.clips})


def training_statistics(
    config: config_lib.Config, folders: list[str]
) -> tuple[baselines.TrainingStatistics, Any]:
    """Returns the statistics for the baselines and the folders they come from.

    They come from the run's training set if it exists, regardless of the source of the clips.
    """
    trained_on = [str(f) for f in config.data.shards]
    if trained_on and all((Path(f) / "manifest.json").is_file() for f in trained_on):
        data = config.data
        return baselines.training_statistics(trained_on, data.split, data.weights), trained_on
    return baselines.training_statistics(folders, config.data.split), folders


def trained_subjects(
    model: Model, folders: list[str], manifests: Sequence[records.Manifest]
) -> dict[str, str]:
    """Maps unique names of subjects with a learned residual to their names in the run.

    Another dataset may contain a subject with the same name. Therefore only the run's training
    folders count or, if these no longer exist, the same number of folders in the same order.
    """
    trained_on = [str(f) for f in model.config.data.shards]
    if not model.subjects:
        return {}
    paths = [str(Path(f).resolve()) for f in trained_on]
    moved = len(trained_on) == len(folders) and not any(
        (Path(f) / "manifest.json").is_file() for f in trained_on
    )
    datasets, known = mixture.names(trained_on), set(model.subjects)
    names = {}
    for f, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        path = str(Path(folder).resolve())
        if path not in paths and not moved:
            continue
        which = paths.index(path) if path in paths else f
        for subject in manifest.subjects:
            name = subject.id if len(trained_on) == 1 else f"{datasets[which]}:{subject.id}"
            if name in known:
                names[eval_clips.unique_subject(f, subject.id, len(folders))] = name
    return names


def _splits(
    manifests: Sequence[records.Manifest],
    folders: Sequence[str],
    asked: Sequence[str] | None,
    have: Sequence[str],
) -> list[str]:
    if asked is None:
        present = [split for split in DEFAULT_SPLITS if split in have]
        if not present:
            raise InputError(
                f"the shards have none of the splits {', '.join(DEFAULT_SPLITS)}; "
                f"name one with --split{nearest('', have)}"
            )
        return present
    for split in asked:
        records.check_split(split, manifests, folders)
    return list(dict.fromkeys(asked))


def add_reference(sums: Sums, constant: Sums) -> None:
    """Adds the constant mean's sums that `values` needs for `rmse_ratio` to a clip's sums."""
    sums["ratio/square"] = group_sum(constant["fidelity/square"], WEIGHT_GROUPS["jaw_mouth"])


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns all metrics and `rmse_ratio`: RMSE of jaw and mouth over the constant mean's."""
    own = group_sum(total["fidelity/square"], WEIGHT_GROUPS["jaw_mouth"])
    return {"rmse_ratio": np.sqrt(divide(own, total["ratio/square"])), **suite.values(total)}
