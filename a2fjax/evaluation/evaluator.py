"""Evaluates a run or any program's curves, alone or against runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from a2fjax import configuration as config_lib
from a2fjax.errors import InputError
from a2fjax.evaluation import beside, eval_data, judge, measuring, paired, predictions, systems
from a2fjax.infer import lookahead
from a2fjax.infer.chosen import Chosen
from a2fjax.infer.run_config import read_config
from a2fjax.training import checkpoints


class _Given(TypedDict):
    seed: int
    resamples: int
    quick: bool
    say: Callable[[str], None]


def evaluate(
    model: str | Path | Chosen | eval_data.Model,
    shards: Sequence[str | Path] | None = None,
    splits: Sequence[str] | None = None,
    *,
    phones: str | Path | None = None,
    face: str | Path | None = None,
    sync: str | Path | None = None,
    sync_unchecked: bool = False,
    folder: str | Path | None = None,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    more: Sequence[str | Path | Chosen] = (),
    against: Sequence[str | Path | Chosen] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluates a model on whole clips.

    Args:
      model: run folder, a checkpoint of one, or a predictor.
      shards: folders of the clips; None for the run's training shards.
      splits: names of splits; None for the available ones of `eval_data.DEFAULT_SPLITS`.
      phones: folder of phone alignments, or "auto"; see `beside`.
      face: file of a head for metrics of vertices; see `metrics.face`.
      sync: run folder of a sync expert, the judge of lip sync; see `judge`.
      sync_unchecked: take a judge that did not pass its gate; the report says so.
      folder: run folder of `model` if that is a predictor, whose loss the judge may not be from.
      seed: seed of shuffles, noise, the choice of other takes and the bootstrap.
      resamples: number of bootstrap draws.
      quick: use few clips, few draws and no altered conditions.
      more: further runs of the same kind, such as other seeds, for `against`.
      against: runs to compare with on the same clips; see `paired`.
      progress: called with each progress line.

    Returns:
      The report; see `report.write` for its layout.

    Raises:
      InputError: no such run, step, folder or split, a run of other data in `against`, or a judge
        that did not pass its gate or trained one of the runs.
      WorkFailed: the model predicts non-finite values.
    """
    say = progress or (lambda line: None)
    run = None
    if isinstance(model, str | Path | Chosen):
        run = folder = str(model)
    own = [] if folder is None else [folder]
    judged_by = _judge(sync, sync_unchecked, [*own, *more, *against], say)
    if isinstance(model, str | Path | Chosen):
        model = Chosen.of(model).load()
    data = eval_data.load(model, shards, splits, say=say)
    data = _with_beside(data, phones, face, judged_by, say)
    system = systems.ModelSystem(model, data, run=run, seed=seed, quick=quick, say=say)
    for other in (*more, *against):
        _check_run(other, model.config if shards is None else None, run or "the model")
    given: _Given = {"seed": seed, "resamples": resamples, "quick": quick, "say": say}
    result = measuring.measure(system, data, **given)
    return _compared(result, data, more, against, given)


