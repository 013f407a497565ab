"""Tuning: trials chosen from the results of earlier ones, each an ordinary run.

A driver asks Optuna (the extra `tune`) for values, starts and stops runs, and reports their results
to it. The whole state is a journal in the study's folder: after a driver was killed, the same
command continues, adopts the runs that are still active, and starts none twice. Values that were
run before are not run again, because their result is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from a2fjax.errors import InputError
from launch.jobs.outcome import ACTIVE, CANCELLED, DONE, STOPPED
from launch.sweeps import sweep
from launch.sweeps.spaces import Space
from launch.tuning.study import JOURNAL, PRUNERS, Points, Result, Settings, Study, held

__all__ = ["PRUNERS", "Points", "Result", "Runs", "Settings", "results", "tune"]

_SAME_IN_A_ROW = 25


class Runs(Protocol):
    """Starts, finds and stops the runs of trials, which are numbered from 0."""

    def start(self, number: int, overrides: dict[str, str]) -> str:
        """Starts the run of a trial and returns its id."""
        ...

    def find(self, number: int) -> str | None:
        """Returns the id of a trial's run, or None if it was never started."""
        ...

    def poll(self, run: str) -> tuple[str, Points]:
        """Returns a state of `launch.jobs.outcome.STATES` and all (step, value) so far."""
        ...

    def cancel(self, run: str) -> None:
        """Stops a run, unless it has ended."""
        ...


def tune(
    folder: str | Path,
    spaces: Mapping[str, Space],
    runs: Runs,
    settings: Settings,
    *,
    report: Callable[[str], None] = lambda line: None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Result]:
    """Runs a study to its end, continuing from the state of an earlier driver.

    Args:
      folder: folder of the study, on a disk with file locks.
      spaces: distributions to choose from, by key.
      runs: starts the runs of trials.
      settings: settings of the search.
      report: called with progress lines.
      sleep: waits between queries.

    Returns:
      All trials, by number.

    Raises:
      InputError: a setting is wrong, Optuna is missing, another driver runs, or the folder has a
        study of other keys.
      WorkFailed: as `runs`; the same call continues later.
    """
    settings.check()
    with held(Path(folder)):
        study = Study(Path(folder), sweep.space(spaces), settings)
        study.check_same()
        _Driver(study, runs, settings, report, sleep).drive()
        return study.results()


def results(folder: str | Path) -> list[Result]:
    """Returns the trials of a study, which a driver may be running.

    Raises:
      InputError: there is no study.
    """
    if not (Path(folder) / JOURNAL).is_file():
        raise InputError(f"{folder}: no study is there")
    return Study(Path(folder), None, Settings(runs=1)).results()


class _Driver:
    """Alternates between reading the results of runs and starting new ones."""

    def __init__(
        self,
        study: Study,
        runs: Runs,
        settings: Settings,
        report: Callable[[str], None],
        sleep: Callable[[float], None],
    ) -> None:
        self._study, self._runs, self._settings = study, runs, settings
        self._report, self._sleep = report, sleep
        self._stopped: set[int] = set()
        self._exhausted = False

    def drive(self) -> None:
        for number in self._study.running():
            self._adopt(number)
        while True:
            for number in self._active():
                self._update(number)
            self._study.settle_same()
            self._fill()
            if not self._active():
                break
            self._sleep(self._settings.poll_seconds)
        for number in sorted(self._stopped):
            self._report(f"trial {number} was stopped; tune again when it has continued")

    def _active(self) -> list[int]:
        # A trial with the same values as a stopped run waits with it.
        return [
            n
            for n in self._study.running()
            if self._study.notes(n).get("same_as", n) not in self._stopped
        ]

    def _full(self) -> bool:
        return len(self._study.with_runs(self._active())) >= self._settings.max_parallel

    def _fill(self) -> None:
        """Starts runs up to the limit, as long as there are new values to choose."""
        same = 0
        while self._study.started() < self._settings.runs and not self._full():
            if self._exhausted:
                return
            number, known = self._study.ask()
            if known is None:
                self._start(number)
                same = 0
                continue
            self._report(f"trial {number}: the same values as trial {known}")
            same += 1
            if same >= _SAME_IN_A_ROW:
                self._report(f"{same} choices in a row were known; no new values are left")
                self._exhausted = True

    def _start(self, number: int) -> None:
        given = sweep.overrides(self._study.trial(number))
        # Note this first: if the driver is killed in between, the next one looks for the run.
        self._study.note(number, "starting", True)
        run = self._runs.start(number, given)
        self._study.note(number, "run", run)
        self._report(f"trial {number}: {', '.join(f'{k}={v}' for k, v in given.items())}")

    def _adopt(self, number: int) -> None:
        notes = self._study.notes(number)
        if "run" in notes or "same_as" in notes:
            return
        if "starting" not in notes:
            self._study.end(number, "failed")  # the driver was killed while choosing values
            return
        run = self._runs.find(number)
        if run is None:
            self._start(number)
        else:
            self._study.note(number, "run", run)
            self._report(f"trial {number}: adopted")

    def _update(self, number: int) -> None:
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
            self._report(f"trial {number}: done, {reached}")
        elif state in ACTIVE and behind:
            self._study.note(number, "pruned", True)
            self._prune(number, run)
        elif state in (STOPPED, CANCELLED):
            self._stopped.add(number)
        elif state not in ACTIVE:
            self._study.end(number, "failed")
            self._report(f"trial {number}: {state}")

    def _prune(self, number: int, run: str) -> None:
        self._runs.cancel(run)
        self._study.end(number, "pruned")
        self._report(f"trial {number}: pruned, {self._study.last(number):.6g}")
