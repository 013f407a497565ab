"""Several takes of every line beside the truth: how close, how alike, and as how real motion is.

A row is a model with a number of sampling steps; a model that does not sample has one take. Figures
of jaw and mouth unless said:

    mean       RMSE of the mean of the takes over the constant mean's
    take       RMSE of a single take over the constant mean's
    best       RMSE of each clip's best take over the constant mean's
    amp, hf    amplitude and power above 10 Hz of single takes over the truth's
    recall, prec   lip closures of single takes
    fd, fd_mouth   Fréchet distance to the clips' true motion; `metrics.distribution`
    multi      multimodality
    mouth, upper, blink    spread of the takes over the truth's deviation over time
    pause      opening in pauses over that in speech
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import config as config_lib
from a2fjax import rig
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import conditions, eval_clips, eval_data
from a2fjax.infer.predictor import Predictor, read_config
from a2fjax.infer.sampling import is_sampled
from a2fjax.metrics import distribution, suite
from a2fjax.metrics.groups import WEIGHT_GROUPS
from a2fjax.metrics.sums import Sums, divide, merge

LEGEND = (
    "RMSE over the constant mean's: mean = of the mean of the takes, take = of one, best = of each "
    "clip's best; amp, hf = amplitude, power above 10 Hz over the truth's; recall, prec = lip "
    "closures; fd = Frechet distance to the true motion, all weights and mouth; multi = distance "
    "of two takes over that of any two windows; mouth, upper, blink = spread of takes over the "
    "truth's deviation; pause = opening in pauses over that in speech"
)

SCHEMA = 1
TRAINING_HOP = 50
SPREADS = {
    "mouth": WEIGHT_GROUPS["jaw_mouth"],
    "upper": WEIGHT_GROUPS["upper_face"],
    "blink": np.array([rig.INDEX["eyeBlinkLeft"], rig.INDEX["eyeBlinkRight"]]),
}
COLUMNS: tuple[tuple[str, str], ...] = (
    ("mean", "{:.3f}"),
    ("take", "{:.3f}"),
    ("best", "{:.3f}"),
    ("amp", "{:.2f}"),
    ("hf", "{:.2f}"),
    ("recall", "{:.3f}"),
    ("prec", "{:.3f}"),
    ("fd", "{:.2f}"),
    ("fd_mouth", "{:.2f}"),
    ("multi", "{:.2f}"),
    ("mouth", "{:.2f}"),
    ("upper", "{:.2f}"),
    ("blink", "{:.2f}"),
    ("pause", "{:.2f}"),
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A model as it is measured.

    Attributes:
      name: shown.
      model: the predictor.
      takes: motions of each line.
    """

    name: str
    model: eval_data.Model
    takes: int


@dataclasses.dataclass
class _Sums:
    """What a row's clips add up to."""

    single: list[Sums] = dataclasses.field(default_factory=list)
    mean: list[Sums] = dataclasses.field(default_factory=list)
    best: list[Sums] = dataclasses.field(default_factory=list)
    spread: list[Sums] = dataclasses.field(default_factory=list)
    windows: list[list[np.ndarray]] = dataclasses.field(default_factory=list)


