"""What has become of runs and sweeps: from their files, and the queue where there is one."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from a2fjax import config as config_lib
from a2fjax import errors, files
from a2fjax.errors import InputError, WorkFailed, nearest
from launch.jobs import array_spec, data_pins, progress, worker
from launch.jobs import run_spec as spec
from launch.jobs.run_spec import Submission
from launch.monitor import table
from launch.schedulers import Id, NotInstalled, read_log
from launch.schedulers.kubernetes import run as runs_kubernetes
from launch.schedulers.local import run as runs_local
from launch.schedulers.slurm import run as runs_slurm

WRONG = (array_spec.FAILED, array_spec.BAD_INPUT, array_spec.STOPPED, array_spec.LOST)
PATIENCE = 4
"""Looks at what is lost, or at a scheduler that does not answer, before that is believed."""

_NEVER = "DependencyNeverSatisfied"


@dataclasses.dataclass(frozen=True)
class State:
    """Of a run.

    Attributes:
      name: of `job.STATES`.
      reason: the queue's, why it waits; "" otherwise.
    """

    name: str
    reason: str = ""

    @property
    def active(self) -> bool:
        """Whether it is at work or waits to be."""
        return self.name in array_spec.ACTIVE


def states(runs: Sequence[Path]) -> dict[Path, State]:
    """Returns the states of runs; a scheduler is asked once, and only for those that it has.

    Raises:
      InputError: a file is damaged, or the scheduler's programs are not on this machine.
      WorkFailed: the scheduler does not answer.
    """
    known = {run: spec.submission(run) for run in runs}
    jobs = [s.job for s in known.values() if s is not None and s.backend == "slurm"]
    queued = runs_slurm.queue(jobs)
    return {run: _state(run, found, queued) for run, found in known.items()}


def _state(run: Path, found: Submission | None, queued: dict[Id, tuple[str, str]]) -> State:
    code = _exit_code(run)
    last = _last_code(run, found)
    ended = State(array_spec.LOST if last is None else array_spec.state_of(last))
    if found is None or not found.job:
        return ended
    if found.backend == "slurm":
        here = queued.get((found.job, found.index))
        return State(*here) if here else ended
    if code is not None:
        return ended
    begun = [e for e in progress.events(run) if e.get("attempt") == found.attempt]
    at_work = any(e["event"] == "started" for e in begun)
    if found.backend == "local":
        if not runs_local.running(root(run), found.job):
            return ended
        return State(array_spec.RUNNING if at_work else array_spec.WAITING)
    if last is not None:
        return ended
    with contextlib.suppress(NotInstalled, WorkFailed):
        said = runs_kubernetes.state(spec.read(run), found.job)
        if said is not None:
            return State(said)
    return State(array_spec.RUNNING if at_work else array_spec.WAITING)


def root(run: Path) -> Path:
    """Returns the folder of all runs that a run is in."""
    return run.parent.parent if spec.is_sweep(run.parent) else run.parent


def collect(sweep: Path) -> list[dict[str, Any]]:
    """Returns a row for each trial of a sweep, or of a run alone, for tables.

    Keys: run, state, step, steps, seconds, overrides (of the sweep), metrics (the last value of
    each of eval/* and train/loss).
    """
    runs = spec.runs(sweep)
    found, rows = states(runs), []
    for run in runs:
        run_spec = spec.read(run)
        step, values = progress.last(run)
        rows.append(
            {
                "run": run.name,
                "state": found[run].name,
                "step": step,
                "steps": run_spec.steps,
                "seconds": progress.seconds(run),
                "overrides": dict(run_spec.trial or {}),
                "metrics": progress.metrics(values),
            }
        )
    return rows


def command(args: argparse.Namespace, place: Path) -> int:
    """Runs `status`, `logs` or `cancel` on a run or sweep; returns the exit code."""
    if getattr(args, "record", None):
        raise InputError("--record: is for builds and caches")
    if args.command == "status":
        if args.sort or args.csv or args.html:
            return _table(place, args)
        return _status(place)
    if args.command == "logs":
        return _logs(place, args)
    return cancel(place)


def _status(place: Path) -> int:
    runs = spec.runs(place)
    found = states(runs)
    if spec.is_sweep(place):
        counts = Counter(s.name for s in found.values())
        line = ", ".join(f"{counts[s]} {s}" for s in array_spec.STATES if counts[s])
        print(f"{place.name}: {len(runs)} runs: {line}")
    for run in runs:
        _say(run, found[run], "  " if spec.is_sweep(place) else "")
    return errors.EXIT_OK


def _table(place: Path, args: argparse.Namespace) -> int:
    """Prints or writes the runs of a sweep, the best first."""
    metric = args.sort or table.METRIC
    rows = collect(place)
    print(table.text(rows, metric))
    for path in filter(None, (args.csv, args.html)):
        table.write(path, rows, metric, place.name)
        print(f"{path}: {len(rows)} runs")
    return errors.EXIT_OK


def _say(run: Path, state: State, indent: str) -> None:
    run_spec, submitted = spec.read(run), spec.submission(run)
    said = progress.line(run, run_spec.steps)
    print(f"{indent}{run.name if indent else run_spec.id}: {state.name}  {said}".rstrip())
    if submitted is not None and not indent:
        where = f"{submitted.backend} {_job_name(submitted)}".rstrip()
        code = run_spec.snapshot or "as installed"
        print(f"  {where}, attempt {submitted.attempt}, submitted {submitted.time}, code {code}")
    if state.reason == _NEVER:
        print(
            f"{indent}  waits for a run that did not end well, and will for ever: `submit.py "
            f"cancel {run_spec.id}`, then `submit.py resume {run_spec.id}` once that run is done"
        )
    elif state.name == array_spec.WAITING and state.reason not in ("", "None"):
        after = f" (after {', '.join(run_spec.after)})" if run_spec.after else ""
        print(f"{indent}  waits: {state.reason}{after}")
    if state.name in WRONG:
        print(f"{indent}  {why(run)}")


def _job_name(found: Submission) -> str:
    return found.job + ("" if found.index is None else f"_{found.index}")


def why(run: Path) -> str:
    """Returns what a run that ended badly said last, and why it is not started again."""
    if (spec.launch(run) / "cancelled").exists():
        return f"cancelled: {worker.tail(run)}"
    ends = [e for e in progress.events(run) if e.get("event") == "end"]
    why = f"{ends[-1].get('why')}: " if ends else ""
    return why + worker.tail(run, _first_bad(run))


def _first_bad(run: Path) -> int:
    """Returns the process that ended first with another exit code than 0, or 0."""
    found = []
    for path in (spec.launch(run) / "ranks").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            values = json.loads(path.read_text())
            if values["exit_code"]:
                found.append((float(values["unix"]), int(values["rank"])))
    return min(found)[1] if found else 0


def _logs(place: Path, args: argparse.Namespace) -> int:
    if args.part is not None:
        raise InputError("--part: is of builds and caches; a run has --rank, a sweep SWEEP/TRIAL")
    runs = spec.runs(place)
    run = runs[0]
    if spec.is_sweep(place):
        found = states(runs)
        run = next((r for r in runs if found[r].name in WRONG), run)
    rank = _first_bad(run) if args.rank is None else args.rank
    path = worker.log_path(run, rank)
    if args.follow:
        _follow(run, path)
        if path.exists():
            return errors.EXIT_OK
    if not path.exists():
        have = sorted(p.stem.removeprefix("rank-") for p in path.parent.glob("rank-*.log"))
        if args.rank is not None and have:
            raise InputError(f"--rank {args.rank}: {run.name} has {', '.join(have)}")
        submitted = spec.submission(run)
        index = submitted.index if submitted else None
        path = runs_slurm.log_path(run if index is None else run.parent, index)
    print(f"== {spec.read(run).id}: {path.name}", flush=True)
    sys.stdout.write(read_log(path))
    return errors.EXIT_OK


def _follow(run: Path, path: Path) -> None:
    """Prints a log as it grows, until the run has ended."""
    at, looked, active = 0, 0.0, True
    while True:
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            file.seek(at)
            text = file.read()
            at += len(text)
            sys.stdout.write(text.decode(errors="replace"))
            sys.stdout.flush()
        if not active:
            return
        if time.monotonic() > looked + 2:
            with contextlib.suppress(WorkFailed):
                active = states([run])[run].active
            looked = time.monotonic()
        time.sleep(0.2 if active else 0)


def cancel(place: Path) -> int:
    """Stops what runs or waits of a run or sweep."""
    runs = spec.runs(place)
    found = states(runs)
    active = [run for run in runs if found[run].active]
    if not active:
        print("nothing runs")
        return errors.EXIT_OK
    jobs: list[Id] = []
    for run in active:
        # First, so that nothing that is stopped now goes back into the queue.
        files.write_text(spec.launch(run) / "cancelled", "")
        submitted = spec.submission(run)
        assert submitted is not None
        if submitted.backend == "slurm":
            jobs.append((submitted.job, submitted.index))
        elif submitted.backend == "kubernetes":
            runs_kubernetes.cancel(spec.read(run), submitted.job)
        elif runs_local.abandoned(submitted.job):
            _stop_workers(run, submitted.attempt)
    if jobs:
        print(runs_slurm.cancel(jobs))
    else:
        print(f"{len(active)} of {len(runs)} are asked to stop")
    return errors.EXIT_OK


def _stop_workers(run: Path, attempt: int) -> None:
    """Asks processes to stop whose desk was killed and will not."""
    events = [e for e in progress.events(run) if e.get("attempt") == attempt]
    ended = {e.get("pid") for e in events if e["event"] == "ended"}
    for pid in {e.get("pid") for e in events if e["event"] == "started"} - ended:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if isinstance(pid, int):
                os.kill(pid, signal.SIGTERM)


def wait(place: Path, runs: Sequence[Path], poll: float) -> int:
    """Waits until runs have ended; returns the exit code of the worst."""
    said, unsure = "", 0
    while True:
        try:
            found = states(runs)
        except WorkFailed as error:
            # Schedulers are restarted, and networks fail, while work goes on.
            unsure += 1
            if unsure == PATIENCE:
                raise
            print(f"{error}; looking again", flush=True)
            time.sleep(poll)
            continue
        counts = Counter(s.name for s in found.values())
        line = ", ".join(f"{counts[s]} {s}" for s in array_spec.STATES if counts[s])
        if len(runs) == 1:
            line = f"{line}  {progress.line(runs[0], spec.read(runs[0]).steps)}".rstrip()
        if line != said:
            print(f"{place.name}: {line}", flush=True)
            said = line
        stuck = all(s.reason == _NEVER for s in found.values() if s.active)
        # On a network disk an exit code may show some seconds after its job has left the queue.
        unsure = unsure + 1 if counts[array_spec.LOST] else 0
        if stuck and unsure in (0, PATIENCE):
            break
        time.sleep(poll)
    for run in runs:
        if found[run].name in WRONG:
            print(f"{spec.read(run).id}: {why(run)}", file=sys.stderr)
        elif found[run].active:
            print(f"{spec.read(run).id}: waits for a run that did not end well", file=sys.stderr)
    codes = [_last_code(run, spec.submission(run)) for run in runs]
    return runs_local.exit_code([errors.EXIT_FAILED if c is None else c for c in codes])


def _exit_code(run: Path) -> int | None:
    try:
        return int((spec.launch(run) / "exit").read_text())
    except (OSError, ValueError):
        return None


def _last_code(run: Path, found: Submission | None) -> int | None:
    """Returns the exit code, or that of the first process where whoever writes it was killed."""
    code, result = _exit_code(run), progress.result(run)
    if code is None and (spec.launch(run) / "cancelled").exists():
        return errors.EXIT_PREEMPTED  # it never started
    if code is None and found is not None and result.get("attempt") == found.attempt:
        value = result.get("exit_code")
        return value if isinstance(value, int) else None
    return code


def listing(folder: Path, state: str | None) -> int:
    """Prints all runs and sweeps below ROOT."""
    if state is not None and state not in array_spec.STATES:
        raise InputError(f"--state {state}{nearest(state, array_spec.STATES)}")
    places = spec.everything(folder.absolute())
    every = [run for place in places for run in spec.runs(place)]
    try:
        found = states(every)
    except (InputError, WorkFailed) as error:
        # Not on a login node: what the files say is better than nothing.
        print(f"the queue is not known here: {error}", file=sys.stderr)
        found = {run: _state(run, spec.submission(run), {}) for run in every}
    if not any(state in (None, one.name) for one in found.values()):
        print(f"{folder}: no runs{f' are {state}' if state and every else ''}")
    for place in places:
        runs = [r for r in spec.runs(place) if state in (None, found[r].name)]
        if not runs:
            continue
        if spec.is_sweep(place):
            counts = Counter(found[r].name for r in runs)
            line = ", ".join(f"{counts[s]} {s}" for s in array_spec.STATES if counts[s])
            print(f"{place.name}: {len(runs)} runs: {line}")
        else:
            said = progress.line(place, spec.read(place).steps)
            print(f"{place.name}: {found[place].name}  {said}".rstrip())
    return errors.EXIT_OK


def diff(first: Path, second: Path) -> int:
    """Prints what differs between two runs: configuration, data, code, packages, machines."""
    for place in (first, second):
        if spec.is_sweep(place):
            raise InputError(f"{place.name}: is a sweep; say {place.name}/TRIAL")
    a, b = _described(first), _described(second)
    same = True
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            print(f"{key}: {_shown(a.get(key))} -> {_shown(b.get(key))}")
            same = False
    if same:
        print("nothing that a run is made of differs")
    return errors.EXIT_OK


def _described(run: Path) -> dict[str, Any]:
    found = spec.read(run)
    git = found.git or {}
    own: dict[str, Any] = {
        "code": found.snapshot,
        "git.commit": git.get("commit"),
        "git.dirty": git.get("dirty"),
        "experiment": found.experiment,
        "experiment text": found.experiment_sha256,
        "backend": found.backend,
    }
    if found.config is None:
        own["command"] = list(found.command)
    groups: dict[str, Any] = {
        "config": found.config["config"] if found.config else {},
        "data": data_pins.of(run, found),
        "package": dict(found.packages),
        "machines": dataclasses.asdict(found.resources),
        "environment": {k: v for k, v in found.environment.items() if k != "PYTHONPATH"},
    }
    for name, values in groups.items():
        flat = values if name in ("data", "package") else config_lib.flatten(values)
        own |= {f"{name}.{key}": value for key, value in flat.items()}
    return own


def _shown(value: Any) -> str:
    return "(none)" if value is None else repr(value)
