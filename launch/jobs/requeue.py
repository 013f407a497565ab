"""Decides whether a job is requeued: `python -m launch.jobs.requeue FOLDER CODE ...`.

Prints "again CODE" if the run or element returns to the queue; otherwise prints "end CODE" and
writes the final exit code to FOLDER/launch/exit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from a2fjax import budgets, errors, files, printing
from launch.jobs import data_pins, outcome, progress, record, worker
from launch.jobs.formats import as_json
from launch.jobs.spec import JobSpec


@dataclasses.dataclass(frozen=True)
class Decision:
    """The requeue decision for a run or element that ended.

    Attributes:
      code: exit code.
      again: whether it restarts.
      why: reason, as text.
    """

    code: int
    again: bool
    why: str


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 if a decision was made."""
    parser = errors.ArgumentParser(prog="launch.jobs.requeue", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("code", type=int, help="exit code of its processes")
    parser.add_argument("--ended", action="store_true", help="the whole job was asked to end")
    parser.add_argument("--restarts", type=int, default=0, help="how often it was requeued already")
    try:
        args = parser.parse_args(argv)
        spec = record.read(args.run)
        decision = decide(args.run, spec, args.code, ended=args.ended, restarts=args.restarts)
        close(args.run, spec, decision)
    except (errors.InputError, errors.WorkFailed, argparse.ArgumentError, OSError) as error:
        print(f"launch.jobs.requeue: error: {error}", file=sys.stderr)
        return errors.EXIT_FAILED
    print(f"{'again' if decision.again else 'end'} {decision.code}")
    return errors.EXIT_OK


def decide(run: Path, spec: JobSpec, code: int, *, ended: bool, restarts: int) -> Decision:
    """Decides whether a run or element that ended restarts.

    Args:
      run: folder of the run or element.
      spec: its specification.
      code: exit code of its processes.
      ended: whether the whole job was asked to end, by its owner or the time limit.
      restarts: number of earlier requeues.
    """
    code = first_code(run, code, spec.resources.hosts)
    if code == errors.EXIT_OK:
        return Decision(code, False, "done")
    cancelled = outcome.is_cancelled(run)
    if cancelled or ended:
        # A process that did not stop in time was killed, which is not a failure of the run.
        code = errors.EXIT_PREEMPTED if code > 128 else code
        return Decision(code, False, "cancelled" if cancelled else "the job was asked to end")
    stopped = code in outcome.STOP_CODES
    # Killed processes and lost peers are as often the machine's fault as the program's.
    failed = code == errors.EXIT_LOST or code > 128
    failed |= spec.retry_failures and outcome.state_of(code) == outcome.FAILED
    if not stopped and not failed:
        return Decision(code, False, outcome.state_of(code))
    if restarts >= spec.max_requeues:
        return Decision(code, False, f"requeued {restarts} times, which --max-requeues allows")
    if stopped:
        return Decision(code, True, "asked to stop")
    failures = _failures(run)
    if failures > spec.retries:
        return Decision(code, False, f"failed {failures} times without a new checkpoint")
    return Decision(code, True, f"failure {failures} of at most {spec.retries} retries")


def close(run: Path, spec: JobSpec, decision: Decision) -> None:
    """Records a decision."""
    submitted = record.submission(run)
    attempt = submitted.attempt if submitted else 1
    progress.event(
        run,
        "again" if decision.again else "end",
        exit_code=decision.code,
        why=decision.why,
        attempt=attempt,
    )
    if not decision.again:
        if progress.result(run).get("exit_code") != decision.code:
            worker.write_result(run, spec, decision.code, attempt)
        path = record.launch(run) / "exit"
        files.write_text(path, f"{decision.code}\n", mode=files.PRIVATE)


def first_code(run: Path, code: int, processes: int) -> int:
    """Returns the exit code of the process that was the first to end with a nonzero code.

    The others are then stopped and end with 75, which is not the cause.
    """
    ended: list[tuple[float, int]] = []
    for rank in range(processes):
        # Open files by name: a network disk may show a stale folder listing for a minute.
        path = record.launch(run) / "ranks" / f"{rank}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = budgets.load_json(path)
            if values["exit_code"]:
                ended.append((float(values["unix"]), int(values["exit_code"])))
    return min(ended)[1] if ended else code


def forget(run: Path) -> None:
    """Removes the outcome of the last attempt, before the next one."""
    for name in ("exit", "cancelled", "failures.json", data_pins.NAME):
        (record.launch(run) / name).unlink(missing_ok=True)
    clear_ranks(run)


def clear_ranks(run: Path) -> None:
    """Removes the exit codes of processes before they restart."""
    for path in (record.launch(run) / "ranks").glob("*.json"):
        path.unlink(missing_ok=True)


def _failures(run: Path) -> int:
    """Returns the number of failures since the last checkpoint, including this one."""
    path, step, count = record.launch(run) / "failures.json", progress.checkpoint(run), 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = budgets.load_json(path)
        count = int(before["count"]) if int(before["step"]) >= step else 0
    text = as_json({"step": step, "count": count + 1})
    files.write_text(path, text, mode=files.PRIVATE)
    return count + 1


if __name__ == "__main__":
    sys.exit(main())
