"""Evaluates each checkpoint of a run once, while it trains, here or on another machine.

All state is in the run folder, so that a watcher that died continues where it was:

    RUN/eval/<step>.json   report of a checkpoint; one that is there is not measured again
            /best.json     {"metric", "split", "better", "value", "step", "report", "run"}
            /best/         a run folder with the best checkpoint alone, for `infer` and `evaluate`:
                           training keeps only some of its checkpoints
            /watch.lock    held while a process watches
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import files
from a2fjax.bundle import manifest
from a2fjax.errors import InputError, Preempted, WorkFailed, nearest
from a2fjax.evaluation import evaluator, report
from a2fjax.infer.chosen import Chosen
from a2fjax.infer.run_config import read_config
from a2fjax.metrics.metric import Column
from a2fjax.training import checkpoints, sync_loss

EVERY = 20.0
"""Seconds between looks at the checkpoints."""

_KEPT = ("params", "ema", "meta")

_EXPECTED = (InputError, WorkFailed, Preempted, OSError)
"""Errors that say what is wrong; others are defects, of which a watcher tells in one line."""


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is measured at each checkpoint."""

    shards: Sequence[str | Path] | None
    splits: Sequence[str] | None
    seed: int
    quick: bool

    def differs(self, found: dict[str, Any]) -> str:
        """Returns the flag by which a report is of other work, "" if it is of this."""
        for name in ("seed", "quick"):
            if found.get(name) != getattr(self, name):
                return name
        if self.splits is not None and set(self.splits) != set(found["splits"]):
            return "split"
        folders = [d["folder"] for d in found["data"]]
        return "data" if self.shards is not None and list(map(str, self.shards)) != folders else ""


def watch(
    run: str | Path,
    shards: Sequence[str | Path] | None = None,
    splits: Sequence[str] | None = None,
    *,
    best: str = "rmse_ratio",
    every: float = EVERY,
    seed: int = 0,
    resamples: int = 1000,
    quick: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any] | None:
    """Evaluates every checkpoint of a run until its last step.

    Args:
      run: run folder; training may be going on in it.
      shards: as for `evaluator.evaluate`.
      splits: as for `evaluator.evaluate`.
      best: figure that ranks checkpoints, on the first split.
      every: seconds between looks at the checkpoints.
      seed: as for `evaluator.evaluate`.
      resamples: as for `evaluator.evaluate`.
      quick: as for `evaluator.evaluate`.
      say: called with each line of progress.

    Returns:
      The content of best.json; None if no checkpoint has a value of the figure.

    Raises:
      InputError: not a run, a bundle, an unknown figure, a run that another process watches, or a
        report in the folder that was measured with other options.
      WorkFailed: a checkpoint cannot be evaluated.
    """
    run = Path(run)
    column = _column(best)
    checkpoints.steps(run)
    if manifest.is_bundle(run):
        raise InputError(f"run {run}: is a bundle of one checkpoint; evaluate it without --watch")
    work = _Work(shards, splits, seed, quick)
    told = ""
    with _locked(run):
        found = _keep_best(run, work, column, say)
        while True:
            last = read_config(run).config.steps
            have = checkpoints.steps(run)
            pending = [s for s in have if not _is_done(run, s, work)]
            for step in pending:
                say(f"step {step} of {last}")
                try:
                    result = evaluator.evaluate(
                        Chosen(run, step),
                        shards,
                        splits,
                        seed=seed,
                        resamples=resamples,
                        quick=quick,
                        progress=say,
                    )
                except Exception as error:
                    if step in checkpoints.steps(run):
                        if isinstance(error, _EXPECTED):
                            raise
                        why = f"{type(error).__name__}: {error}"
                        raise WorkFailed(
                            f"run {run}: step {step} could not be evaluated ({why})"
                        ) from error
                    say(f"step {step}: training has removed this checkpoint")
                    continue
                report.write(_path(run, step), result)
                found = _keep_best(run, work, column, say)
            if have and have[-1] >= last and not pending:
                return found
            if not pending:
                line = f"waiting for a checkpoint after step {have[-1] if have else 0} of {last}"
                if line != told:
                    say(line)
                    told = line
                time.sleep(every)


