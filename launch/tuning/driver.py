"""Tuning: trials that are chosen by what earlier ones found, each an ordinary run.

A driver asks Optuna (the extra `tune`) for values, has runs started and stopped, and tells it what
they reached. All that is known lies in a journal in the study's folder: a driver that was killed is
started again by the same command, takes up the runs that are still at work, and starts none twice.
Values that were run before are not run again; what became of them is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from a2fjax.errors import InputError
from launch.jobs.outcome import ACTIVE, DONE, STOPPED
from launch.sweeps import sweep
from launch.sweeps.spaces import Space
from launch.tuning.study import JOURNAL, PRUNERS, Points, Result, Settings, Study, held

__all__ = ["PRUNERS", "Points", "Result", "Runs", "Settings", "results", "tune"]

_SAME_IN_A_ROW = 25


class Runs(Protocol):
    """Where trials run. Trial numbers count from 0; a run's folder is named by its number."""

    def start(self, number: int, overrides: dict[str, str]) -> str:
        """Starts the run of a trial and returns its id."""
        ...

    def find(self, number: int) -> str | None:
        """Returns the id of the run of a trial, or None where it was never started."""
        ...

    def poll(self, run: str) -> tuple[str, Points]:
        """Returns a state of `launch.jobs.outcome.STATES` and all (step, value) so far."""
        ...

    def cancel(self, run: str) -> None:
        """Ends a run; nothing where it has ended."""
        ...


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
    with held(Path(folder)):
        study = Study(Path(folder), sweep.space(spaces), settings)
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
    return Study(Path(folder), None, Settings(runs=1)).results()


class _Driver:
    """One pass after the other: what became of runs, then new ones where there is room."""

    def __init__(
        self,
        study: Study,
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
        given = sweep.overrides(self._study.trial(number))
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
