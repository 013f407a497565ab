"""Evaluates a model or files: all metrics by split, subject and emotion, with baselines."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from a2fjax import rig
from a2fjax.errors import WorkFailed
from a2fjax.evaluation import baselines, eval_clips, eval_data, predictions, report, systems
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
    system = systems.ModelSystem(model, data, run=run, seed=seed, quick=quick, say=say)
    return measure(system, data, seed=seed, resamples=resamples, quick=quick, say=say)


def evaluate_predictions(
    folder: str | Path,
    shards: Sequence[str | Path],
    splits: Sequence[str] | None = None,
    *,
    reading: predictions.Reading | None = None,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluates the curves that any program made of the clips.

    Args:
      folder: folder with one file for each clip; see `prediction_files`.
      shards: folders of the clips.
      splits: as for `evaluate`.
      reading: how to read the files where they do not say it; None for no settings.
      seed: as for `evaluate`.
      resamples: number of bootstrap draws.
      quick: use few clips and few draws.
      progress: called with each progress line.

    Returns:
      The report, whose "predictions" say how the files were read.

    Raises:
      InputError: no such folder or split, or files that are damaged or do not fit the clips.
    """
    say = progress or (lambda line: None)
    data = eval_data.load_clips(shards, splits, say=say)
    limit = QUICK_CLIPS if quick else None
    reading = reading or predictions.Reading()
    system = predictions.Predictions(folder, data, reading, limit=limit, say=say)
    data = dataclasses.replace(data, channels=system.channels)
    return measure(system, data, seed=seed, resamples=resamples, quick=quick, say=say)


def measure(
    system: systems.System,
    data: eval_data.EvalData,
    *,
    seed: int,
    resamples: int,
    quick: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measures a system on the clips; see `evaluate`."""
    draws = min(resamples, QUICK_RESAMPLES) if quick else resamples
    out: dict[str, Any] = {}
    for split in data.splits:
        chosen = data.clips(split, QUICK_CLIPS if quick else None)
        measured: list[_Measured] = []
        for chunk in chosen.chunks():
            say(f"{split}: {len(chunk)} clips")
            measured += _measure(system, chunk, data, seed, say)
        if not measured:
            raise data.nothing(split, chosen)
        out[split] = _summarise(measured, system.altered, seed, draws)
        out[split]["skipped"] = chosen.skipped
        say(f"{split}: done")
    result = {
        "schema": report.SCHEMA,
        **system.describe(),
        "rig": rig.FINGERPRINT,
        "data": [
            {"folder": folder, "fingerprint": _fingerprint(folder), "synthetic": m.synthetic}
            for folder, m in zip(data.folders, data.manifests, strict=True)
        ],
        "training_statistics": data.training_folders,
        "synthetic": any(m.synthetic for m in data.manifests),
        "quick": quick,
        "seed": seed,
        "resamples": draws,
        "splits": out,
    }
    result["headline"] = report.headline(result)
    return result


def _measure(
    system: systems.System,
    chunk: list[eval_clips.EvalClip],
    data: eval_data.EvalData,
    seed: int,
    say: Callable[[str], None],
) -> list[_Measured]:
    predicted = system.curves(chunk)
    say(f"{len(chunk)} clips, metrics and baselines")
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


def _numbers(parts: Sequence[Sums]) -> dict[str, float | None]:
    return {k: _plain(v) for k, v in eval_data.values(merge(parts)).items()}


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
            per_subject["model"], eval_data.values, seed=seed, resamples=resamples
        ),
        "baselines": {n: _numbers([m.rows[n] for m in measured]) for n in baselines.NAMES},
        "robustness": {n: _numbers([m.rows[n] for m in measured]) for n in altered},
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
