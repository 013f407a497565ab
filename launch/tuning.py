"""Tuning: trials that are chosen by what earlier ones found, each an ordinary run.

A driver asks Optuna (the extra `tune`) for values, has runs started and stopped, and tells it what
they reached. All that is known lies in a journal in the study's folder: a driver that was killed is
started again by the same command, takes up the runs that are still at work, and starts none twice.
Values that were run before are not run again; what became of them is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from a2fjax import config, files
from a2fjax.errors import InputError, nearest
from launch import trials
from launch.job import ACTIVE, DONE, STOPPED
from launch.spaces import Space
from launch.trials import Trial

PRUNERS = ("halving", "hyperband", "none")
JOURNAL, LOCK = "journal.log", "driver.lock"
_NAME = "a2fjax"
_SAME_IN_A_ROW = 25

Points = list[tuple[int, float]]


class Runs(Protocol):
    """Where trials run. Trial numbers count from 0; a run's folder is named by its number."""

    def start(self, number: int, overrides: dict[str, str]) -> str:
        """Starts the run of a trial and returns its id."""
        ...

    def find(self, number: int) -> str | None:
        """Returns the id of the run of a trial, or None where it was never started."""
        ...

    def poll(self, run: str) -> tuple[str, Points]:
        """Returns a state of `launch.job.STATES` and all (step, value) so far."""
        ...

    def cancel(self, run: str) -> None:
        """Ends a run; nothing where it has ended."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How to search.

    Attributes:
      runs: how many runs are started in all, those of earlier drivers counted.
      max_parallel: at the same time.
      better: "lower" or "higher" values.
      seed: of the choices; what is chosen depends on it, the trial's number and what is known.
      pruner: of `PRUNERS`; halving and hyperband stop runs that are behind the others at a step.
      first_step: at which runs are compared first.
      last_step: of a whole run; hyperband only.
      factor: of the runs that are compared, one of so many goes on, for so many times the steps.
      poll_seconds: between looks at the runs.
    """

    runs: int
    max_parallel: int = 1
    better: str = "lower"
    seed: int = 0
    pruner: str = "halving"
    first_step: int = 100
    last_step: int = 10_000
    factor: int = 3
    poll_seconds: float = 10.0

    def check(self) -> None:
        """Checks all values.

        Raises:
          InputError: names the first that is wrong.
        """
        for name in ("runs", "max_parallel", "first_step", "last_step"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}: expected 1 or more")
        if self.factor < 2:
            raise InputError(f"factor {self.factor}: expected 2 or more")
        if self.better not in ("lower", "higher"):
            raise InputError(f"better {self.better!r}{nearest(self.better, ('lower', 'higher'))}")
        if self.pruner not in PRUNERS:
            raise InputError(f"pruner {self.pruner!r}{nearest(self.pruner, PRUNERS)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a trial.

    Attributes:
      number: of the trial.
      trial: its values.
      run: id, or that of the run with the same values; "" where none was started.
      state: "done", "pruned", "failed" or "running".
      value: last one that is known.
      same_as: number of the trial with the same values, whose run this is.
    """

    number: int
    trial: Trial
    run: str
    state: str
    value: float | None
    same_as: int | None = None


def tune(
    folder: str | Path,
    spaces: Mapping[str, Space],
    runs: Runs,
    settings: Settings,
    *,
    say: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Result]:
    """Drives a study to its end, or from where an earlier driver was stopped.

    Args:
      folder: of the study, on a disk that this machine may lock.
      spaces: what to choose from, by key.
      runs: where trials run.
      settings: how to search.
      say: takes lines of progress.
      sleep: waits between looks.

    Returns:
      All trials, by number.

    Raises:
      InputError: a setting is wrong, Optuna is missing, another driver is at work, or the folder
        has a study of other keys.
      WorkFailed: what `runs` raises; the same call goes on later.
    """
    settings.check()
    with _held(Path(folder)):
        study = _Study(Path(folder), trials.space(spaces), settings)
        study.check_same()
        _Driver(study, runs, settings, say, sleep).drive()
        return study.results()


def results(folder: str | Path) -> list[Result]:
    """Returns what is known of a study's trials; a driver may be at work.

    Raises:
      InputError: there is no study.
    """
    if not (Path(folder) / JOURNAL).is_file():
        raise InputError(f"{folder}: no study is there")
    return _Study(Path(folder), None, Settings(runs=1)).results()


class _Driver:
    """One pass after the other: what became of runs, then new ones where there is room."""

    def __init__(
        self,
        study: _Study,
        runs: Runs,
        settings: Settings,
        say: Callable[[str], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._study, self._runs, self._settings = study, runs, settings
        self._say, self._sleep = say, sleep
        self._stopped: set[int] = set()
        self._exhausted = False

    def drive(self) -> None:
        for number in self._study.running():
            self._take_up(number)
        while True:
            for number in self._at_work():
                self._look_at(number)
            self._study.settle_same()
            self._fill()
            if not self._at_work():
                break
            self._sleep(self._settings.poll_seconds)
        for number in sorted(self._stopped):
            self._say(f"trial {number} was stopped; when it goes on, tune again")

    def _at_work(self) -> list[int]:
        # What waits for a run that was stopped waits with it.
        return [
            n
            for n in self._study.running()
            if self._study.notes(n).get("same_as", n) not in self._stopped
        ]

    def _full(self) -> bool:
        return len(self._study.with_runs(self._at_work())) >= self._settings.max_parallel

    def _fill(self) -> None:
        """Starts runs, as many as there is room for and anything new to choose."""
        same = 0
        while self._study.started() < self._settings.runs and not self._full():
            if self._exhausted:
                return
            number, known = self._study.ask()
            if known is None:
                self._start(number)
                same = 0
                continue
            self._say(f"trial {number}: the same values as trial {known}")
            same += 1
            if same >= _SAME_IN_A_ROW:
                self._say(f"{same} choices in a row were known; nothing new is left")
                self._exhausted = True

    def _start(self, number: int) -> None:
        given = trials.overrides(self._study.trial(number))
        # Said before: a driver killed in between must look for the run before it starts one.
        self._study.note(number, "starting", True)
        run = self._runs.start(number, given)
        self._study.note(number, "run", run)
        self._say(f"trial {number}: {', '.join(f'{k}={v}' for k, v in given.items())}")

    def _take_up(self, number: int) -> None:
        notes = self._study.notes(number)
        if "run" in notes or "same_as" in notes:
            return
        if "starting" not in notes:
            self._study.end(number, "failed")  # killed while it was chosen
            return
        run = self._runs.find(number)
        if run is None:
            self._start(number)
        else:
            self._study.note(number, "run", run)
            self._say(f"trial {number}: taken up")

    def _look_at(self, number: int) -> None:
        notes = self._study.notes(number)
        run = notes.get("run")
        if run is None:
            return
        if notes.get("pruned"):
            self._prune(number, run)
            return
        state, points = self._runs.poll(run)
        behind = self._study.report(number, points)
        if state == DONE:
            value = self._study.last(number)
            self._study.end(number, "failed" if value is None else "done")
            reached = "no value" if value is None else f"{value:.6g}"
            self._say(f"trial {number}: done, {reached}")
        elif state in ACTIVE and behind:
            self._study.note(number, "pruned", True)
            self._prune(number, run)
        elif state == STOPPED:
            self._stopped.add(number)
        elif state not in ACTIVE:
            self._study.end(number, "failed")
            self._say(f"trial {number}: {state}")

    def _prune(self, number: int, run: str) -> None:
        self._runs.cancel(run)
        self._study.end(number, "pruned")
        self._say(f"trial {number}: pruned, {self._study.last(number):.6g}")


class _Study:
    """Optuna's study, by trial numbers."""

    def __init__(self, folder: Path, spaces: dict[str, Space] | None, settings: Settings) -> None:
        self._optuna = optuna = _optuna()
        self._folder, self._spaces, self._settings = folder, spaces, settings
        journal = optuna.storages.journal
        path = str(folder / JOURNAL)
        storage = optuna.storages.JournalStorage(
            journal.JournalFileBackend(path, lock_obj=journal.JournalFileSymlinkLock(path))
        )
        self._study = optuna.create_study(
            storage=storage,
            study_name=_NAME,
            load_if_exists=True,
            pruner=self._pruner(),
            direction="minimize" if settings.better == "lower" else "maximize",
        )

    def check_same(self) -> None:
        """Checks that the journal is of the same search.

        Raises:
          InputError: it is not.
        """
        assert self._spaces is not None
        said = {k: _plain(s) for k, s in sorted(self._spaces.items())}
        now = {"space": config.digest(said), "keys": sorted(said), "better": self._settings.better}
        before = self._study.user_attrs
        for name, value in now.items():
            if name not in before:
                self._study.set_user_attr(name, value)
            elif before[name] != value:
                what = {"better": "direction"}.get(name, "search space")
                raise InputError(
                    f"{self._folder}: has a study with another {what} (its keys: "
                    f"{', '.join(before.get('keys', []))}); give another folder"
                )

    def running(self) -> list[int]:
        states = self._optuna.trial.TrialState
        return [t.number for t in self._trials() if t.state in (states.RUNNING, states.WAITING)]

    def with_runs(self, numbers: list[int]) -> list[int]:
        return [n for n in numbers if "same_as" not in self.notes(n)]

    def started(self) -> int:
        return sum("starting" in t.user_attrs for t in self._trials())

    def trial(self, number: int) -> Trial:
        """Returns the values of a trial, as they are run."""
        found = self._trials()[number]
        text: dict[str, str] = found.user_attrs.get("overrides", {})
        return {k: config.parse_value(v) for k, v in text.items()}

    def notes(self, number: int) -> dict[str, Any]:
        return dict(self._trials()[number].user_attrs)

    def note(self, number: int, name: str, value: Any) -> None:
        self._live(number).set_user_attr(name, value)

    def last(self, number: int) -> float | None:
        points = self._trials()[number].intermediate_values
        return points[max(points)] if points else None

    def ask(self) -> tuple[int, int | None]:
        """Returns a new trial, and the earlier one with the same values if there is one."""
        assert self._spaces is not None
        samplers = self._optuna.samplers
        # A sampler for each number, so that a driver that takes over chooses as this one would.
        self._study.sampler = samplers.TPESampler(
            seed=(1_000_003 * self._settings.seed + len(self._trials())) % 2**31,
            constant_liar=True,
        )
        asked = self._study.ask({k: self._distribution(s) for k, s in self._spaces.items()})
        chosen = {k: _value(s, asked.params[k]) for k, s in self._spaces.items()}
        known = {
            t.user_attrs["key"]: t.number
            for t in reversed(self._trials())
            if "key" in t.user_attrs
            and "same_as" not in t.user_attrs
            # Not what was chosen by a driver that was killed before it started a run.
            and ("starting" in t.user_attrs or not t.state.is_finished())
        }.get(trials.key(chosen))
        if known is not None:
            asked.set_user_attr("same_as", known)
        asked.set_user_attr("overrides", trials.overrides(chosen))
        asked.set_user_attr("key", trials.key(chosen))
        if known is not None:
            self.settle_same()
        return asked.number, known

    def settle_same(self) -> None:
        """Ends trials whose values another trial has run, as that one ended."""
        running = set(self.running())
        for number in sorted(running):
            other = self.notes(number).get("same_as")
            if other is None or other in running:
                continue
            found = self._trials()[other]
            points = sorted(found.intermediate_values.items())
            live = self._live(number)
            for step, value in points:
                if step not in self._trials()[number].intermediate_values:
                    live.report(value, step)
            self.end(number, _state(found.state.name))

    def report(self, number: int, points: Points) -> bool:
        """Notes new values; returns whether the run is behind the others."""
        before = self._trials()[number].intermediate_values
        live, behind = self._live(number), False
        for step, value in sorted(points):
            if step in before or step < 0 or not math.isfinite(value):
                continue
            live.report(float(value), int(step))
            behind = live.should_prune() or behind
        return behind

    def end(self, number: int, state: str) -> None:
        """Ends a trial; "done" with its last value."""
        states = self._optuna.trial.TrialState
        value = self.last(number)
        if state == "done" and value is not None:
            self._study.tell(number, value)
        else:
            self._study.tell(number, state=states.PRUNED if state == "pruned" else states.FAIL)

    def results(self) -> list[Result]:
        found = self._trials()
        out = []
        for t in found:
            same = t.user_attrs.get("same_as")
            run = found[t.number if same is None else same].user_attrs.get("run", "")
            out.append(
                Result(
                    number=t.number,
                    trial=self.trial(t.number),
                    run=run,
                    state=_state(t.state.name),
                    value=t.value if t.value is not None else self.last(t.number),
                    same_as=same,
                )
            )
        return out

    def _trials(self) -> list[Any]:
        return list(self._study.get_trials(deepcopy=False))

    def _live(self, number: int) -> Any:
        # Of a trial that an earlier driver asked for there is no object to be had otherwise.
        return self._optuna.trial.Trial(self._study, self._trials()[number]._trial_id)

    def _distribution(self, space: Space) -> Any:
        kinds = self._optuna.distributions
        if space.kind == "choice":
            return kinds.CategoricalDistribution(_texts(space))
        if space.kind == "int":
            return kinds.IntDistribution(int(space.low), int(space.high), log=space.log)
        return kinds.FloatDistribution(space.low, space.high, log=space.log)

    def _pruner(self) -> Any:
        s, kinds = self._settings, self._optuna.pruners
        if s.pruner == "none":
            return kinds.NopPruner()
        if s.pruner == "hyperband":
            return kinds.HyperbandPruner(s.first_step, s.last_step, s.factor)
        return kinds.SuccessiveHalvingPruner(s.first_step, s.factor)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Holds a study's folder, and mends what a driver that was killed left of its journal."""
    files.make_folder(folder)
    try:
        lock = (folder / LOCK).open("a")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another driver is at work") from None
        (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)
        journal = folder / JOURNAL
        if journal.is_file():
            text = journal.read_bytes()
            whole = text.rfind(b"\n") + 1
            if whole < len(text):  # what comes next would be appended to half a line
                with journal.open("r+b") as file:
                    file.truncate(whole)
        yield


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("tuning needs the extra `tune`: pip install 'a2fjax[tune]'") from None
    optuna.logging.set_verbosity(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def _state(name: str) -> str:
    known = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed"}
    return known.get(name, "running")


def _texts(space: Space) -> list[str]:
    # Optuna's categories are scalars; values may be lists.
    return list(dict.fromkeys(trials.overrides({"": v})[""] for v in space.values))


def _value(space: Space, found: Any) -> Any:
    if space.kind == "choice":
        return config.parse_value(found)
    return int(found) if space.kind == "int" else space.rounded(found)


def _plain(space: Space) -> dict[str, Any]:
    return {**dataclasses.asdict(space), "values": _texts(space)}
