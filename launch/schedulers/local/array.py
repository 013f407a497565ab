"""Parts as processes of this machine, some at a time: to try a job out before it goes elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from a2fjax import files, signals
from a2fjax.errors import EXIT_OK, EXIT_PREEMPTED, InputError
from launch.jobs import array_spec
from launch.jobs.array_spec import Record, Spec
from launch.schedulers import After, read_log

OPTIONS = frozenset({"max_parallel"})
PYTHON = sys.executable
GRACE = 15.0
"""Seconds from SIGTERM to SIGKILL for processes that are to stop."""


def options(given: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """See `Backend.options`."""
    return {"max_parallel": given.get("max_parallel") or 1}


def render(record: Record, base: Path) -> str:
    """Returns the commands, one a line, as a shell would take them."""
    commands = [record.spec.part(i) for i in record.parts] + [list(record.spec.finish)]
    at_a_time = record.options["max_parallel"]
    return "\n".join([f"# {at_a_time} at a time, then the last", *map(shlex.join, commands)])


def submit(record: Record, base: Path, after: After) -> Record:
    """Runs all parts and the last command before it returns.

    Raises:
      InputError: processes of an earlier run are still at work.
      Preempted: SIGTERM came; the processes were stopped.
      KeyboardInterrupt: Ctrl-C came; the processes were stopped.
    """
    with _alone(base) as lock, signals.raise_on_signal():
        record = dataclasses.replace(record, jobs={"process": str(os.getpid())})
        array_spec.clear(base, record.parts)
        array_spec.write(base, record)
        _Run(record, base, lock).all()
    return record


def states(record: Record, base: Path) -> dict[int | str, str]:
    """See `Backend.states`."""
    active = _running(base)
    found: dict[int | str, str] = {}
    for which in (*range(1, record.spec.parts + 1), array_spec.FINISH):
        known = array_spec.exit_state(base, which)
        found[which] = known or (array_spec.WAITING if active else array_spec.LOST)
        if active and not known and _started(base, which):
            found[which] = array_spec.RUNNING
    return found


def finish(record: Record, base: Path) -> Record:
    """The last command runs with the parts: there is nothing to start."""
    return record


def cancel(record: Record, base: Path) -> str:
    """Asks the process that runs the parts to stop them."""
    if not _running(base):
        return "nothing runs"
    pid = int(record.jobs["process"])
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        raise InputError(
            f"process {pid} is gone but parts it started are still at work; they end by themselves"
        ) from None
    return f"asked process {pid} to stop"


def log(record: Record, base: Path, which: int | str) -> str:
    """See `Backend.log`."""
    return read_log(array_spec.log_path(base, which))


class _Run:
    """Processes of one submission."""

    def __init__(self, record: Record, base: Path, lock: IO[str]) -> None:
        self.record, self.base, self.lock = record, base, lock
        self.processes: dict[int | str, subprocess.Popen[bytes]] = {}
        self.failures: dict[int | str, int] = {}

    def all(self) -> None:
        """Runs the parts, then the last command."""
        waiting: list[int | str] = list(self.record.parts)
        try:
            self._drain(waiting)
            self._drain([array_spec.FINISH])
        finally:
            self._stop()

    def _drain(self, waiting: list[int | str]) -> None:
        while waiting or self.processes:
            while waiting and len(self.processes) < self.record.options["max_parallel"]:
                which = waiting.pop(0)
                self.processes[which] = self._start(which)
            time.sleep(0.02)
            for which, process in list(self.processes.items()):
                code = process.poll()
                if code is None:
                    continue
                del self.processes[which]
                if self._again(which, code):
                    waiting.append(which)
                else:
                    self._ended(which, code)

    def _start(self, which: int | str) -> subprocess.Popen[bytes]:
        spec = self.record.spec
        command = spec.part(which) if isinstance(which, int) else list(spec.finish)
        _mark(self.base, which).touch()
        with array_spec.log_path(self.base, which).open("ab") as log:
            # A session of its own: Ctrl-C reaches this process only, which then stops all. The
            # lock is inherited, so that parts that outlive this process are not run twice.
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=spec.directory,
                env={**os.environ, **spec.environment},
                start_new_session=True,
                pass_fds=(self.lock.fileno(),),
            )

    def _again(self, which: int | str, code: int) -> bool:
        # Nobody tells a part here to stop but us, or someone by hand.
        if array_spec.state_of(_exit_code(code)) != array_spec.FAILED:
            return False
        self.failures[which] = self.failures.get(which, 0) + 1
        return self.failures[which] <= self.record.spec.retries and which != array_spec.FINISH

    def _ended(self, which: int | str, code: int) -> None:
        code = _exit_code(code)
        files.write_text(array_spec.exit_path(self.base, which), f"{code}\n")
        _mark(self.base, which).unlink(missing_ok=True)
        name = (
            f"part {which}/{self.record.spec.parts}"
            if which != array_spec.FINISH
            else array_spec.FINISH
        )
        print(f"{name}: {array_spec.state_of(code)}", flush=True)

    def _stop(self) -> None:
        """Stops what still runs, with all it started: politely first."""
        for sign, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 5.0)):
            for process in self.processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            end = time.monotonic() + seconds
            while time.monotonic() < end and any(p.poll() is None for p in self.processes.values()):
                time.sleep(0.02)
        for which, process in self.processes.items():
            self._ended(which, EXIT_PREEMPTED if process.returncode else EXIT_OK)


def _exit_code(code: int) -> int:
    """Returns what a shell would say: 128 + its number for a signal."""
    return 128 - code if code < 0 else code


def _mark(base: Path, which: int | str) -> Path:
    return array_spec.exit_path(base, which).with_suffix(".running")


def _started(base: Path, which: int | str) -> bool:
    return _mark(base, which).exists()


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[IO[str]]:
    """Holds the lock of the job's folder, together with the processes that inherit it."""
    import fcntl

    with (array_spec.folder(base) / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{base}: parts of an earlier run are still at work") from None
        for mark in array_spec.folder(base).glob("*.running"):
            mark.unlink(missing_ok=True)
        yield file


def _running(base: Path) -> bool:
    return files.is_locked(array_spec.folder(base) / "lock")