def build_rows(
    runs: Sequence[str | Path],
    steps: Sequence[int] = (),
    takes: int = 8,
    *,
    checkpoint: int | None = None,
) -> list[Row]:
    """Returns the rows of a table.

    Args:
      runs: folders; the first names the shards.
      steps: of sampling, one row each, of the runs that sample; () for the runs' own. Distilled
        ones take those that divide the number of levels they know.
      takes: motions of each line, of the runs that sample.
      checkpoint: of the first run; the newest if None.

    Raises:
      InputError: no such run or step.
    """
    out = []
    for i, run in enumerate(runs):
        config, name = read_config(run).config, Path(run).name
        step = checkpoint if i == 0 else None
        if not is_sampled(config):
            out.append(Row(name, Predictor.load(run, step), 1))
            continue
        own = config.model
        assert isinstance(own, config_lib.DiffusionConfig)
        # A student knows so many levels to start from and no others.
        most = own.distill_levels if own.distill_steps else None
        counts = [n for n in steps if most is None or not most % n] or [own.sample.steps]
        for count in counts:
            model = Predictor.load(run, step, sample={"steps": count})
            calls = f"{count} step{'s' if count > 1 else ''}"
            out.append(Row(f"{name}, {calls}", model, takes))
    return out


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
      table_rows: what is measured; the first one's run names shards and training set.
      shards: folders of the clips; None for those of the first row's run.
      splits: of the manifests; None for those of `eval_data.DEFAULT_SPLITS` that the shards have.
      limit: measure at most this many clips a split, taken evenly; None for all.
      progress: is told what is being done.

    Returns:
      {"schema", "features", "splits": {split: {"clips", "rows": {name: {metric: value}}}}}.

    Raises:
      InputError: no such folder or split.
    """
    say = progress or (lambda line: None)
    first = table_rows[0].model
    told = eval_data.load(first, shards, splits, say=say)
    say("fitting features of the training motion")
    features = {}
    for name, group in _feature_groups().items():
        try:
            features[name] = _features(told, group)
        except ValueError as error:
            say(f"no {name} and no distance of takes: {error}")
    # Rows of one run differ in how they sample, not in what they are told.
    settings = {_data_key(first): told}
    out: dict[str, Any] = {}
    for split in told.splits:
        found = {row.name: _Sums() for row in table_rows}
        truth: list[np.ndarray] = []
        clips = 0
        chosen = told.clips(split, limit)
        for chunk in chosen.chunks():
            clips += len(chunk)
            truth += [
                distribution.windows(s.clip.motion, s.clip.frame_mask & _fully_observed(s))
                for s in chunk
            ]
            for row in table_rows:
                say(f"{split}: {len(chunk)} clips, {row.takes} take(s) of {row.name}")
                key = _data_key(row.model)
                if key not in settings:
                    settings[key] = eval_data.load(row.model, told.folders, told.splits)
                _measure(row, chunk, settings[key], found[row.name])
        if not clips:
            raise told.nothing(split, chosen)
        true = np.concatenate(truth)
        out[split] = {
            "clips": clips,
            "windows": len(true),
            "rows": {row.name: _values(found[row.name], true, features) for row in table_rows},
            "floor": _floor(truth, features),
        }
    return {
        "schema": SCHEMA,
        "features": {name: f.fingerprint for name, f in features.items()},
        "takes": {row.name: row.takes for row in table_rows},
        "models": {row.name: row.model.fingerprint for row in table_rows},
        "synthetic": any(m.synthetic for m in told.manifests),
        "splits": out,
    }


def table(result: dict[str, Any]) -> str:
    """Returns what `compare` found as aligned text."""
    lines = []
    for split, part in result["splits"].items():
        kind = "synthetic data" if result["synthetic"] else "recorded data"
        width = max(len(name) for name in (*part["rows"], split)) + 2
        lines += ["", f"{split}, {part['clips']} clips, {kind}"]
        lines.append(" " * width + "".join(f"{name:>9}" for name, _ in COLUMNS))
        for name, values in part["rows"].items():
            cells = (_cell(values.get(column), form) for column, form in COLUMNS)
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>9}" for cell in cells))
        floor = {k: _cell(v, "{:.2f}") for k, v in part["floor"].items()}
        lines.append(f"one half of the true clips against the other: {floor}")
    return "\n".join(lines[1:])


def _data_key(model: eval_data.Model) -> tuple[Any, ...]:
    """What the setting of a model depends on."""
    own = model.config.model
    return model.config.data, own.identity, own.identity_normals, model.subjects


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _feature_groups() -> dict[str, np.ndarray]:
    return {"fd": WEIGHT_GROUPS["all"], "fd_mouth": WEIGHT_GROUPS["jaw_mouth"]}


def _features(told: eval_data.EvalData, group: np.ndarray) -> distribution.Features:
    source: ClipSource = told.known.takes
    wanted = np.linspace(0, len(source) - 1, min(len(source), distribution.MOST)).astype(int)
    found = []
    for i in np.unique(wanted):
        clip = source[int(i)]
        found.append(distribution.windows(clip.motion, clip.frame_mask, TRAINING_HOP))
    return distribution.fit(np.concatenate(found), group)


def _fully_observed(sample: eval_clips.EvalClip) -> np.ndarray:
    """Frames count for a distribution only where every weight was observed."""
    return np.full(sample.clip.frames, bool(sample.clip.channel_mask[rig.WEIGHT_CHANNELS].all()))


def _measure(
    row: Row, chunk: Sequence[eval_clips.EvalClip], told: eval_data.EvalData, out: _Sums
) -> None:
    requests = [conditions.request(s, told.points, told.trained) for s in chunk]
    takes = [
        row.model.batch([dataclasses.replace(r, take=k) for r in requests] if k else requests)
        for k in range(row.takes)
    ]
    for i, sample in enumerate(chunk):
        motions = np.stack([take[i] for take in takes]).astype(np.float64)
        mean = np.broadcast_to(told.known.mean, sample.truth.motion.shape)
        constant = suite.sums(mean, sample.truth)

        def sums(motion: np.ndarray, sample=sample, constant=constant) -> Sums:
            found = suite.sums(motion, sample.truth)
            eval_data.add_reference(found, constant)
            return found

        each = [sums(motion) for motion in motions]
        out.single += each
        out.mean.append(sums(motions.mean(0)))
        errors = [float(eval_data.values(s)["rmse_ratio"]) for s in each]
        out.best.append(each[int(np.nanargmin(errors)) if np.isfinite(errors).any() else 0])
        out.spread.append(_spread(motions, sample))
        good = sample.clip.frame_mask & _fully_observed(sample)
        out.windows.append([distribution.windows(motion, good) for motion in motions])


def _spread(motions: np.ndarray, sample: eval_clips.EvalClip) -> Sums:
    """Variance over takes, and of the truth over time, by channel."""
    good = sample.clip.frame_mask
    mask = np.asarray(sample.clip.channel_mask, np.float64)
    over_takes = np.zeros(rig.NUM_CHANNELS)
    if len(motions) > 1:
        over_takes = motions[:, good].var(0, ddof=1).sum(0)
    truth = sample.clip.motion[good].astype(np.float64)
    over_time = ((truth - truth.mean(0)) ** 2).sum(0) if len(truth) else np.zeros_like(over_takes)
    return {"takes": over_takes * mask, "truth": over_time * mask}


def _values(
    found: _Sums, truth: np.ndarray, features: dict[str, distribution.Features]
) -> dict[str, float | None]:
    single = eval_data.values(merge(found.single))
    spread = merge(found.spread)
    out: dict[str, Any] = {
        "mean": eval_data.values(merge(found.mean))["rmse_ratio"],
        "take": single["rmse_ratio"],
        "best": eval_data.values(merge(found.best))["rmse_ratio"],
        "amp": single["amp_ratio/jaw_mouth"],
        "hf": single["hf_ratio"],
        "acc": single["acc_ratio"],
        "recall": single["closure_recall"],
        "prec": single["closure_precision"],
        "lag_ms": single["xcorr_lag_ms"],
        "pause": single["pause_aperture"],
    }
    takes = len(found.windows[0])
    made = [np.concatenate([clip[k] for clip in found.windows]) for k in range(takes)]
    for name, feature in features.items():
        codes = [feature.encode(x) for x in made]
        out[name] = _distance(feature.encode(truth), codes)
        if name == "fd":
            out["multi"] = distribution.multimodality(codes, feature)
    if takes > 1:
        for name, group in SPREADS.items():
            ratio = divide(spread["takes"][group].sum(), spread["truth"][group].sum())
            out[name] = np.sqrt(ratio)
    return {k: float(v) if math.isfinite(float(v)) else None for k, v in out.items()}


def _distance(truth: np.ndarray, codes: Sequence[np.ndarray]) -> float:
    """Mean over takes: as many windows as the truth has, whose number biases a distance."""
    if len(truth) < 2:
        return float("nan")
    return float(np.mean([distribution.frechet(truth, code) for code in codes]))


def _floor(
    truth: Sequence[np.ndarray], features: dict[str, distribution.Features]
) -> dict[str, float | None]:
    """The distance of the odd from the even clips: what as many windows cannot tell apart."""
    halves = [np.concatenate(list(truth[k::2]) or [np.zeros((0,))]) for k in (0, 1)]
    if min(len(half) for half in halves) < 2:
        return dict.fromkeys(features)
    return {
        name: distribution.frechet(*(feature.encode(half) for half in halves))
        for name, feature in features.items()
    }
