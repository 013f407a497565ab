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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import configuration as config_lib
from a2fjax.evaluation import eval_data, sample_figures
from a2fjax.infer.chosen import Chosen
from a2fjax.infer.run_config import read_config
from a2fjax.infer.sampling import is_sampled
from a2fjax.metrics import distribution, suite
from a2fjax.metrics.column import Column

SCHEMA = 1
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


def build_rows(
    runs: Sequence[str | Path | Chosen],
    steps: Sequence[int] = (),
    samples: int = 8,
) -> list[Row]:
    """Returns the rows of a table.

    Args:
      runs: run folders, or checkpoints of them; the first one names the shards.
      steps: numbers of sampling steps for diffusion runs, one row each; () for each run's default.
        Distilled runs skip numbers that do not divide their number of noise levels.
      samples: number of samples per clip for diffusion runs.

    Raises:
      InputError: no such run, step or look-ahead.
    """
    out = []
    choices = [Chosen.of(run) for run in runs]
    for run, name in zip(choices, row_names(choices), strict=True):
        config = read_config(run.run).config
        if not is_sampled(config):
            out.append(Row(name, run.load(), 1))
            continue
        own = config.model
        assert isinstance(own, config_lib.DiffusionConfig)
        # A student can start only from the levels it was distilled at.
        most = own.distill_levels if own.distill_steps else None
        counts = [n for n in steps if most is None or not most % n] or [own.sample.steps]
        for count in counts:
            model = run.load(sample={"steps": count})
            calls = f"{count} step{'s' if count > 1 else ''}"
            out.append(Row(f"{name}, {calls}", model, samples))
    return out


def row_names(runs: Sequence[str | Path | Chosen]) -> list[str]:
    """Returns a different name for each run: the last parts of its path, as few as are needed.

    A look-ahead that was chosen is part of the name.

    Example:
        >>> row_names(["a/run", "b/run", "b/other", "b/run"])
        ['a/run', 'b/run', 'other', 'b/run (2)']
    """
    paths = [Path(run).absolute() for run in runs]
    ahead = [Chosen.of(run).lookahead_ms for run in runs]

    def tail(path: Path, count: int) -> str:
        return "/".join(path.parts[-count:])

    names: list[str] = []
    for i, path in enumerate(paths):
        others = [p for p in paths if p != path]
        count = 1
        while count < len(path.parts) and any(tail(p, count) == tail(path, count) for p in others):
            count += 1
        name = tail(path, count) + ("" if ahead[i] is None else f", {ahead[i]} ms ahead")
        before = list(zip(paths, ahead, strict=True))[:i]
        repeat = before.count((path, ahead[i])) + 1
        names.append(name + (f" ({repeat})" if repeat > 1 else ""))
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
    for name, group in sample_figures.feature_groups().items():
        try:
            features[name] = sample_figures.fit_features(data, group)
        except ValueError as error:
            say(f"no {name} and no distance of samples: {error}")
    # Rows of one run differ in their sampling only and share the data.
    data_by_key = {_data_key(first): data}
    out: dict[str, Any] = {}
    for split in data.splits:
        sums = {row.name: sample_figures.SampleSums() for row in table_rows}
        truth: list[np.ndarray] = []
        clips = 0
        chosen = data.clips(split, limit)
        for chunk in chosen.chunks():
            clips += len(chunk)
            truth += [
                distribution.windows(
                    s.clip.motion, s.clip.frame_mask & sample_figures.fully_observed(s)
                )
                for s in chunk
            ]
            for row in table_rows:
                say(f"{split}: {len(chunk)} clips, {row.samples} sample(s) of {row.name}")
                key = _data_key(row.model)
                if key not in data_by_key:
                    data_by_key[key] = eval_data.load(row.model, data.folders, data.splits)
                sample_figures.add_samples(
                    row.model, row.samples, chunk, data_by_key[key], sums[row.name]
                )
        if not clips:
            raise data.nothing(split, chosen)
        true = np.concatenate(truth)
        out[split] = {
            "clips": clips,
            "windows": len(true),
            "rows": {
                row.name: sample_figures.values(sums[row.name], true, features)
                for row in table_rows
            },
            "floor": sample_figures.floor(truth, features),
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
