"""What a measurement is about: which clips, of whom, and what the model may be told of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax import config as config_lib
from a2fjax.data import mixture, records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError, nearest
from a2fjax.evaluation import baselines, eval_clips
from a2fjax.infer.predictor import Request
from a2fjax.metrics import suite
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.sums import Sums, divide

DEFAULT_SPLITS = ("test_sentences", "test_subjects")


class Model(Protocol):
    """What is measured; `a2fjax.infer.predictor.Predictor` is one.

    Attributes:
      config: of the run, names the shards it was trained on.
      step: of the checkpoint.
      fingerprint: of both.
      subjects: names of the people of whom more than the mesh was learnt; see `Predictor`.
    """

    config: config_lib.Config
    step: int
    fingerprint: str

    @property
    def subjects(self) -> tuple[str, ...]:
        """See above."""

    def points(self, mesh: Any) -> np.ndarray:
        """Returns the identity points of a neutral mesh."""

    def batch(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """Returns the motion [T, 72] of each request."""


@dataclasses.dataclass(frozen=True)
class EvalData:
    """See the module.

    Attributes:
      folders: of shards.
      manifests: of each.
      splits: to measure on.
      have: all splits that there are.
      known: what baselines know of the training set.
      training_folders: the shards that is of.
      points: identity points by person; empty for models without identity.
      trained: the run's name by person, of those it has learnt a residual of.
    """

    folders: list[str]
    manifests: list[records.Manifest]
    splits: list[str]
    have: list[str]
    known: baselines.TrainingStatistics
    training_folders: list[str]
    points: dict[str, np.ndarray]
    trained: dict[str, str]

    def clips(self, split: str, limit: int | None = None) -> eval_clips.SplitClips:
        """Returns the clips of a split, at most `limit`."""
        others = [ClipSource(self.folders, other) for other in self.have if other != split]
        return eval_clips.SplitClips(ClipSource(self.folders, split), limit, others)

    def nothing(self, split: str, chosen: eval_clips.SplitClips) -> InputError:
        """Returns the error of a split in which no clip could be measured."""
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
    """Returns the setting of a model's measurement.

    Args:
      model: what is measured.
      shards: folders of the clips; None for those the run was trained on.
      splits: of the manifests; None for those of `DEFAULT_SPLITS` that the shards have.
      say: is told what is being done.

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
            raise InputError(f"{error}, or name the shards to measure on with --data") from None
        raise
    have = sorted({e["split"] for m in manifests for shard in m.shards for e in shard.clips})
    chosen = _splits(manifests, folders, splits, have)
    known, training_folders = training_statistics(model.config, folders)
    points = {}
    if model.config.model.identity != "none":
        meshes = eval_clips.neutral_meshes(folders, manifests)
        say(f"sampling {len(meshes)} neutral meshes")
        points = {name: model.points(mesh) for name, mesh in meshes.items()}
    trained = trained_subjects(model, folders, manifests)
    return EvalData(folders, manifests, chosen, have, known, training_folders, points, trained)


def training_statistics(
    config: config_lib.Config, folders: list[str]
) -> tuple[baselines.TrainingStatistics, Any]:
    """Returns what baselines know and of which folders.

    The constant mean is of the training set, wherever the clips measured come from.
    """
    own = [str(f) for f in config.data.shards]
    if own and all((Path(f) / "manifest.json").is_file() for f in own):
        return baselines.training_statistics(own, config.data.split, config.data.weights), own
    return baselines.training_statistics(folders, config.data.split), folders


def trained_subjects(
    model: Model, folders: list[str], manifests: Sequence[records.Manifest]
) -> dict[str, str]:
    """Returns the run's name by unique name of everybody whom it has a residual of.

    A person of another set may have the same name; so only folders that the run was trained on
    count, or, where those are gone, as many folders as they were in the same order.
    """
    own = [str(f) for f in model.config.data.shards]
    if not model.subjects:
        return {}
    there = [str(Path(f).resolve()) for f in own]
    moved = len(own) == len(folders) and not any((Path(f) / "manifest.json").is_file() for f in own)
    sets, known = mixture.names(own), set(model.subjects)
    found = {}
    for f, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        path = str(Path(folder).resolve())
        if path not in there and not moved:
            continue
        which = there.index(path) if path in there else f
        for subject in manifest.subjects:
            name = subject.id if len(own) == 1 else f"{sets[which]}:{subject.id}"
            if name in known:
                found[eval_clips.unique_subject(f, subject.id, len(folders))] = name
    return found


def _splits(
    manifests: Sequence[records.Manifest],
    folders: Sequence[str],
    asked: Sequence[str] | None,
    have: Sequence[str],
) -> list[str]:
    if asked is None:
        found = [split for split in DEFAULT_SPLITS if split in have]
        if not found:
            raise InputError(
                f"the shards have none of the splits {', '.join(DEFAULT_SPLITS)}; "
                f"name one with --split{nearest('', have)}"
            )
        return found
    for split in asked:
        records.check_split(split, manifests, folders)
    return list(dict.fromkeys(asked))


def add_reference(sums: Sums, constant: Sums) -> None:
    """Adds to the sums of a clip what `values` needs of the constant mean's for `rmse_ratio`."""
    sums["ratio/square"] = group_sum(constant["fidelity/square"], WEIGHT_GROUPS["jaw_mouth"])


def values(total: Sums) -> dict[str, np.ndarray]:
    """Returns all metrics, with `rmse_ratio`: jaw and mouth RMSE over the constant mean's."""
    own = group_sum(total["fidelity/square"], WEIGHT_GROUPS["jaw_mouth"])
    return {"rmse_ratio": np.sqrt(divide(own, total["ratio/square"])), **suite.values(total)}
