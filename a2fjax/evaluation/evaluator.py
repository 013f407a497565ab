"""Evaluates a model: all metrics by split, subject and emotion, with baselines."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from a2fjax import configuration as config_lib
from a2fjax import rig
from a2fjax.audio import sound_descriptor
from a2fjax.errors import WorkFailed
from a2fjax.evaluation import baselines, beside, conditions, eval_clips, eval_data, report
from a2fjax.infer.predictor import Predictor
from a2fjax.metrics import bootstrap, suite
from a2fjax.metrics.sums import Sums, merge

QUICK_CLIPS = 12
QUICK_RESAMPLES = 200
REFERENCE_ROW = "constant_mean"


@dataclasses.dataclass
class _Measured:
    """Metric sums of one clip, by row of the report."""

    id: str
    subject: str
    emotion: str
    frames: int
    rows: dict[str, Sums]


def evaluate(
    model: str | Path | eval_data.Model,
    shards: Sequence[str | Path] | None = None,
    splits: Sequence[str] | None = None,
    *,
    step: int | None = None,
    phones: str | Path | None = None,
    face: str | Path | None = None,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluates a model on whole clips.

    Args:
      model: run folder, or a predictor.
      shards: folders of the clips; None for the run's training shards.
      splits: names of splits; None for the available ones of `eval_data.DEFAULT_SPLITS`.
      step: training step of the checkpoint if `model` is a folder; the newest if None.
      phones: folder of phone alignments, or "auto"; see `beside`.
      face: file of a head for metrics of vertices; see `metrics.face`.
      seed: seed of shuffles, noise, the choice of other takes and the bootstrap.
      resamples: number of bootstrap draws.
      quick: use few clips, few draws and no altered conditions.
      progress: called with each progress line.

    Returns:
      The report; see `report.write` for its layout.

    Raises:
      InputError: no such run, step, folder or split.
      WorkFailed: the model predicts non-finite values.
    """
    say = progress or (lambda line: None)
    run = None
    if isinstance(model, str | Path):
        run = str(model)
        model = Predictor.load(run, step)
    data = eval_data.load(model, shards, splits, say=say)
    data = dataclasses.replace(data, beside=beside.load(phones, face, data.ids(), say=say))
    folders, manifests = data.folders, data.manifests

    altered = () if quick else conditions.names(model.config)
    draws = min(resamples, QUICK_RESAMPLES) if quick else resamples
    out: dict[str, Any] = {}
    for split in data.splits:
        chosen = data.clips(split, QUICK_CLIPS if quick else None)
        measured: list[_Measured] = []
        for chunk in chosen.chunks():
            measured += _measure(model, chunk, data, altered, seed, split, say)
        if not measured:
            raise data.nothing(split, chosen)
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
        "training_statistics": data.training_folders,
        "synthetic": any(m.synthetic for m in manifests),
        "face": None if data.beside.face is None else data.beside.face.fingerprint,
        "quick": quick,
        "seed": seed,
        "resamples": draws,
        "splits": out,
    }
    result["headline"] = report.headline(result)
    return result


def _measure(
    model: eval_data.Model,
    chunk: list[eval_clips.EvalClip],
    data: eval_data.EvalData,
    altered: Sequence[str],
    seed: int,
    split: str,
    say: Callable[[str], None],
) -> list[_Measured]:
    say(f"{split}: {len(chunk)} clips, the model")
    points, trained = data.points, data.trained
    unlike = sum(
        model.training.sound_distance(
            sound_descriptor.band_levels(s.clip.audio), s.clip.speech_level
        )
        > 1
        for s in chunk
    )
    if unlike:
        say(f"{split}: {unlike} of {len(chunk)} clips sound unlike the training data")
    predicted = {"model": model.batch([conditions.request(s, points, trained) for s in chunk])}
    for name in altered:
        say(f"{split}: {len(chunk)} clips, {name}")
        requests = [
            conditions.altered_request(name, i, chunk, points, trained, seed=seed)
            for i in range(len(chunk))
        ]
        predicted[name] = model.batch(requests)
    say(f"{split}: {len(chunk)} clips, metrics and baselines")
    out = []
    for i, sample in enumerate(chunk):
        curves = {name: motions[i] for name, motions in predicted.items()}
        curves |= baselines.predictions(sample, curves["model"], data.known, seed=seed)
        try:
            rows = {name: suite.sums(motion, sample.truth) for name, motion in curves.items()}
        except ValueError as error:
            raise WorkFailed(f"clip {sample.clip.id}: {error}") from None
        for sums in list(rows.values()):
            eval_data.add_reference(sums, rows[REFERENCE_ROW])
        out.append(
            _Measured(sample.clip.id, sample.subject, sample.emotion, sample.clip.frames, rows)
        )
    return out


def _numbers(measured: Sequence[_Measured], row: str) -> dict[str, float | None]:
    total = suite.merge_clips((m.subject, m.rows[row]) for m in measured)
    return {k: _plain(v) for k, v in eval_data.values(total).items()}


def _plain(value: Any) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


def _summarise(
    measured: list[_Measured], altered: Sequence[str], seed: int, resamples: int
) -> dict[str, Any]:
    subjects = sorted({m.subject for m in measured})
    emotions = [e for e in rig.EMOTIONS if any(m.emotion == e for m in measured)]
    per_subject = {
        row: [
            suite.person(merge([m.rows[row] for m in measured if m.subject == s])) for s in subjects
        ]
        for row in ("model", *altered)
    }
    frames = sum(m.frames for m in measured)

    def part(chosen: list[_Measured]) -> dict[str, Any]:
        return {"clips": len(chosen), "metrics": _numbers(chosen, "model")}

    clips = [
        {
            "id": m.id,
            "subject": m.subject,
            "emotion": m.emotion,
            "frames": m.frames,
            **{k: v for k, v in _numbers([m], "model").items() if k in report.CLIP_METRICS},
        }
        for m in measured
    ]
    return {
        "clips": len(measured),
        "frames": frames,
        "seconds": frames / rig.FPS,
        "subjects": len(subjects),
        "model": _numbers(measured, "model"),
        "interval": bootstrap.intervals(
            per_subject["model"], eval_data.values, seed=seed, resamples=resamples
        ),
        "baselines": {n: _numbers(measured, n) for n in baselines.NAMES},
        "robustness": {n: _numbers(measured, n) for n in altered},
        "difference": {
            n: bootstrap.differences(
                per_subject["model"],
                per_subject[n],
                eval_data.values,
                seed=seed,
                resamples=resamples,
            )
            for n in altered
        },
        "by_subject": {s: part([m for m in measured if m.subject == s]) for s in subjects},
        "by_emotion": {e: part([m for m in measured if m.emotion == e]) for e in emotions},
        "by_clip": sorted(clips, key=lambda c: -(c["rmse_ratio"] or 0.0)),
    }


def _fingerprint(folder: str) -> str:
    return hashlib.sha256((Path(folder) / "manifest.json").read_bytes()).hexdigest()[:16]
