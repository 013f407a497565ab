"""A checkpoint becomes a report: every metric, by split, person and emotion, beside baselines."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax import config as config_lib
from a2fjax import rig
from a2fjax.data import mixture, records
from a2fjax.data.source import ClipSource
from a2fjax.errors import InputError, WorkFailed, nearest
from a2fjax.evaluate import baselines, conditions, report, samples
from a2fjax.infer.predictor import Predictor, Request
from a2fjax.metrics import bootstrap, suite
from a2fjax.metrics.groups import WEIGHT_GROUPS, group_sum
from a2fjax.metrics.sums import Sums, divide, merge

DEFAULT_SPLITS = ("test_sentences", "test_subjects")
QUICK_CLIPS = 12
QUICK_RESAMPLES = 200
REFERENCE_ROW = "constant_mean"


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


@dataclasses.dataclass
class _Measured:
    """Sums of one clip under every row."""

    id: str
    subject: str
    emotion: str
    frames: int
    rows: dict[str, Sums]


def evaluate(
    model: str | Path | Model,
    shards: Sequence[str | Path] | None = None,
    splits: Sequence[str] | None = None,
    *,
    step: int | None = None,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures a model on whole clips.

    Args:
      model: run folder, or a predictor.
      shards: folders of the clips; None for those the run was trained on.
      splits: of the manifests; None for those of `DEFAULT_SPLITS` that the shards have.
      step: of the checkpoint when `model` is a folder; the newest if None.
      seed: of shuffles, noise, the choice of other takes and the bootstrap.
      resamples: bootstrap draws.
      quick: few clips, few draws, no altered conditions.
      progress: is told what is being done, a line at a time.

    Returns:
      The report; see `report.write` for its layout.

    Raises:
      InputError: no such run, step, folder or split.
      WorkFailed: the model predicts values that are not finite.
    """
    say = progress or (lambda line: None)
    run = None
    if isinstance(model, str | Path):
        run = str(model)
        model = Predictor.load(run, step)
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
    chosen_splits = _splits(manifests, folders, splits, have)
    known, training_folders = _training(model.config, folders)
    points = {}
    if model.config.model.identity != "none":
        meshes = samples.meshes(folders, manifests)
        say(f"sampling {len(meshes)} neutral meshes")
        points = {name: model.points(mesh) for name, mesh in meshes.items()}

    altered = () if quick else conditions.names(model.config)
    trained = _trained(model, folders, manifests)
    draws = min(resamples, QUICK_RESAMPLES) if quick else resamples
    out: dict[str, Any] = {}
    for split in chosen_splits:
        others = [ClipSource(folders, other) for other in have if other != split]
        chosen = samples.Split(ClipSource(folders, split), QUICK_CLIPS if quick else None, others)
        measured: list[_Measured] = []
        for chunk in chosen.chunks():
            measured += _measure(model, chunk, points, trained, known, altered, seed, split, say)
        if not measured:
            raise InputError(
                f"no readable clip in split {split!r} of {', '.join(folders)}: "
                f"{chosen.skipped[0] if chosen.skipped else 'it is empty'}"
            )
        out[split] = _summarise(measured, altered, seed, draws)
        out[split]["skipped"] = chosen.skipped
        say(f"{split}: done")
    result = {
        "schema": report.SCHEMA,
        "run": run,
        "step": model.step,
        "model": model.fingerprint,
        "config": config_lib.fingerprint(model.config),
        "rig": rig.FINGERPRINT,
        "data": [
            {"folder": folder, "fingerprint": _fingerprint(folder), "synthetic": m.synthetic}
            for folder, m in zip(folders, manifests, strict=True)
        ],
        "training_statistics": training_folders,
        "synthetic": any(m.synthetic for m in manifests),
        "quick": quick,
        "seed": seed,
        "resamples": draws,
        "splits": out,
    }
    result["headline"] = report.headline(result)
    return result


def _training(config: config_lib.Config, folders: list[str]) -> tuple[baselines.Training, Any]:
    """The constant mean is of the training set, wherever the clips measured come from."""
    own = [str(f) for f in config.data.shards]
    if own and all((Path(f) / "manifest.json").is_file() for f in own):
        return baselines.training(own, config.data.split, config.data.weights), own
    return baselines.training(folders, config.data.split), folders


