"""Compares runs by the accuracy, diversity and realism of their samples.

Each row is a model with a number of sampling steps; models other than diffusion models have one
sample. Metrics cover jaw and mouth unless stated otherwise:

    mean       RMSE of the mean of the samples over that of the constant mean
    single     RMSE of a single sample over that of the constant mean
    best       RMSE of each clip's best sample over that of the constant mean
    amp, hf, recall, prec, pause   as in a report, of single samples
    crps ...   `a2fjax.metrics.suite.sample_columns`
    fd ...     `a2fjax.metrics.distribution.COLUMNS`
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import configuration as config_lib
from a2fjax import rig
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import conditions, eval_clips, eval_data
from a2fjax.infer.predictor import Predictor
from a2fjax.infer.run_config import read_config
from a2fjax.infer.sampling import is_sampled
from a2fjax.metrics import distribution, suite
from a2fjax.metrics.column import Column
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.sums import Sums, divide, merge

SCHEMA = 1
TRAINING_HOP = 50
SPREADS = {
    "mouth": WEIGHT_GROUPS["jaw_mouth"],
    "upper": WEIGHT_GROUPS["upper_face"],
    "blink": np.array([rig.INDEX["eyeBlinkLeft"], rig.INDEX["eyeBlinkRight"]]),
}
_SINGLE = (
    Column("mean", "mean", "of the mean of the samples"),
    Column("single", "single", "of one sample"),
    Column("best", "best", "of each clip's best"),
    Column("amp", "amp", "amplitude over the truth's", "{:.2f}"),
    Column("hf", "hf", "power above 10 Hz over the truth's", "{:.2f}"),
    Column("recall", "recall", "share of lip closures that are made"),
    Column("prec", "prec", "share of made lip closures that are right"),
    Column("pause", "pause", "opening in pauses over that in speech", "{:.2f}"),
)


def columns() -> list[Column]:
    """Returns the columns of the table."""
    return [*_SINGLE, *suite.sample_columns(), *distribution.COLUMNS]


def legend() -> str:
    """Returns the legend of the columns, including those of extension packages."""
    shown = ", ".join(f"{c.label} = {c.meaning}" for c in columns()[:3])
    rest = "; ".join(f"{c.label} = {c.meaning}" for c in columns()[3:] if c.meaning)
    return f"RMSE over the constant mean's: {shown}; {rest}"


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the comparison table.

    Attributes:
      name: name shown in the table.
      model: the predictor.
      samples: number of samples per clip.
    """

    name: str
    model: eval_data.Model
    samples: int


@dataclasses.dataclass
class _Sums:
    """Sums over the clips of a row."""

    single: list[Sums] = dataclasses.field(default_factory=list)
    mean: list[Sums] = dataclasses.field(default_factory=list)
    best: list[Sums] = dataclasses.field(default_factory=list)
    spread: list[Sums] = dataclasses.field(default_factory=list)
    samples: list[Sums] = dataclasses.field(default_factory=list)
    windows: list[list[np.ndarray]] = dataclasses.field(default_factory=list)


def build_rows(
    runs: Sequence[str | Path],
    steps: Sequence[int] = (),
    samples: int = 8,
    *,
    checkpoint: int | None = None,
) -> list[Row]:
    """Returns the rows of a table.

    Args:
      runs: run folders; the first one names the shards.
      steps: numbers of sampling steps for diffusion runs, one row each; () for each run's default.
        Distilled runs skip numbers that do not divide their number of noise levels.
      samples: number of samples per clip for diffusion runs.
      checkpoint: step of the first run's checkpoint; the newest if None.

    Raises:
      InputError: no such run or step.
    """
    out = []
    for i, (run, name) in enumerate(zip(runs, row_names(runs), strict=True)):
        config = read_config(run).config
        step = checkpoint if i == 0 else None
        if not is_sampled(config):
            out.append(Row(name, Predictor.load(run, step), 1))
            continue
        own = config.model
        assert isinstance(own, config_lib.DiffusionConfig)
        # A student can start only from the levels it was distilled at.
        most = own.distill_levels if own.distill_steps else None
        counts = [n for n in steps if most is None or not most % n] or [own.sample.steps]
        for count in counts:
            model = Predictor.load(run, step, sample={"steps": count})
            calls = f"{count} step{'s' if count > 1 else ''}"
            out.append(Row(f"{name}, {calls}", model, samples))
    return out


