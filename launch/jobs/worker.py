"""Runs one process of a run or array element: `python -m launch.jobs.worker FOLDER`.

Sets the environment from spec.json, starts the command, forwards signals to it, and writes log and
outcome to FOLDER/launch. Its exit code is that of the command. In a multi-process run, each process
has a worker, numbered by A2F_PROCESS_ID or Slurm's variables.
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

from a2fjax import budgets, errors, files, printing, signals
from a2fjax.errors import InputError
from launch.jobs import data_pins, outcome, processes, progress, record
from launch.jobs.formats import as_json, last_line
from launch.jobs.spec import JobSpec

_LIBC = ctypes.CDLL(None)
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@printing.safe_output()
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code of the run's command."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if len(words) != 1:
            raise errors.InputError("expected one argument, the folder of a run or element")
        run = Path(words[0])
        return work(run, record.read(run))
    except errors.InputError as error:
        return _fail(str(error), errors.EXIT_BAD_INPUT)
    except errors.WorkFailed as error:
        return _fail(str(error), errors.EXIT_FAILED)


def rank() -> int:
    """Returns the rank of this process within the run."""
    for name in ("A2F_PROCESS_ID", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def work(run: Path, spec: JobSpec) -> int:
    """Runs the command to its end; returns its exit code.

    Raises:
      InputError, WorkFailed: the folder cannot be written to.
    """
    folder, process_rank = record.launch(run), rank()
    submitted = record.submission(run)
    attempt = submitted.attempt if submitted else 1
    for name in ("logs", "ranks"):
        files.make_folder(folder / name)
    with files.open_private(folder / "logs" / f"rank-{process_rank}.log") as log:
        log.write(f"== {progress.now()} on {progress.host()}, attempt {attempt}\n".encode())
        log.flush()
        process = _Process(spec, log, data_pins.check(run, spec, first=process_rank == 0))
        progress.event(
            run,
            "started",
            unix=time.time(),
            host=progress.host(),
            rank=process_rank,
            pid=os.getpid(),
            start=processes.started(os.getpid()),
            attempt=attempt,
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            missing=[n for n in spec.passed if n not in os.environ],
        )
        code = process.wait()
        # Exit code 0 alone proves nothing: a command may end without having done its work.
        missing = outcome.missing_steps(run, spec.steps) if code == errors.EXIT_OK else ""
        if missing and process_rank == 0:
            code = errors.EXIT_FAILED
            log.write(f"{missing}\n".encode())
    ended = {"unix": time.time(), "host": progress.host(), "rank": process_rank, "exit_code": code}
    text = as_json({**ended, "attempt": attempt})
    files.write_text(folder / "ranks" / f"{process_rank}.json", text, mode=files.PRIVATE)
    progress.event(run, "ended", pid=os.getpid(), attempt=attempt, **ended)
    if process_rank == 0:
        write_result(run, spec, code, attempt)
    message = tail(run, process_rank)
    print(f"rank {process_rank} on {progress.host()}: exit code {code}: {message}", flush=True)
    return code


def write_result(run: Path, spec: JobSpec, code: int, attempt: int) -> None:
    """Writes result.json: exit code, state and last metrics."""
    step, values = progress.last(run)
    result = {
        "exit_code": code,
        "state": outcome.ended(run, code),
        "step": step,
        "steps": spec.steps,
        "metrics": progress.metrics(values),
        "attempt": attempt,
        "ended": progress.now(),
    }
    path = record.launch(run) / "result.json"
    files.write_text(path, as_json(result), mode=files.PRIVATE)


def tail(run: Path, rank: int = 0) -> str:
    """Returns the last line that a process printed."""
    with contextlib.suppress(InputError):
        lines = budgets.read_tail(log_path(run, rank), 8192).decode(errors="replace").splitlines()
        return last_line("\n".join(line for line in lines if not line.startswith("== ")))
    return "no message"


def log_path(run: Path, rank: int) -> Path:
    """Returns the log of a process."""
    return record.launch(run) / "logs" / f"rank-{rank}.log"


class _Process:
    """The command, with signals forwarded to it; if `error` is set it does not start."""

    def __init__(self, spec: JobSpec, log: Any, error: str) -> None:
        self._waiting: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._code: int | None = None
        for number in signals.STOP_SIGNALS:
            signal.signal(number, self._forward)
        if error:
            log.write(f"{error}\n".encode())
            self._code = errors.EXIT_BAD_INPUT
            return
        try:
            # Use a separate process group: signals to a shared group would reach the command
            # twice, and a second Ctrl-C has another meaning than the first.
            self._child = subprocess.Popen(
                list(spec.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=spec.directory,
                env={**os.environ, **spec.environment},
                process_group=0,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        except OSError as failure:
            name = failure.filename or spec.command[0]
            log.write(f"{name}: cannot be started ({failure.strerror})\n".encode())
            self._code = errors.EXIT_FAILED
        for early in self._waiting:
            self._forward(early, None)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        if self._child is None:
            self._waiting.append(number)
            return
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(number)

    def wait(self) -> int:
        """Returns the exit code; 128 + its number for a signal."""
        if self._child is None:
            return self._code or errors.EXIT_FAILED
        code = self._child.wait()
        return 128 - code if code < 0 else code


def _end_with_parent() -> None:
    # End the command if the worker is killed; otherwise it would keep writing files while the
    # scheduler restarts the run.
    _LIBC.prctl(_KILL_WITH_PARENT, signal.SIGKILL)


def _fail(message: str, code: int) -> int:
    print(f"launch.jobs.worker: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    _code = main()
    # The command has ended; only its exit code remains to be reported.
    signals.ignore(signals.STOP_SIGNALS)
    sys.exit(_code)
