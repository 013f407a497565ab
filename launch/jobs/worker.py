"""Runs one process of a run: `python -m launch.jobs.worker RUN`; the exit code is the command's.

Sets the environment that spec.json says, starts the command, hands signals on to it, and leaves
what became of it in RUN/launch. Where several processes make a run, each has a worker, and the
numbers of those are told by the environment: under srun Slurm's, else A2F_PROCESS_ID.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from a2fjax import errors, files, signals
from launch.jobs import array_spec, data_pins, progress
from launch.jobs import run_spec as spec
from launch.schedulers import last_line

_LIBC = ctypes.CDLL(None)
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code of the run's command."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if len(words) != 1:
            raise errors.InputError("expected one argument, the folder of a run")
        run = Path(words[0])
        return work(run, spec.read(run))
    except errors.InputError as error:
        return _fail(str(error), errors.EXIT_BAD_INPUT)
    except errors.WorkFailed as error:
        return _fail(str(error), errors.EXIT_FAILED)


def rank() -> int:
    """Returns which process of the run this is."""
    for name in ("A2F_PROCESS_ID", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def work(run: Path, run_spec: spec.RunSpec) -> int:
    """Runs the command of a run to its end; returns its exit code.

    Raises:
      InputError, WorkFailed: the folder cannot be written to.
    """
    place, which = spec.launch(run), rank()
    submitted = spec.submission(run)
    attempt = submitted.attempt if submitted else 1
    for name in ("logs", "ranks"):
        files.make_folder(place / name)
    with (place / "logs" / f"rank-{which}.log").open("ab") as log:
        log.write(f"== {progress.now()} on {progress.host()}, attempt {attempt}\n".encode())
        log.flush()
        process = _Process(run_spec, log, data_pins.check(run, run_spec, first=which == 0))
        progress.event(
            run,
            "started",
            unix=time.time(),
            host=progress.host(),
            rank=which,
            pid=os.getpid(),
            attempt=attempt,
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            missing=[n for n in run_spec.passed if n not in os.environ],
        )
        code = process.wait()
    ended = {"unix": time.time(), "host": progress.host(), "rank": which, "exit_code": code}
    files.write_text(
        place / "ranks" / f"{which}.json", array_spec.as_json({**ended, "attempt": attempt})
    )
    progress.event(run, "ended", pid=os.getpid(), attempt=attempt, **ended)
    if which == 0:
        write_result(run, run_spec, code, attempt)
    said = tail(run, which)
    print(f"rank {which} on {progress.host()}: exit code {code}: {said}", flush=True)
    return code


def write_result(run: Path, run_spec: spec.RunSpec, code: int, attempt: int) -> None:
    """Writes result.json: how the run ended and its last numbers."""
    step, values = progress.last(run)
    result = {
        "exit_code": code,
        "state": array_spec.state_of(code),
        "step": step,
        "steps": run_spec.steps,
        "metrics": progress.metrics(values),
        "attempt": attempt,
        "ended": progress.now(),
    }
    files.write_text(spec.launch(run) / "result.json", array_spec.as_json(result))


def tail(run: Path, which: int = 0) -> str:
    """Returns the last line that a process of a run printed."""
    with contextlib.suppress(OSError), (log_path(run, which)).open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 8192))
        lines = file.read().decode(errors="replace").splitlines()
        return last_line("\n".join(line for line in lines if not line.startswith("== ")))
    return "no message"


def log_path(run: Path, which: int) -> Path:
    """Returns the log of a process of a run."""
    return spec.launch(run) / "logs" / f"rank-{which}.log"


class _Process:
    """The command, and the signals on their way to it; it is not started where `wrong` says why."""

    def __init__(self, run_spec: spec.RunSpec, log: Any, wrong: str) -> None:
        self._waiting: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        for number in signals.STOP_SIGNALS:
            signal.signal(number, self._hand_on)
        if wrong:
            log.write(f"{wrong}\n".encode())
            self._code = errors.EXIT_BAD_INPUT
            return
        try:
            # A group of its own: signals to the group that it would share with this process would
            # reach it twice, and the second Ctrl-C means something else than the first.
            self._child = subprocess.Popen(
                list(run_spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=run_spec.directory,
                env={**os.environ, **run_spec.environment},
                process_group=0,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        except OSError as error:
            name = error.filename or run_spec.command[0]
            log.write(f"{name}: cannot be started ({error.strerror})\n".encode())
            self._code = errors.EXIT_FAILED
        for early in self._waiting:
            self._hand_on(early, None)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        if self._child is None:
            self._waiting.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(number)

    def wait(self) -> int:
        """Returns the exit code, 128 + its number for a signal."""
        if self._child is None:
            return self._code or errors.EXIT_FAILED
        code = self._child.wait()
        return 128 - code if code < 0 else code


def _end_with_parent() -> None:
    # A worker that is killed takes the command with it; else it would go on, and its files with it,
    # while the scheduler starts the run again.
    _LIBC.prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def _fail(message: str, code: int) -> int:
    print(f"launch.jobs.worker: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    _code = main()
    # There is nobody to hand signals on to, and how the command ended is this process's to tell.
    signals.ignore(signals.STOP_SIGNALS)
    sys.exit(_code)
