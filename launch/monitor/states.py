"""States of runs and elements, from their schedulers and their files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from a2fjax.errors import InputError, WorkFailed
from launch import schedulers
from launch.jobs import direct, folders, outcome, record
from launch.jobs.outcome import State
from launch.jobs.record import Submission


def query(runs: Sequence[Path], *, lenient: bool = False) -> dict[Path, State]:
    """Returns the states of runs and elements; queries each scheduler once.

    Args:
      runs: folders of runs, trials or elements, or of runs made by `a2fjax train` directly.
      lenient: whether to use the files if a scheduler is not available on this machine.

    Returns:
      States; one of several runs whose record is damaged is "lost", with the damage as the reason.

    Raises:
      InputError: the file of the only run is damaged, or a scheduler's programs are not on this
        machine.
      WorkFailed: a scheduler does not answer.
    """
    result: dict[Path, State] = {}
    groups: dict[str, dict[Path, Submission]] = {}
    for run, submitted in _submissions(runs, result).items():
        if submitted is None or not submitted.job:
            unknown = submitted is None and folders.is_training(run)
            result[run] = direct.state(run) if unknown else outcome.recorded(run, submitted)
        else:
            groups.setdefault(submitted.scheduler, {})[run] = submitted
    for name, group in groups.items():
        try:
            result |= _asked(name, group)
        except (InputError, WorkFailed) as error:
            if not lenient:
                raise
            print(f"{name} cannot be asked here: {error}", file=sys.stderr)
            result |= {run: outcome.recorded(run, entry) for run, entry in group.items()}
    return {run: _named(run, result[run]) for run in runs}


def _named(run: Path, state: State) -> State:
    """Returns "cancelled" for a run that schedulers report as failed or lost after `cancel`."""
    ended = not state.active and state.name != outcome.DONE
    return State(outcome.CANCELLED) if ended and outcome.is_cancelled(run) else state


def _submissions(
    runs: Sequence[Path], damaged: dict[Path, State]
) -> Mapping[Path, Submission | None]:
    """Returns the submissions of runs; adds the states of damaged ones to `damaged`."""
    try:
        return record.submissions(runs)
    except InputError:
        if len(runs) < 2:
            raise
    result = {}
    for run in runs:
        try:
            result[run] = record.submission(run)
        except InputError as error:
            damaged[run] = State(outcome.LOST, str(error))
    return result


def _asked(name: str, group: Mapping[Path, Submission]) -> dict[Path, State]:
    scheduler = schedulers.get(name)
    result = scheduler.states(group)
    if not scheduler.capabilities.starts_finalize:
        # For a last command that was not started yet, the file alone means cancelled.
        for run, state in result.items():
            waits = run.name == record.FINALIZE and state.name == outcome.WAITING
            if waits and outcome.is_cancelled(run):
                result[run] = outcome.recorded(run, group[run])
    return result


def one(run: Path) -> State:
    """Returns the state of a run or element.

    Raises:
      InputError, WorkFailed: as `query`.
    """
    return query([run])[run]


def counts(states: Iterable[State]) -> str:
    """Returns the number of jobs in each state, such as "3 done, 1 failed"."""
    numbers = Counter(state.name for state in states)
    return ", ".join(f"{numbers[s]} {s}" for s in outcome.STATES if numbers[s])


def blocked(states: Mapping[Path, State]) -> bool:
    """Returns whether everything active waits for failed work and therefore never starts.

    The last command of an array waits for its elements, which may be blocked themselves.
    """
    active = {run: state for run, state in states.items() if state.active}
    elements = {run: s for run, s in active.items() if run.name != record.FINALIZE} or active
    return bool(active) and all(state.blocked for state in elements.values())