def _column(name: str) -> Column:
    columns = {column.value: column for column in report.columns()}
    if name not in columns:
        raise InputError(f"--best {name}: no such figure{nearest(name, columns)}")
    return columns[name]


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    files.make_folder(run / "eval")
    path = run / "eval" / "watch.lock"
    files.check_writable(path)
    with path.open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"run {run}: another process watches it ({path})") from None
        except OSError:
            pass  # The file system does not support locks, so the check is skipped.
        yield


def _path(run: Path, step: int) -> Path:
    return run / "eval" / f"{step}.json"


def _is_done(run: Path, step: int, work: _Work) -> bool:
    path = _path(run, step)
    if not path.is_file():
        return False
    wrong = work.differs(report.read(path))
    if wrong:
        raise InputError(
            f"{path}: was measured with another --{wrong}; move it away, or give the same"
        )
    return True


def _keep_best(
    run: Path, work: _Work, column: Column, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Writes best.json and the best checkpoint's folder from the reports that are there."""
    ranked = []
    for path in (run / "eval").glob("*.json"):
        if not path.stem.isdecimal():
            continue
        found = report.read(path)
        split, part = next(iter(found["splits"].items()))
        value = part["model"].get(column.value)
        if value is not None and not work.differs(found):
            badness = _badness(value, column, part["model"])
            ranked.append((badness, int(path.stem), value, split))
    if not ranked:
        return None
    _, step, value, split = min(ranked)
    path = run / "eval" / "best.json"
    kept = run / "eval" / "best"
    best = {
        "metric": column.value,
        "split": split,
        "better": column.better,
        "value": value,
        "step": step,
        "report": f"{step}.json",
        "run": "best",
    }
    if checkpoints.steps_in(kept / checkpoints.FOLDER) != [step] and not _copy(run, step, kept):
        say(f"step {step} is the best, but training has removed its checkpoint")
        best["run"] = None
    text = json.dumps(best, indent=1) + "\n"
    if not path.is_file() or path.read_text() != text:
        files.write_text(path, text)
        say(f"best {column.value} on {split}: {value:.4g} at step {step}")
    return best


def _badness(value: float, column: Column, row: Mapping[str, float | None]) -> float:
    """Returns how bad a value is; its ideal may be another figure of the row, as the truth's."""
    if column.better in ("lower", "higher"):
        return value if column.better == "lower" else -value
    try:
        ideal = float(column.better)
    except ValueError:
        known = row.get(column.better)
        ideal = math.nan if known is None else known
    return abs(value - ideal) if math.isfinite(ideal) else math.inf


def _copy(run: Path, step: int, kept: Path) -> bool:
    """Makes a run folder of one checkpoint; returns False if the checkpoint is gone."""
    partial = kept.with_name(".best.partial")
    shutil.rmtree(partial, ignore_errors=True)
    source = run / checkpoints.FOLDER / str(step)
    try:
        for item in source.iterdir():
            if item.name in _KEPT or item.is_file():
                _link(item, partial / checkpoints.FOLDER / str(step) / item.name)
    except FileNotFoundError:
        shutil.rmtree(partial, ignore_errors=True)
        return False
    for name in ("config.json", sync_loss.FILE):
        if (run / name).is_file():
            shutil.copy2(run / name, partial / name)
    if (run / "encoders").is_dir():
        _link(run / "encoders", partial / "encoders")
    shutil.rmtree(kept, ignore_errors=True)
    os.replace(partial, kept)
    return True


def _link(source: Path, target: Path) -> None:
    """Copies a file or folder by hard links where the file system has them: no bytes are copied."""

    def copy(one: str, two: str) -> None:
        try:
            os.link(one, two)
        except OSError:
            shutil.copy2(one, two)

    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, copy_function=copy)
    else:
        copy(str(source), str(target))
