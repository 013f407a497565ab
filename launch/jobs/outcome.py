"""States of runs and elements, as recorded in their files."""

from __future__ import annotations

import dataclasses
import signal
from collections.abc import Sequence
from pathlib import Path

from a2fjax import budgets
from a2fjax.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_PREEMPTED
from launch.jobs import progress
from launch.jobs.record import Submission, launch

WAITING, RUNNING, DONE = "waiting", "running", "done"
FAILED, BAD_INPUT, STOPPED, LOST = "failed", "bad input", "stopped", "lost"
CANCELLED = "cancelled"
ACTIVE = (WAITING, RUNNING)
WRONG = (FAILED, BAD_INPUT, STOPPED, CANCELLED, LOST)
STATES = (WAITING, RUNNING, DONE, STOPPED, CANCELLED, FAILED, BAD_INPUT, LOST)
"""States of a run or element. "stopped" and "cancelled" can be resumed; "cancelled" ended by
`submit.py cancel`, whatever its exit code; "lost" left no exit code."""

STOP_CODES = (EXIT_PREEMPTED, 128 + signal.SIGTERM)
"""Exit codes of a command that was asked to stop; the second is that of one without a handler."""


@dataclasses.dataclass(frozen=True)
class State:
    """State of a run or element.

    Attributes:
      name: one of `STATES`.
      reason: why it waits, as reported by the scheduler; "" otherwise.
      blocked: whether it waits for failed work and therefore never starts.
    """

    name: str
    reason: str = ""
    blocked: bool = False

    @property
    def active(self) -> bool:
        """True while it runs or waits."""
        return self.name in ACTIVE


def state_of(code: int) -> str:
    """Returns the state for an exit code."""
    known = {EXIT_OK: DONE, EXIT_BAD_INPUT: BAD_INPUT, **dict.fromkeys(STOP_CODES, STOPPED)}
    return known.get(code, FAILED)


def ended(run: Path, code: int) -> str:
    """Returns the state of a run or element that ended with an exit code."""
    return CANCELLED if code != EXIT_OK and is_cancelled(run) else state_of(code)


def is_cancelled(run: Path) -> bool:
    """Returns whether the last attempt was cancelled while it ran or waited."""
    return (launch(run) / "cancelled").exists()


def missing_steps(run: Path, steps: int | None) -> str:
    """Returns a message if the files of a run that ended do not show its last step, else "".

    Args:
      run: the run folder.
      steps: total number of updates; None for anything but a training.
    """
    if steps is None:
        return ""
    saved = progress.checkpoint(run)  # Training always saves its last step.
    if saved >= steps:
        return ""
    return (
        f"ended with exit code 0, but the last checkpoint is {saved}: expected {steps}, all steps"
    )


def exit_code(run: Path) -> int | None:
    """Returns the final exit code, or None if none was written yet."""
    try:
        return int(budgets.read_tail(launch(run) / "exit", 100))
    except (OSError, ValueError):
        return None


def last_code(run: Path, submission: Submission | None) -> int | None:
    """Returns the exit code, or that of the first process if its scheduler was killed."""
    code, result = exit_code(run), progress.result(run)
    if code is None and is_cancelled(run):
        return EXIT_PREEMPTED  # it never started
    if code is None and submission is not None and result.get("attempt") == submission.attempt:
        value = result.get("exit_code")
        return value if isinstance(value, int) else None
    return code


def recorded(run: Path, submission: Submission | None) -> State:
    """Returns the state according to the files, for work no longer known to its scheduler."""
    code = last_code(run, submission)
    return State(LOST if code is None else ended(run, code))


def started(run: Path, submission: Submission) -> bool:
    """Returns whether a process of the last submission has started."""
    return any(
        e["event"] == "started" and e.get("attempt") == submission.attempt
        for e in progress.events(run)
    )


def worst(codes: Sequence[int]) -> int:
    """Returns the combined exit code of several runs: a failure outranks bad input, then a stop."""
    for state in (FAILED, BAD_INPUT, STOPPED):
        for code in codes:
            if state_of(code) == state and code:
                return code
    return EXIT_OK