def _trained(
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
                found[samples.unique_name(f, subject.id, len(folders))] = name
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


def _measure(
    model: Model,
    chunk: list[samples.Sample],
    points: dict[str, np.ndarray],
    trained: dict[str, str],
    known: baselines.Training,
    altered: Sequence[str],
    seed: int,
    split: str,
    say: Callable[[str], None],
) -> list[_Measured]:
    say(f"{split}: {len(chunk)} clips, the model")
    predicted = {"model": model.batch([conditions.request(s, points, trained) for s in chunk])}
    for name in altered:
        say(f"{split}: {len(chunk)} clips, {name}")
        requests = [
            conditions.altered(name, i, chunk, points, trained, seed=seed)
            for i in range(len(chunk))
        ]
        predicted[name] = model.batch(requests)
    say(f"{split}: {len(chunk)} clips, metrics and baselines")
    out = []
    for i, sample in enumerate(chunk):
        curves = {name: motions[i] for name, motions in predicted.items()}
        curves |= baselines.predictions(sample, curves["model"], known, seed=seed)
        try:
            rows = {name: suite.sums(motion, sample.truth) for name, motion in curves.items()}
        except ValueError as error:
            raise WorkFailed(f"clip {sample.clip.id}: {error}") from None
        for sums in list(rows.values()):
            sums["ratio/square"] = group_sum(
                rows[REFERENCE_ROW]["fidelity/square"], WEIGHT_GROUPS["jaw_mouth"]
            )
        out.append(
            _Measured(sample.clip.id, sample.subject, sample.emotion, sample.clip.frames, rows)
        )
    return out


def _values(total: Sums) -> dict[str, np.ndarray]:
    """All metrics, with `rmse_ratio`: jaw and mouth RMSE over the constant mean's, same frames."""
    own = group_sum(total["fidelity/square"], WEIGHT_GROUPS["jaw_mouth"])
    return {"rmse_ratio": np.sqrt(divide(own, total["ratio/square"])), **suite.values(total)}


def _numbers(parts: Sequence[Sums]) -> dict[str, float | None]:
    return {k: _plain(v) for k, v in _values(merge(parts)).items()}


def _plain(value: Any) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _summarise(
    measured: list[_Measured], altered: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    subjects = sorted({m.subject for m in measured})
    emotions = [e for e in rig.EMOTIONS if any(m.emotion == e for m in measured)]
    per_subject = {
        row: [merge([m.rows[row] for m in measured if m.subject == s]) for s in subjects]
        for row in ("model", *altered)
    }
    frames = sum(m.frames for m in measured)

    def part(chosen: list[_Measured]) -> dict[str, Any]:
        return {"clips": len(chosen), "metrics": _numbers([m.rows["model"] for m in chosen])}

    clips = [
        {
            "id": m.id,
            "subject": m.subject,
            "emotion": m.emotion,
            "frames": m.frames,
            **{k: v for k, v in _numbers([m.rows["model"]]).items() if k in report.CLIP_METRICS},
        }
        for m in measured
    ]
    return {
        "clips": len(measured),
        "frames": frames,
        "seconds": frames / rig.FPS,
        "subjects": len(subjects),
        "model": _numbers([m.rows["model"] for m in measured]),
        "interval": bootstrap.intervals(
            per_subject["model"], _values, seed=seed, resamples=resamples
        ),
        "baselines": {n: _numbers([m.rows[n] for m in measured]) for n in baselines.NAMES},
        "robustness": {n: _numbers([m.rows[n] for m in measured]) for n in altered},
        "difference": {
            n: bootstrap.differences(
                per_subject["model"], per_subject[n], _values, seed=seed, resamples=resamples
            )
            for n in altered
        },
        "by_subject": {s: part([m for m in measured if m.subject == s]) for s in subjects},
        "by_emotion": {e: part([m for m in measured if m.emotion == e]) for e in emotions},
        "by_clip": sorted(clips, key=lambda c: -(c["rmse_ratio"] or 0.0)),
    }


def _fingerprint(folder: str) -> str:
    return hashlib.sha256((Path(folder) / "manifest.json").read_bytes()).hexdigest()[:16]