def row_names(runs: Sequence[str | Path]) -> list[str]:
    """Returns a different name for each run: the last parts of its path, as few as are needed.

    Example:
        >>> row_names(["a/run", "b/run", "b/other", "b/run"])
        ['a/run', 'b/run', 'other', 'b/run (2)']
    """
    paths = [Path(run).absolute() for run in runs]

    def tail(path: Path, count: int) -> str:
        return "/".join(path.parts[-count:])

    names: list[str] = []
    for i, path in enumerate(paths):
        others = [p for p in paths if p != path]
        count = 1
        while count < len(path.parts) and any(tail(p, count) == tail(path, count) for p in others):
            count += 1
        repeat = paths[:i].count(path) + 1
        names.append(tail(path, count) + (f" ({repeat})" if repeat > 1 else ""))
    return names


def compare(
    table_rows: Sequence[Row],
    shards: Sequence[str | Path] | None = None,
    splits: Sequence[str] | None = None,
    *,
    limit: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measures all rows on the same clips.

    Args:
      table_rows: rows to measure; the first one's run names shards and training set.
      shards: folders of the clips; None for the shards of the first row's run.
      splits: names of splits; None for the available ones of `eval_data.DEFAULT_SPLITS`.
      limit: maximum number of clips per split, evenly selected; None for all.
      progress: called with each progress line.

    Returns:
      {"schema", "features", "splits": {split: {"clips", "rows": {name: {metric: value}}}}}.

    Raises:
      InputError: no such folder or split.
    """
    say = progress or (lambda line: None)
    first = table_rows[0].model
    data = eval_data.load(first, shards, splits, say=say)
    say("fitting features of the training motion")
    features = {}
    for name, group in _feature_groups().items():
        try:
            features[name] = _features(data, group)
        except ValueError as error:
            say(f"no {name} and no distance of samples: {error}")
    # Rows of one run differ in their sampling only and share the data.
    data_by_key = {_data_key(first): data}
    out: dict[str, Any] = {}
    for split in data.splits:
        sums = {row.name: _Sums() for row in table_rows}
        truth: list[np.ndarray] = []
        clips = 0
        chosen = data.clips(split, limit)
        for chunk in chosen.chunks():
            clips += len(chunk)
            truth += [
                distribution.windows(s.clip.motion, s.clip.frame_mask & _fully_observed(s))
                for s in chunk
            ]
            for row in table_rows:
                say(f"{split}: {len(chunk)} clips, {row.samples} sample(s) of {row.name}")
                key = _data_key(row.model)
                if key not in data_by_key:
                    data_by_key[key] = eval_data.load(row.model, data.folders, data.splits)
                _measure(row, chunk, data_by_key[key], sums[row.name])
        if not clips:
            raise data.nothing(split, chosen)
        true = np.concatenate(truth)
        out[split] = {
            "clips": clips,
            "windows": len(true),
            "rows": {row.name: _values(sums[row.name], true, features) for row in table_rows},
            "floor": _floor(truth, features),
        }
    return {
        "schema": SCHEMA,
        "features": {name: f.fingerprint for name, f in features.items()},
        "samples": {row.name: row.samples for row in table_rows},
        "models": {row.name: row.model.fingerprint for row in table_rows},
        "synthetic": any(m.synthetic for m in data.manifests),
        "splits": out,
    }


def table(result: dict[str, Any]) -> str:
    """Formats the result of `compare` as aligned text."""
    lines = []
    for split, part in result["splits"].items():
        kind = "synthetic data" if result["synthetic"] else "recorded data"
        width = max(len(name) for name in (*part["rows"], split)) + 2
        lines += ["", f"{split}, {part['clips']} clips, {kind}"]
        shown = columns()
        lines.append(" " * width + "".join(f"{c.label:>9}" for c in shown))
        for name, values in part["rows"].items():
            cells = (_cell(values.get(c.value), c.form) for c in shown)
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
        floor = {k: _cell(v, "{:.2f}") for k, v in part["floor"].items()}
        lines.append(f"one half of the true clips against the other: {floor}")
    return "\n".join(lines[1:])


def _data_key(model: eval_data.Model) -> tuple[Any, ...]:
    """Returns a key of everything that a model's evaluation data depend on."""
    config = model.config.model
    return model.config.data, config.identity, config.identity_normals, model.subjects


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _feature_groups() -> dict[str, np.ndarray]:
    return {"fd": WEIGHT_GROUPS["all"], "fd_mouth": WEIGHT_GROUPS["jaw_mouth"]}


def _features(data: eval_data.EvalData, group: np.ndarray) -> distribution.Features:
    source: ClipSource = data.known.takes
    wanted = np.linspace(0, len(source) - 1, min(len(source), distribution.MAX_WINDOWS)).astype(int)
    windows = []
    for i in np.unique(wanted):
        clip = source[int(i)]
        windows.append(distribution.windows(clip.motion, clip.frame_mask, TRAINING_HOP))
    return distribution.fit(np.concatenate(windows), group)


def _fully_observed(sample: eval_clips.EvalClip) -> np.ndarray:
    """Returns [T] bool, true if every weight is observed; distributions use such clips only."""
    return np.full(sample.clip.frames, bool(sample.clip.channel_mask[rig.WEIGHT_CHANNELS].all()))


def _measure(
    row: Row, chunk: Sequence[eval_clips.EvalClip], data: eval_data.EvalData, out: _Sums
) -> None:
    requests = [conditions.request(s, data.points, data.trained) for s in chunk]
    samples = [
        row.model.batch(
            [dataclasses.replace(r, sample_index=k) for r in requests] if k else requests
        )
        for k in range(row.samples)
    ]
    for i, sample in enumerate(chunk):
        motions = np.stack([motions[i] for motions in samples]).astype(np.float64)
        mean = np.broadcast_to(data.known.mean, sample.truth.motion.shape)
        constant = suite.sums(mean, sample.truth)

        def sums(motion: np.ndarray, sample=sample, constant=constant) -> Sums:
            totals = suite.sums(motion, sample.truth)
            eval_data.add_reference(totals, constant)
            return totals

        each = [sums(motion) for motion in motions]
        out.single += each
        out.mean.append(sums(motions.mean(0)))
        errors = [float(eval_data.values(s)["rmse_ratio"]) for s in each]
        out.best.append(each[int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0])
        out.spread.append(_spread(motions, sample))
        out.samples.append(suite.sample_sums(motions, sample.truth))
        valid_mask = sample.clip.frame_mask & _fully_observed(sample)
        out.windows.append([distribution.windows(motion, valid_mask) for motion in motions])


def _spread(motions: np.ndarray, sample: eval_clips.EvalClip) -> Sums:
    """Returns the variance over samples and the truth's variance over time, per channel."""
    valid_mask = sample.clip.frame_mask
    mask = np.asarray(sample.clip.channel_mask, np.float64)
    over_samples = np.zeros(rig.NUM_CHANNELS)
    if len(motions) > 1:
        over_samples = motions[:, valid_mask].var(0, ddof=1).sum(0)
    truth = sample.clip.motion[valid_mask].astype(np.float64)
    over_time = ((truth - truth.mean(0)) ** 2).sum(0) if len(truth) else np.zeros_like(over_samples)
    return {"samples": over_samples * mask, "truth": over_time * mask}


def _values(
    sums: _Sums, truth: np.ndarray, features: dict[str, distribution.Features]
) -> dict[str, float | None]:
    single = eval_data.values(merge(sums.single))
    spread = merge(sums.spread)
    out: dict[str, Any] = {
        "mean": eval_data.values(merge(sums.mean))["rmse_ratio"],
        "single": single["rmse_ratio"],
        "best": eval_data.values(merge(sums.best))["rmse_ratio"],
        "amp": single["amp_ratio/jaw_mouth"],
        "hf": single["hf_ratio"],
        "acc": single["acc_ratio"],
        "recall": single["closure_recall"],
        "prec": single["closure_precision"],
        "lag_ms": single["xcorr_lag_ms"],
        "pause": single["pause_aperture"],
        **suite.sample_values(merge(sums.samples)),
    }
    samples = len(sums.windows[0])
    drawn = [np.concatenate([clip[k] for clip in sums.windows]) for k in range(samples)]
    for name, feature in features.items():
        if len(truth) < 2:
            out[name] = float("nan")
            continue
        codes = [feature.encode(x) for x in drawn]
        out[name] = _distance(feature.encode(truth), codes)
        if name == "fd":
            out["multi"] = distribution.multimodality(codes, feature)
    if samples > 1:
        for name, group in SPREADS.items():
            ratio = divide(spread["samples"][group].sum(), spread["truth"][group].sum())
            out[name] = np.sqrt(ratio)
    return {k: float(v) if math.isfinite(float(v)) else None for k, v in out.items()}


def _distance(truth: np.ndarray, codes: Sequence[np.ndarray]) -> float:
    """Returns the mean distance over samples, each with as many windows as the truth."""
    return float(np.mean([distribution.frechet(truth, code) for code in codes]))


def _floor(
    truth: Sequence[np.ndarray], features: dict[str, distribution.Features]
) -> dict[str, float | None]:
    """Returns the distance between odd and even clips: the resolution for this window count."""
    halves = [np.concatenate(list(truth[k::2]) or [np.zeros((0,))]) for k in (0, 1)]
    if min(len(half) for half in halves) < 2:
        return dict.fromkeys(features)
    return {
        name: distribution.frechet(*(feature.encode(half) for half in halves))
        for name, feature in features.items()
    }
