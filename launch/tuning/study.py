"""An Optuna study addressed by trial number: chosen values, results, and known values."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import logging
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a2fjax import budgets, configuration, files
from a2fjax.errors import InputError, nearest
from launch.sweeps import sweep
from launch.sweeps.spaces import Space
from launch.sweeps.sweep import Trial

PRUNERS = ("halving", "hyperband", "none")
JOURNAL, LOCK = "journal.log", "driver.lock"
_NAME = "a2fjax"

Points = list[tuple[int, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a search.

    Attributes:
      runs: total number of runs, including those of earlier drivers.
      max_parallel: maximum number of concurrent runs.
      better: whether "lower" or "higher" values are better.
      seed: determines the choices, with the trial's number and the known results.
      pruner: one of `PRUNERS`; halving and hyperband stop runs that are behind at a step.
      first_step: step of the first comparison.
      last_step: last step of a run; hyperband only.
      factor: one of `factor` compared runs continues, for `factor` times the steps.
      poll_seconds: seconds between queries of the runs.
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
          InputError: names the first invalid value.
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
    """Result of a trial.

    Attributes:
      number: number of the trial.
      trial: its values.
      run: id of its run, or of the run with the same values; "" if none was started.
      state: "done", "pruned", "failed" or "running".
      value: last known value.
      same_as: number of the trial with the same values, whose run this is.
    """

    number: int
    trial: Trial
    run: str
    state: str
    value: float | None
    same_as: int | None = None


class Study:
    """Optuna's study, by trial numbers."""

    def __init__(self, folder: Path, spaces: dict[str, Space] | None, settings: Settings) -> None:
        self._optuna = _optuna()
        self._folder, self._spaces, self._settings = folder, spaces, settings
        try:
            self._study = self._open(str(folder / JOURNAL))
            damage = self._damage()
        except Exception as error:  # noqa: BLE001 - Optuna replays lines without checking them
            damage = f"{type(error).__name__}: {error}"
        if damage:
            raise InputError(
                f"{folder / JOURNAL}: damaged ({damage[:200]}); delete it to begin the study anew"
            )

    def _open(self, path: str) -> Any:
        journal = self._optuna.storages.journal
        storage = self._optuna.storages.JournalStorage(
            journal.JournalFileBackend(path, lock_obj=journal.JournalFileSymlinkLock(path))
        )
        return self._optuna.create_study(
            storage=storage,
            study_name=_NAME,
            load_if_exists=True,
            pruner=self._pruner(),
            direction="minimize" if self._settings.better == "lower" else "maximize",
        )

    def _damage(self) -> str:
        """Returns the first note of a trial that no driver wrote; "" if there is none."""
        trials = self._trials()
        for number, trial in enumerate(trials):
            notes = trial.user_attrs
            for name, value in notes.items():
                if not _is_note(name, value, number):
                    return f"trial {number}: {name} is {value!r}"
            if not all(map(math.isfinite, trial.intermediate_values.values())):
                return f"trial {number}: a value is not finite"
            if "starting" in notes and not {"overrides", "key"} <= notes.keys():
                return f"trial {number}: it has no values"
        return ""

    def check_same(self) -> None:
        """Checks that the journal belongs to the same search.

        Raises:
          InputError: it is not.
        """
        assert self._spaces is not None
        space = {k: _plain(s) for k, s in sorted(self._spaces.items())}
        now = {
            "space": configuration.digest(space),
            "keys": sorted(space),
            "better": self._settings.better,
        }
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
        """Returns the numbers of trials that have not ended."""
        states = self._optuna.trial.TrialState
        return [t.number for t in self._trials() if t.state in (states.RUNNING, states.WAITING)]

    def with_runs(self, numbers: list[int]) -> list[int]:
        """Returns the trials that have a separate run."""
        return [n for n in numbers if "same_as" not in self.notes(n)]

    def started(self) -> int:
        """Returns the number of runs started by this driver or earlier ones."""
        return sum("starting" in t.user_attrs for t in self._trials())

    def trial(self, number: int) -> Trial:
        """Returns the values with which a trial runs."""
        trial = self._trials()[number]
        text: dict[str, str] = trial.user_attrs.get("overrides", {})
        return {k: configuration.parse_value(v) for k, v in text.items()}

    def notes(self, number: int) -> dict[str, Any]:
        """Returns the notes of drivers on a trial."""
        return dict(self._trials()[number].user_attrs)

    def note(self, number: int, name: str, value: Any) -> None:
        """Stores a note on a trial."""
        self._live(number).set_user_attr(name, value)

    def last(self, number: int) -> float | None:
        """Returns the value of the last known step."""
        points = self._trials()[number].intermediate_values
        return points[max(points)] if points else None

    def ask(self) -> tuple[int, int | None]:
        """Returns a new trial, and an earlier one with the same values, if any."""
        assert self._spaces is not None
        samplers = self._optuna.samplers
        # Use one sampler per number, so that another driver makes the same choices.
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
            # Exclude values chosen by a driver that was killed before it started a run.
            and ("starting" in t.user_attrs or not t.state.is_finished())
        }.get(sweep.key(chosen))
        if known is not None:
            asked.set_user_attr("same_as", known)
        asked.set_user_attr("overrides", sweep.overrides(chosen))
        asked.set_user_attr("key", sweep.key(chosen))
        if known is not None:
            self.settle_same()
        return asked.number, known

    def settle_same(self) -> None:
        """Ends trials that share the values of an ended trial with the same outcome."""
        running = set(self.running())
        for number in sorted(running):
            other = self.notes(number).get("same_as")
            if other is None or other in running:
                continue
            same = self._trials()[other]
            points = sorted(same.intermediate_values.items())
            live = self._live(number)
            for step, value in points:
                if step not in self._trials()[number].intermediate_values:
                    live.report(value, step)
            self.end(number, _state(same.state.name))

    def report(self, number: int, points: Points) -> bool:
        """Reports new values; returns whether the run is behind the others."""
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
        """Returns all trials, by number."""
        trials = self._trials()
        out = []
        for t in trials:
            same = t.user_attrs.get("same_as")
            run = trials[t.number if same is None else same].user_attrs.get("run", "")
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
        # Optuna offers no other access to the trials of an earlier driver.
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
def held(folder: Path) -> Iterator[None]:
    """Locks a study's folder, and repairs the journal left by a killed driver."""
    files.make_folder(folder)
    try:
        lock = files.open_append(folder / LOCK)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"{folder}: another driver is running") from None
        (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)
        journal = folder / JOURNAL
        if journal.exists():
            text = budgets.read_bytes(journal)
            complete = text.rfind(b"\n") + 1
            if complete < len(text):  # the next line would continue an incomplete one
                with journal.open("r+b") as file:
                    file.truncate(complete)
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


def _is_note(name: str, value: Any, number: int) -> bool:
    """Returns whether a driver can have written a note on a trial."""
    if name in ("starting", "pruned"):
        return value is True
    if name in ("run", "key"):
        return isinstance(value, str)
    if name == "same_as":
        return isinstance(value, int) and 0 <= value < number
    texts = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
    return name == "overrides" and texts


def _texts(space: Space) -> list[str]:
    # Optuna's categories are scalars; values may be lists.
    return list(dict.fromkeys(sweep.overrides({"": v})[""] for v in space.values))


def _value(space: Space, chosen: Any) -> Any:
    if space.kind == "choice":
        return configuration.parse_value(chosen)
    return int(chosen) if space.kind == "int" else space.rounded(chosen)


def _plain(space: Space) -> dict[str, Any]:
    return {**dataclasses.asdict(space), "values": _texts(space)}