def evaluate_predictions(
    folder: str | Path,
    shards: Sequence[str | Path],
    splits: Sequence[str] | None = None,
    *,
    reading: predictions.Reading | None = None,
    phones: str | Path | None = None,
    face: str | Path | None = None,
    sync: str | Path | None = None,
    sync_unchecked: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    against: Sequence[str | Path | Chosen] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Evaluates the curves that any program made of the clips.

    Args:
      folder: folder with one file for each clip; see `prediction_files`.
      shards: folders of the clips.
      splits: as for `evaluate`.
      reading: how to read the files where they do not say it; None for no settings.
      phones: as for `evaluate`.
      face: as for `evaluate`.
      sync: as for `evaluate`.
      sync_unchecked: as for `evaluate`.
      seed: as for `evaluate`.
      resamples: number of bootstrap draws.
      quick: use few clips and few draws.
      against: runs to compare with on the same clips and channels; see `paired`.
      progress: called with each progress line.

    Returns:
      The report, whose "predictions" say how the files were read.

    Raises:
      InputError: no such folder or split, or files that are damaged or do not fit the clips.
    """
    say = progress or (lambda line: None)
    for run in against:
        _check_run(run)
    judged_by = _judge(sync, sync_unchecked, against, say)
    data = eval_data.load_clips(shards, splits, say=say)
    limit = measuring.QUICK_CLIPS if quick else None
    reading = reading or predictions.Reading()
    system = predictions.Predictions(folder, data, reading, limit=limit, say=say)
    data = dataclasses.replace(data, channels=system.channels)
    data = _with_beside(data, phones, face, judged_by, say)
    given: _Given = {"seed": seed, "resamples": resamples, "quick": quick, "say": say}
    result = measuring.measure(system, data, **given)
    return _compared(result, data, (), against, given)


def _judge(
    sync: str | Path | None,
    unchecked: bool,
    runs: Sequence[str | Path | Chosen],
    say: Callable[[str], None],
) -> judge.Judge | None:
    """Returns the judge of runs, None if none is asked for; before long work."""
    if sync is None:
        if unchecked:
            raise InputError("--sync-unchecked: goes with --sync RUN; give that as well")
        return None
    found = judge.load(sync, unchecked=unchecked)
    for run in runs:
        judge.refuse_if_trained_with(str(run), found, say=say)
    if not found.passed:
        say(f"the judge {sync} did not pass its gate: --sync-unchecked is written into the report")
    return found


def _with_beside(
    data: eval_data.EvalData,
    phones: str | Path | None,
    face: str | Path | None,
    judged_by: judge.Judge | None,
    say: Callable[[str], None],
) -> eval_data.EvalData:
    found = beside.load(phones, face, data.ids(), training=data.training_ids(), say=say)
    return dataclasses.replace(data, beside=dataclasses.replace(found, judge=judged_by))


def _compared(
    result: dict[str, Any],
    data: eval_data.EvalData,
    more: Sequence[str | Path | Chosen],
    against: Sequence[str | Path | Chosen],
    given: _Given,
) -> dict[str, Any]:
    """Adds the comparison with other runs to a report."""
    if not against:
        return result
    first, second = ([_measure_run(run, data, given) for run in runs] for runs in (more, against))
    compared = paired.compare(
        [result, *first], second, seed=given["seed"], resamples=result["resamples"]
    )
    return {**result, "against": compared}


def _measure_run(
    run: str | Path | Chosen, data: eval_data.EvalData, given: _Given
) -> dict[str, Any]:
    """Measures another run on the clips, the channels and the reference of the first one."""
    say = given["say"]
    say(f"measuring {run}")
    model = Chosen.of(run).load()
    own = dataclasses.replace(
        eval_data.load(model, data.folders, data.splits, say=say),
        known=data.known,
        training_folders=data.training_folders,
        channels=data.channels,
        beside=data.beside,
    )
    system = systems.ModelSystem(model, own, run=str(run), seed=given["seed"], quick=True, say=say)
    return measuring.measure(system, own, **given, alone=True)


def _check_run(
    run: str | Path | Chosen, config: config_lib.Config | None = None, first: str = ""
) -> None:
    """Checks before long work that a run has a checkpoint and is of the first one's data.

    Args:
      run: run folder.
      config: configuration of the first run, None where the clips are named.
      first: name of the first run.

    Raises:
      InputError: not a run, no checkpoint, or trained on other shards, so that the held-out clips
        of one may be the other's training clips.
    """
    chosen = Chosen.of(run)
    resolved = read_config(chosen.run).config
    lookahead.with_lookahead(resolved, chosen.lookahead_ms)
    own = resolved.data.shards
    if not checkpoints.steps(chosen.run):
        raise InputError(f"run {run}: has no checkpoint yet")
    if config is None:
        return
    if [Path(f).resolve() for f in own] != [Path(f).resolve() for f in config.data.shards]:
        raise InputError(
            f"run {run} was trained on {', '.join(own) or 'no shards'}, {first} on "
            f"{', '.join(config.data.shards) or 'no shards'}; name the clips with --data"
        )
