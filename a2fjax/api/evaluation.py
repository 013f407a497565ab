"""Evaluation: a run is measured on held-out clips, alone or beside other runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2fjax.api import runs as runs_lib
from a2fjax.api.reports import Comparison, Report, ReportComparison
from a2fjax.errors import InputError
from a2fjax.infer.chosen import Chosen

if TYPE_CHECKING:
    from a2fjax.api.model import Model
    from a2fjax.api.training import Run
    from a2fjax.evaluation.eval_data import Model as Predicts

Say = Callable[[str], None]
Shards = str | Path | Sequence[str | Path] | None


def evaluate(
    run: str | Path | Run | Model | Predicts | None = None,
    shards: Shards = None,
    split: str | Sequence[str] | None = None,
    *,
    more: Sequence[str | Path | Run | Model] = (),
    against: Sequence[str | Path | Run | Model] = (),
    predictions: str | Path | None = None,
    fps: float | None = None,
    units: str = "auto",
    mouth_close: str = "auto",
    align: bool = False,
    step: int | None = None,
    lookahead_ms: int | None = None,
    phones: str | Path | None = None,
    face: str | Path | None = None,
    sync: str | Path | None = None,
    sync_unchecked: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    say: Say | None = None,
) -> Report:
    """Measures a model, or files of any program, on whole held-out clips, beside baselines.

    Example:
        >>> evaluate("runs/none", "shards")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run runs/none does not exist; expected a folder that...

    Args:
      run: run folder, `Run`, `Model`, or any object with the methods of
        `a2fjax.evaluation.eval_data.Model`; None with `predictions`.
      shards: folder or folders of the clips; None for those of the training.
      split: name or names; None for "test_sentences" and "test_subjects" as far as there are clips.
      more: further runs of the same kind, such as other seeds, for `against`; at the look-ahead of
        `run`, unless a `Model` has its own.
      against: runs to compare with on the same clips: a test over people, and over runs where a
        side has several. A `Model` is measured at its step and look-ahead, a folder at its newest
        step and its configuration's look-ahead.
      predictions: folder with one file of curves for each clip, named as the clip, in any form
        that `a2fjax.animation.curve_reader` reads.
      fps: frames a second of `predictions` that state neither times nor a rate.
      units: "weight" (0 to 1), "percent" or "auto", of `predictions`.
      mouth_close: "arkit" (relative to an open jaw), "nvidia" (includes jawOpen) or "auto" (by
        comparison with the true motion), of `predictions`.
      align: shift `predictions` by their estimated constant offset, which is reported anyway.
      step: of the checkpoint; None for that of a `Model`, or the newest.
      lookahead_ms: look-ahead of a run for live audio; None for that of a `Model`, or the
        configuration's `model.lookahead_ms`.
      phones: folder of phone alignments named as the clips (TextGrid, CTM, .phone.json), or "auto"
        for English clips whose text is known; None for no metrics by phone.
      face: .npz file of a head with its shapes, for metrics of vertices; None for none.
      sync: run folder of a sync expert that passed its gate, the judge of lip sync; None for none.
      sync_unchecked: take a judge that did not pass; the report says so.
      seed: of shuffles, noise, the choice of other takes and the bootstrap.
      resamples: bootstrap draws of the 95 % intervals over subjects.
      quick: a dozen clips a split, few draws, no altered conditions.
      say: called with each line of progress.

    Raises:
      InputError: no such run, step, folder or split, files that do not fit the clips, or a judge
        that did not pass its gate or that trained one of the runs.
      WorkFailed: the model predicts values that are not finite.
    """
    from a2fjax.evaluation import evaluator
    from a2fjax.evaluation.predictions import Reading

    if (run is None) == (predictions is None):
        raise InputError("expected a run or predictions, one of the two")
    reading = Reading(fps=fps, units=units, mouth_close=mouth_close, align=align)
    given: dict[str, Any] = {"seed": seed, "resamples": resamples, "quick": quick, "progress": say}
    given |= {"against": [runs_lib.choose(other) for other in against]}
    given |= {"phones": phones, "face": face}
    given |= {"sync": sync, "sync_unchecked": sync_unchecked}
    if more and not (against and run is not None):
        raise InputError("more: goes with a run and against")
    if predictions is not None:
        folders = _list(shards)
        if not folders:
            raise InputError(f"predictions {predictions}: give the shards of the clips (--data)")
        if step is not None:
            raise InputError(f"step={step}: files have no steps")
        if lookahead_ms is not None:
            raise InputError(f"lookahead_ms={lookahead_ms}: files have none")
        values = evaluator.evaluate_predictions(
            predictions, folders, _names(split), reading=reading, **given
        )
        return Report(values)
    if reading != Reading():
        raise InputError("fps, units, mouth_close and align go with predictions")
    model, folder, ahead = _measured(run, step, lookahead_ms)
    values = evaluator.evaluate(
        model,
        _list(shards),
        _names(split),
        more=[_else_at(runs_lib.choose(other), ahead) for other in more],
        folder=folder,
        **given,
    )
    return Report(values)


def compare(
    *runs: str | Path | Run | Model,
    shards: Shards = None,
    split: str | Sequence[str] | None = None,
    samples: int = 8,
    sample_steps: Sequence[int] = (),
    step: int | None = None,
    limit: int | None = None,
    say: Say | None = None,
) -> Comparison:
    """Measures several runs on the same clips; of diffusion runs several samples of every clip.

    Example:
        >>> compare("runs/none", "runs/other")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run runs/none does not exist; expected a folder that...

    Args:
      *runs: run folders, `Run`s or `Model`s; the first one names the shards.
      shards: folder or folders of the clips; None for those of the first run's training.
      split: name or names; None for "test_sentences" and "test_subjects" as far as there are clips.
      samples: drawn of each clip by diffusion runs, at least 1.
      sample_steps: calls of the network a sample, a row each, of diffusion runs; () for their own.
      step: checkpoint of the first run; None for that of a `Model`, or the newest.
      limit: largest number of clips a split, taken evenly; None for all.
      say: called with each line of progress.

    Raises:
      InputError: no run, no such run, step, folder or split, or numbers below 1.
    """
    from a2fjax.evaluation import comparison

    if not runs:
        raise InputError("compare: expected at least one run")
    if samples < 1:
        raise InputError(f"samples={samples}: expected at least 1")
    if any(count < 1 for count in sample_steps):
        raise InputError(f"sample_steps={list(sample_steps)}: expected numbers such as 1,2,8")
    chosen = [runs_lib.choose(run, None if i else step) for i, run in enumerate(runs)]
    rows = comparison.build_rows(chosen, sample_steps, samples)
    values = comparison.compare(rows, _list(shards), _names(split), limit=limit, progress=say)
    return Comparison(values, rows[0].model.step)


def watch(
    run: str | Path | Run,
    shards: Shards = None,
    split: str | Sequence[str] | None = None,
    *,
    best: str = "rmse_ratio",
    every: float = 20.0,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    say: Say | None = None,
) -> dict[str, Any] | None:
    """Evaluates each checkpoint of a run once while it trains, until its last step.

    Reports are RUN/eval/STEP.json; RUN/eval/best is a run folder with the best checkpoint. After a
    stop, the same call continues. It may run on another machine that sees the run folder.

    Example:
        >>> watch("runs/none")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run runs/none: no such folder

    Args:
      run: run folder or `Run`.
      shards: as for `evaluate`.
      split: as for `evaluate`.
      best: figure that ranks the checkpoints, on the first split.
      every: seconds between looks at the checkpoints.
      seed: as for `evaluate`.
      resamples: as for `evaluate`.
      quick: as for `evaluate`.
      say: called with each line of progress.

    Returns:
      The content of RUN/eval/best.json, None without a value of the figure.

    Raises:
      InputError: not a run, an unknown figure, a run that is watched already, or reports in it that
        were measured with other options.
    """
    from a2fjax.evaluation import watch as watching

    if not every > 0:
        raise InputError(f"every={every}: expected seconds above 0")
    return watching.watch(
        runs_lib.folder(run),
        _list(shards),
        _names(split),
        best=best,
        every=every,
        seed=seed,
        resamples=resamples,
        quick=quick,
        say=say or (lambda line: None),
    )


def compare_reports(*paths: str | Path, seed: int = 0) -> ReportComparison:
    """Lays reports beside each other, of any labs, and tests each against the first.

    Example:
        >>> compare_reports("a.json", "b.json")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: report a.json: no such file

    Args:
      *paths: JSON files that `Report.save` wrote, at least two.
      seed: of the bootstrap.

    Raises:
      InputError: no such file, not a report, or reports of different work (other clips, channels or
        versions of metrics); names the difference.
    """
    from a2fjax.evaluation import bench
    from a2fjax.evaluation.comparison import row_names

    reports = [Report.read(path).values for path in paths]
    try:
        return ReportComparison(bench.compare(reports, row_names(paths), seed=seed))
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        shown = ", ".join(map(str, paths))
        raise InputError(f"{shown}: a report is damaged ({error!r})") from None


def _measured(
    run: Any, step: int | None, lookahead_ms: int | None
) -> tuple[Any, Path | None, int | None]:
    """Returns (what `evaluator.evaluate` takes as the model, run folder, look-ahead).

    The predictor of a `Model` is used where it is the one asked for: it may be compiled already.
    """
    from a2fjax.api.model import Model

    if not isinstance(run, Model | str | os.PathLike):
        for name, value in (("step", step), ("lookahead_ms", lookahead_ms)):
            if value is not None:
                raise InputError(f"{name}={value}: goes with a run folder or a Model")
        return run, None, None
    chosen = runs_lib.choose(run, step, lookahead_ms)
    if isinstance(run, Model) and chosen == run.chosen:
        return run.predictor(), chosen.run, chosen.lookahead_ms
    return chosen, chosen.run, chosen.lookahead_ms


def _else_at(chosen: Chosen, lookahead_ms: int | None) -> Chosen:
    """Returns a run at a look-ahead, unless it has its own."""
    if chosen.lookahead_ms is not None:
        return chosen
    return dataclasses.replace(chosen, lookahead_ms=lookahead_ms)


def _list(shards: Shards) -> list[str | Path] | None:
    if shards is None:
        return None
    return [shards] if isinstance(shards, str | Path) else list(shards)


def _names(split: str | Sequence[str] | None) -> list[str] | None:
    if split is None:
        return None
    return [split] if isinstance(split, str) else list(split)
