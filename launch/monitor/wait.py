"""Waits until jobs have ended; the command `wait`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from a2fjax import errors
from a2fjax.errors import WorkFailed
from launch.jobs import outcome, progress, record
from launch.jobs.outcome import State
from launch.monitor import causes, states

PATIENCE = 4
"""Queries after which a lost job, or a scheduler that does not answer, is believed."""


def wait(
    folder: Path,
    members: Sequence[Path],
    poll: float,
    *,
    finalize: Callable[[], None] = lambda: None,
) -> int:
    """Waits until runs or elements have ended; returns the exit code.

    Args:
      folder: folder of the run, sweep or array, for messages.
      members: runs or elements to wait for.
      poll: seconds between queries.
      finalize: called when all elements of an array have ended, to start the last command.

    Returns:
      The exit code of the last command of an array, else of the worst run.

    Raises:
      WorkFailed: the scheduler does not answer `PATIENCE` times in a row.
    """
    array = members[-1].name == record.FINALIZE
    name = record.read(folder).id if array else folder.name
    shown, silent, lost = "", 0, 0
    while True:
        try:
            current = states.query(members)
            if _awaits_finalize(members, current):
                finalize()
                current = states.query(members)
        except WorkFailed as error:
            # Schedulers restart and networks fail while jobs continue.
            silent += 1
            if silent == PATIENCE:
                raise
            print(f"{error}; asking again", flush=True)
            time.sleep(poll)
            continue
        silent = 0
        line = _line(members, current)
        if line != shown:
            print(f"{name}: {line}", flush=True)
            shown = line
        ended = not any(s.active for s in current.values()) or states.blocked(current)
        # On a network disk an exit code may appear seconds after its job has left the queue.
        decisive = members[-1:] if array else members
        lost = lost + 1 if any(current[m].name == outcome.LOST for m in decisive) else 0
        if ended and (lost == 0 or lost >= PATIENCE):
            break
        time.sleep(poll)
    return _report(members, current)


def _awaits_finalize(members: Sequence[Path], current: dict[Path, State]) -> bool:
    """Returns whether an array still waits only for its last command."""
    active = [m for m in members if current[m].active]
    return [m.name for m in active] == [record.FINALIZE]


def _line(members: Sequence[Path], current: dict[Path, State]) -> str:
    last = members[-1]
    if last.name == record.FINALIZE:
        elements = [current[m] for m in members[:-1]]
        return f"elements: {states.counts(elements)}; finalize: {current[last].name}"
    line = states.counts(current.values())
    if len(members) == 1:
        line = f"{line}  {progress.line(last, record.read(last).steps)}".rstrip()
    return line


def _report(members: Sequence[Path], current: dict[Path, State]) -> int:
    """Prints what failed; returns the exit code."""
    last = members[-1]
    array = last.name == record.FINALIZE
    if states.blocked(current):
        for run in [last] if array else [m for m in members if current[m].active]:
            print(
                f"{record.read(run).id}: waits for work that did not succeed, and never starts",
                file=sys.stderr,
            )
    for run in [last] if array else members:
        if current[run].name in outcome.WRONG:
            print(f"{record.read(run).id}: {causes.why(run)}", file=sys.stderr)
    codes = [_code(run, current[run]) for run in ([last] if array else members)]
    return outcome.worst(codes)


def _code(run: Path, state: State) -> int:
    code = outcome.last_code(run, record.submission(run))
    if code is not None:
        return code
    known = {
        outcome.DONE: errors.EXIT_OK,
        outcome.BAD_INPUT: errors.EXIT_BAD_INPUT,
        outcome.STOPPED: errors.EXIT_PREEMPTED,
    }
    return known.get(state.name, errors.EXIT_FAILED)
