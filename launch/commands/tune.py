"""The command `tune`: the trials of a study are runs of a sweep that grows."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from a2fjax import budgets, errors, files, progress
from a2fjax import configuration as config_lib
from a2fjax.errors import InputError, WorkFailed
from launch import schedulers
from launch.jobs import folders, outcome, record
from launch.jobs.formats import last_line
from launch.monitor import cancel, states
from launch.monitor.wait import PATIENCE
from launch.submission import flags
from launch.sweeps import Trial, parse, sweep
from launch.tuning import driver

_OWN_FLAGS = (
    "--space",
    "--trials",
    "--metric",
    "--pruner",
    "--first-step",
    "--seed",
    "--max-parallel",
)
_TAIL = 1 << 16  # bytes of a log that hold its last line
_SAY_SECONDS = 60.0
_PATIENCE = 120.0
"""Seconds for a run's specification to be written."""


def tune(args: argparse.Namespace, argv: Sequence[str], extra: Sequence[str]) -> int:
    """Runs `tune`; returns the exit code.

    Args:
      args: parsed arguments.
      argv: the same arguments as words, reused for each run.
      extra: overrides of the experiment.

    Raises:
      InputError: a value is wrong, or Optuna is not installed.
      WorkFailed: a run could not be started.
    """
    overrides = config_lib.parse_overrides(extra)
    space = parse.parse_space(args.space)
    config = config_lib.load(args.experiment, overrides).config
    # Check one possible trial, to report a wrong key before the first run.
    sweep.check([{k: s.quantile(0.5) for k, s in space.items()}], args.experiment, overrides)
    if args.dry_run:
        raise InputError("--dry-run: is not for tune; `submit` with one of its trials shows a run")
    if args.trials < 1:
        raise InputError(f"--trials {args.trials}: expected 1 or more")
    metric = args.metric.removeprefix("-")
    settings = driver.Settings(
        runs=args.trials,
        max_parallel=flags.value(args, "max_parallel") or 1,
        better="lower" if metric == args.metric else "higher",
        seed=args.seed,
        pruner=args.pruner,
        first_step=args.first_step or max(1, config.steps // 9),
        last_step=config.steps,
        poll_seconds=args.poll,
    )
    folder = Path(args.runs).absolute() / folders.check_name(args.name)
    if record.is_job(folder):
        raise InputError(f"--name {args.name}: is a run; take another name")
    files.make_folder(record.launch(folder))
    if not record.is_sweep(folder):
        record.write_sweep(folder, [])
    words = _without(argv[1:], _OWN_FLAGS)
    scheduler = schedulers.get(args.scheduler or schedulers.DEFAULT)
    runs = _Runs(folder, words, metric, wait=scheduler.capabilities.foreground)
    waits = f"trials run; `submit.py status {args.name}` shows them"
    with progress.shown(waits, after=_SAY_SECONDS, every=_SAY_SECONDS):
        results = driver.tune(
            record.launch(folder) / "study",
            space,
            runs,
            settings,
            report=lambda t: print(t, flush=True),
        )
    sign = 1 if settings.better == "lower" else -1
    done = [(sign * r.value, r) for r in results if r.value is not None and r.state == "done"]
    for result in results:
        value = "-" if result.value is None else f"{result.value:.6g}"
        print(f"  {result.number:4d}  {result.state:8s}  {value:>10s}  {_words(result.trial)}")
    if not done:
        raise WorkFailed(f"{args.name}: no trial succeeded; `submit.py logs {args.name}` shows why")
    least, best = min(done, key=lambda pair: pair[0])
    print(f"{args.name}: best is trial {best.number}, {metric} {sign * least:.6g}: {best.run}")
    print(f"`submit.py status {args.name} --sort={args.metric}` has the table")
    return errors.EXIT_OK


class _Runs:
    """Trials as runs of the sweep in `folder`, each submitted by its own command."""

    def __init__(self, folder: Path, words: Sequence[str], metric: str, *, wait: bool) -> None:
        """Stores the settings that all runs share.

        Args:
          folder: folder of the sweep.
          words: arguments of `submit` without the trial.
          metric: key of metrics.jsonl to compare.
          wait: whether the submission lasts as long as the run, as in the foreground.
        """
        self._folder, self._words, self._metric, self._wait = folder, list(words), metric, wait
        self._numbers = record.launch(folder) / "numbers"
        self._silent, self._lost = 0, Counter[str]()
        files.make_folder(self._numbers)

    def start(self, number: int, overrides: dict[str, str]) -> str:
        """See `tuning.Runs`."""
        trial = {k: config_lib.parse_value(v) for k, v in overrides.items()}
        entry = {"key": sweep.key(trial), "trial": trial}
        # Write this first, so that another driver can identify the run.
        files.write_text(self._numbers / f"{number}.json", json.dumps(entry) + "\n")
        command = [sys.executable, str(Path(__file__).parents[1] / "submit.py"), "submit"]
        command += [*self._words, "--sweep", repr([trial])]
        log = self._numbers / f"{number}.log"
        with files.open_private(log) as out:
            # Use a new session, so that runs continue if the driver is interrupted.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
        end = time.monotonic() + _PATIENCE
        while True:
            code = process.poll()
            run = self.find(number)
            if run is not None and (self._wait or code is not None):
                return run
            if code is not None or time.monotonic() > end:
                message = last_line(budgets.read_tail(log, _TAIL).decode(errors="replace"))
                kind = InputError if code == errors.EXIT_BAD_INPUT else WorkFailed
                raise kind(f"trial {number}: was not started: {message}")
            time.sleep(0.1)

    def find(self, number: int) -> str | None:
        """See `tuning.Runs`."""
        with contextlib.suppress(OSError, ValueError, KeyError):  # InputError is a ValueError
            key = budgets.load_json(self._numbers / f"{number}.json")["key"]
            for run in record.trials(self._folder):
                # The specification is written before the submission.
                if record.is_job(run) and record.read(run).key == key and record.submission(run):
                    return str(run)
        return None

    def poll(self, run: str) -> tuple[str, driver.Points]:
        """See `tuning.Runs`."""
        folder, points = Path(run), []
        with contextlib.suppress(InputError):
            data = budgets.read_bytes(folder / "metrics.jsonl")
            for text in data.decode(errors="replace").splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    line = budgets.parse_json(text, name="metrics.jsonl")
                    points.append((int(line["step"]), float(line[self._metric])))
        return self._state(folder), points

    def _state(self, run: Path) -> str:
        """Returns a run's state; tolerates restarts and late exit codes."""
        try:
            state = states.one(run).name
        except WorkFailed as error:
            self._silent += 1
            if self._silent == PATIENCE:
                raise
            print(f"{error}; asking again", flush=True)
            return outcome.RUNNING
        self._silent = 0
        self._lost[run.name] = self._lost[run.name] + 1 if state == outcome.LOST else 0
        return outcome.RUNNING if 0 < self._lost[run.name] < PATIENCE else state

    def cancel(self, run: str) -> None:
        """See `tuning.Runs`."""
        if states.one(Path(run)).active:
            cancel.cancel(Path(run))


def _without(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Returns the words without some flags and their values."""
    out, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in flags:
            skip = True
        elif word.partition("=")[0] not in flags:
            out.append(word)
    return out


def _words(trial: Trial) -> str:
    return ", ".join(f"{k}={v}" for k, v in trial.items())
