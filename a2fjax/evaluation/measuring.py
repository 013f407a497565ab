"""Measures a system on clips: all metrics by split, subject and emotion, with baselines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.errors import WorkFailed
from a2fjax.evaluation import (
    baselines,
    bench,
    eval_clips,
    eval_data,
    judge_scale,
    report,
    report_text,
    second_takes,
    significance,
    systems,
    timelines,
    visemes,
)
from a2fjax.metrics import bootstrap, suite, sync
from a2fjax.metrics.sums import Sums, correlation, divide, merge
from a2fjax.sync import verdict

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


@dataclasses.dataclass(frozen=True)
class _Split:
    """Values collected over a split, in addition to the sums of its clips."""

    takes: second_takes.SecondTakes
    rule: visemes.Rule | None
    lines: timelines.Timelines = dataclasses.field(default_factory=timelines.Timelines)
    scale: judge_scale.Scale = dataclasses.field(default_factory=judge_scale.Scale)


def measure(
    system: systems.System,
    data: eval_data.EvalData,
    *,
    seed: int,
    resamples: int,
    quick: bool,
    say: Callable[[str], None],
    alone: bool = False,
) -> dict[str, Any]:
    """Returns the report of a system; see `report` for its layout.

    Args:
      system: what to measure.
      data: the clips.
      seed: seed of baselines and the bootstrap.
      resamples: number of bootstrap draws.
      quick: use few clips and few draws.
      say: called with each progress line.
      alone: leave out all baselines but the reference of ratios.

    Raises:
      InputError: a split without a readable clip.
      WorkFailed: the system's curves are not finite.
    """
    draws = min(resamples, QUICK_RESAMPLES) if quick else resamples
    out: dict[str, Any] = {}
    benches: dict[str, dict[str, Any]] = {}
    rule = None if alone else _viseme_rule(data, say)
    for split in data.splits:
        chosen = data.clips(split, QUICK_CLIPS if quick else None)
        measured: list[_Measured] = []
        gathered = _Split(second_takes.SecondTakes(chosen.source), rule)
        benches[split] = {key: {} for key in bench.KEYS}
        for chunk in chosen.chunks():
            say(f"{split}: {len(chunk)} clips")
            for key, found in bench.facts(chunk).items():
                benches[split][key] |= found
            measured += _measure(system, chunk, data, gathered, seed, say, alone)
        if not measured:
            raise data.nothing(split, chosen)
        scale = gathered.scale.result()
        if scale is not None:
            say(f"{split}: {scale['line']}")
            if not scale["orders"]:
                measured = [_without_judge(m) for m in measured]
        out[split] = _summarise(measured, system.altered, seed, draws)
        out[split]["skipped"] = chosen.skipped
        out[split]["timelines"] = gathered.lines.worst()
        if scale is not None:
            out[split]["judge"] = scale
        say(f"{split}: done")
    result = {
        "schema": report.SCHEMA,
        **system.describe(),
        "rig": rig.FINGERPRINT,
        "data": [
            {
                "folder": folder,
                "fingerprint": verdict.data_fingerprint(folder),
                "synthetic": m.synthetic,
            }
            for folder, m in zip(data.folders, data.manifests, strict=True)
        ],
        "training_statistics": data.training_folders,
        "synthetic": any(m.synthetic for m in data.manifests),
        "face": None if data.beside.face is None else data.beside.face.fingerprint,
        "judge": None if data.beside.judge is None else data.beside.judge.describe(),
        "quick": quick,
        "seed": seed,
        "resamples": draws,
        "columns": report.described_columns(),
        "bench": {
            **{key: {split: found[key] for split, found in benches.items()} for key in bench.KEYS},
            "metrics": suite.versions(),
            "reference": bench.mean_hash(data.known.mean),
        },
        "splits": out,
    }
    result["headline"] = [] if alone else report_text.headline(result)
    return result


def _measure(
    system: systems.System,
    chunk: list[eval_clips.EvalClip],
    data: eval_data.EvalData,
    gathered: _Split,
    seed: int,
    say: Callable[[str], None],
    alone: bool,
) -> list[_Measured]:
    predicted = system.curves(chunk)
    say(f"{len(chunk)} clips, metrics and baselines")
    out = []
    for i, sample in enumerate(chunk):
        curves = {name: motions[i] for name, motions in predicted.items()}
        other = baselines.other_clip(i, chunk, seed=seed)
        gathered.scale.add(sample, None if other is None else chunk[other])
        if alone:
            curves[REFERENCE_ROW] = np.broadcast_to(data.known.mean, sample.clip.motion.shape)
        else:
            curves |= baselines.predictions(
                sample,
                curves["model"],
                data.known,
                seed=seed,
                shuffled=None if other is None else predicted["model"][other],
                takes=gathered.takes,
                rule=gathered.rule,
            )
        try:
            rows = {name: suite.sums(motion, sample.truth) for name, motion in curves.items()}
        except ValueError as error:
            raise WorkFailed(f"clip {sample.clip.id}: {error}") from None
        for sums in list(rows.values()):
            eval_data.add_reference(sums, rows[REFERENCE_ROW])
        ratio = float(eval_data.values(rows["model"])["rmse_ratio"])
        gathered.lines.add(sample, curves["model"], ratio)
        out.append(
            _Measured(sample.clip.id, sample.subject, sample.emotion, sample.clip.frames, rows)
        )
    return out


def _viseme_rule(data: eval_data.EvalData, say: Callable[[str], None]) -> visemes.Rule | None:
    """Returns the viseme rule if phones may be known, fitted to the training clips they cover."""
    if not (data.beside.files or data.beside.align):
        return None
    if data.known.measured:
        return visemes.fixed(data.known.mean)
    say("fitting the viseme rule")
    return visemes.fit(data.known.takes, data.beside.training_phones, data.known.mean)


def _without_judge(clip: _Measured) -> _Measured:
    """Returns a clip without the figures of a judge that says nothing about its split."""
    rows = {name: {**sums, **sync.nothing()} for name, sums in clip.rows.items()}
    return dataclasses.replace(clip, rows=rows)


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
    beside = {
        n: [m for m in measured if n in m.rows]
        for n in baselines.NAMES
        if any(n in m.rows for m in measured)
    }

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
        "baselines": {n: _numbers(clips, n) for n, clips in beside.items()},
        "baseline_clips": {n: len(clips) for n, clips in beside.items()},
        "robustness": {n: _numbers(measured, n) for n in altered},
        "difference": {
            n: _changes(per_subject["model"], per_subject[n], seed, resamples) for n in altered
        },
        "by_subject": {s: part([m for m in measured if m.subject == s]) for s in subjects},
        "by_emotion": {e: part([m for m in measured if m.emotion == e]) for e in emotions},
        "by_channel": _channels(merge([m.rows["model"] for m in measured])),
        "by_clip": sorted(clips, key=lambda c: -(c["rmse_ratio"] or 0.0)),
    }


def _channels(total: Sums) -> dict[str, dict[str, float | None]]:
    """Returns the errors of each measured channel, in its unit."""
    frames = total["fidelity/frames"]
    p, g = total["fidelity/pp"], total["fidelity/gg"]
    figures = {
        "mae": divide(total["fidelity/abs"], frames),
        "rmse": np.sqrt(divide(total["fidelity/square"], frames)),
        "corr": correlation(total["fidelity/pg"], p, g),
        "amp_ratio": np.sqrt(divide(p, np.where(g > 1e-9, g, 0.0))),
    }
    return {
        rig.CHANNELS[c]: {name: _plain(values[c]) for name, values in figures.items()}
        for c in np.flatnonzero(frames > 0)
    }


def _changes(
    people: Sequence[Sums], changed: Sequence[Sums], seed: int, resamples: int
) -> dict[str, Any]:
    """Returns the test of each headline figure's change, from the sums of the same people."""
    first, second = ([eval_data.values(sums) for sums in side] for side in (people, changed))
    out = {}
    for name in report.HEADLINE:
        values = [np.array([[float(v[name]) for v in side]]) for side in (first, second)]
        found = significance.paired(*values, seed=seed, resamples=resamples)
        out[name] = report.plain_test(found)
    return out
