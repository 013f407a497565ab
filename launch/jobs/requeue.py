"""Decides whether a run that ended is requeued: `python -m launch.jobs.requeue RUN CODE ...`.

Prints "again CODE" when the run is to go back into the queue, "end CODE" when not, and keeps the
final exit code in RUN/launch/exit.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from a2fjax import errors, files
from launch.jobs import array_spec, data_pins, progress, worker
from launch.jobs import run_spec as spec


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What becomes of a run.

    Attributes:
      code: the run's exit code.
      again: whether it is to be started again.
      why: in words.
    """

    code: int
    again: bool
    why: str


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns 0 where a verdict was found."""
    parser = errors.ArgumentParser(prog="launch.jobs.requeue", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("code", type=int, help="exit code of srun")
    parser.add_argument("--ended", action="store_true", help="the whole job was told to end")
    parser.add_argument("--restarts", type=int, default=0, help="how often it came back already")
    try:
        args = parser.parse_args(argv)
        run_spec = spec.read(args.run)
        verdict = decide(args.run, run_spec, args.code, ended=args.ended, restarts=args.restarts)
        close(args.run, run_spec, verdict)
    except (errors.InputError, errors.WorkFailed, argparse.ArgumentError, OSError) as error:
        print(f"launch.jobs.requeue: error: {error}", file=sys.stderr)
        return errors.EXIT_FAILED
    print(f"{'again' if verdict.again else 'end'} {verdict.code}")
    return errors.EXIT_OK


def decide(run: Path, run_spec: spec.RunSpec, code: int, *, ended: bool, restarts: int) -> Verdict:
    """Returns whether a run that ended is to be started again.

    Args:
      run: its folder.
      run_spec: what it is.
      code: exit code of what started its processes.
      ended: whether the whole job was told to end, by its owner or the time limit.
      restarts: how often it came back already.
    """
    code = first_code(run, code, run_spec.resources.hosts)
    if code == errors.EXIT_OK:
        return Verdict(code, False, "done")
    if (spec.launch(run) / "cancelled").exists():
        return Verdict(code, False, "cancelled")
    if ended:
        return Verdict(code, False, "the job was told to end")
    stopped = code in array_spec.STOP_CODES
    # Killed processes and lost peers are the machine's doing as often as the program's.
    lost = code == errors.EXIT_LOST or code > 128
    if not stopped and not lost:
        return Verdict(code, False, array_spec.state_of(code))
    if restarts >= run_spec.max_requeues:
        return Verdict(code, False, f"came back {restarts} times, which --max-requeues allows")
    if stopped:
        return Verdict(code, True, "told to stop")
    failures = _failures(run)
    if failures > run_spec.retries:
        return Verdict(code, False, f"failed {failures} times without a new checkpoint")
    return Verdict(code, True, f"failure {failures} of at most {run_spec.retries} retries")


def close(run: Path, run_spec: spec.RunSpec, verdict: Verdict) -> None:
    """Writes what was decided."""
    place = spec.launch(run)
    submitted = spec.submission(run)
    attempt = submitted.attempt if submitted else 1
    progress.event(
        run,
        "again" if verdict.again else "end",
        exit_code=verdict.code,
        why=verdict.why,
        attempt=attempt,
    )
    if not verdict.again:
        if progress.result(run).get("exit_code") != verdict.code:
            worker.write_result(run, run_spec, verdict.code, attempt)
        files.write_text(place / "exit", f"{verdict.code}\n")


def first_code(run: Path, code: int, processes: int) -> int:
    """Returns the exit code of the process that ended first with another than 0.

    The others are stopped then, and end with 75 although there was nothing to stop for.
    """
    found: list[tuple[float, int]] = []
    for rank in range(processes):
        # By name: a network disk may show an old list of a folder for a minute.
        path = spec.launch(run) / "ranks" / f"{rank}.json"
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_text())
            if values["exit_code"]:
                found.append((float(values["unix"]), int(values["exit_code"])))
    return min(found)[1] if found else code


def forget(run: Path) -> None:
    """Removes what the last attempt left, before the next one."""
    place = spec.launch(run)
    for name in ("exit", "cancelled", "failures.json", data_pins.NAME):
        (place / name).unlink(missing_ok=True)
    clear_ranks(run)


def clear_ranks(run: Path) -> None:
    """Removes the exit codes of processes, before they start again."""
    for path in (spec.launch(run) / "ranks").glob("*.json"):
        path.unlink(missing_ok=True)


def _failures(run: Path) -> int:
    """Returns how often the run has failed since its last checkpoint, this time included."""
    path, step, count = spec.launch(run) / "failures.json", progress.checkpoint(run), 0
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        before = json.loads(path.read_text())
        count = int(before["count"]) if int(before["step"]) >= step else 0
    files.write_text(path, array_spec.as_json({"step": step, "count": count + 1}))
    return count + 1


if __name__ == "__main__":
    sys.exit(main())
