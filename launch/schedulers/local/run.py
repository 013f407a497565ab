"""Runs as processes of this machine, some runs at a time, each of one process or several."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from a2fjax import files, signals
from a2fjax.errors import EXIT_OK, EXIT_PREEMPTED, InputError
from launch.jobs import array_spec, progress, requeue
from launch.jobs import run_spec as spec
from launch.jobs.run_spec import RunSpec
from launch.schedulers.local import gpu_locks

PYTHON = sys.executable
FOLDER = ".local"
GRACE = 60.0
"""Seconds from SIGTERM to SIGKILL: a training saves its state meanwhile."""

PEERS_GRACE = 20.0
"""The same for processes whose peer has ended: they wait for each other, in vain."""


def execute(
    root: Path,
    runs: Sequence[tuple[Path, RunSpec]],
    submitted: Callable[[str], None],
    *,
    at_a_time: int,
    ready: Callable[[], bool],
) -> dict[Path, int]:
    """Runs all to their end; returns their exit codes. One that fails does not stop the others.

    Args:
      root: folder of all runs.
      runs: folders and what they are.
      submitted: called with this job's name before anything starts.
      at_a_time: how many.
      ready: whether what they wait for has ended; raises where it never will.

    Raises:
      Preempted: SIGTERM came; the processes were stopped, and saved what they had.
      KeyboardInterrupt: Ctrl-C came; the same.
    """
    import fcntl

    files.make_folder(root / FOLDER)
    name = f"{os.getpid()}-{secrets.token_hex(4)}"
    path = root / FOLDER / name
    # Held together with the processes that inherit it: as long as one lives, the run is at work.
    with path.open("a") as lock, signals.raise_on_signal():
        fcntl.flock(lock, fcntl.LOCK_EX)
        submitted(f"{socket.gethostname()}/{name}")
        desk = _Desk(root, lock)
        try:
            while not ready() and not all(_cancelled(run) for run, _ in runs):
                time.sleep(0.2)
            desk.all(list(runs), at_a_time)
        finally:
            desk.stop()
            if not any(process.poll() is None for process in desk.started):
                path.unlink(missing_ok=True)
    return desk.codes


def abandoned(name: str) -> bool:
    """Returns whether the process that submitted is gone, as far as this machine can tell."""
    host, _, rest = name.rpartition("/")
    try:
        os.kill(int(rest.partition("-")[0]), 0)
    except ProcessLookupError:
        return host == socket.gethostname()
    except (ValueError, PermissionError):
        pass
    return False


def running(root: Path, name: str) -> bool:
    """Returns whether something of a submission is still at work."""
    return files.is_locked(root / FOLDER / name.rpartition("/")[2])


def free_port() -> int:
    """Returns a port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _cancelled(run: Path) -> bool:
    return (spec.launch(run) / "cancelled").exists()


class _Desk:
    """Runs of one submission."""

    def __init__(self, root: Path, lock: IO[str]) -> None:
        self.root, self.lock = root, lock
        self.active: list[_Job] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.codes: dict[Path, int] = {}

    def all(self, waiting: list[tuple[Path, RunSpec]], at_a_time: int) -> None:
        """Runs them, as many at a time as may and as find GPUs."""
        while waiting or self.active:
            for entry in list(waiting):
                run, run_spec = entry
                if _cancelled(run):
                    waiting.remove(entry)
                    self._end(run, run_spec, requeue.Verdict(EXIT_PREEMPTED, False, "cancelled"))
                elif len(self.active) < at_a_time:
                    held = gpu_locks.take(self.root, run_spec.resources.gpus or 0)
                    if held is None:
                        break
                    waiting.remove(entry)
                    self._begin(run, run_spec, held)
            time.sleep(0.05)
            for one in list(self.active):
                if _cancelled(one.run):
                    one.ask()
                code = one.poll()
                if code is None:
                    continue
                self.active.remove(one)
                one.slots.free()
                found = requeue.decide(one.run, one.spec, code, ended=False, restarts=one.restarts)
                # Nobody tells a run here to stop but its owner, who wants it stopped.
                again = found.again and found.code not in array_spec.STOP_CODES
                found = requeue.Verdict(found.code, again, found.why)
                if again:
                    requeue.close(one.run, one.spec, found)
                    held = gpu_locks.take(self.root, one.spec.resources.gpus or 0)
                    if held is not None:
                        self._begin(one.run, one.spec, held, one.restarts + 1)
                        continue
                    waiting.insert(0, (one.run, one.spec))
                else:
                    self._end(one.run, one.spec, found)

    def _begin(
        self, run: Path, run_spec: RunSpec, held: gpu_locks.Slots, restarts: int = 0
    ) -> None:
        try:
            self.active.append(_Job(run, run_spec, held, self.lock, restarts))
        except OSError as error:
            raise InputError(
                f"{run_spec.id}: {error.filename or run_spec.python}: cannot be started "
                f"({error.strerror})"
            ) from None
        self.started += self.active[-1].processes

    def stop(self) -> None:
        """Stops what still runs: politely first, as a training saves its state then."""
        for one in self.active:
            one.ask()
        for one in self.active:
            end = time.monotonic() + GRACE
            while one.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            one.kill()
            ended = one.poll()
            code = EXIT_PREEMPTED if ended is None else ended
            code = requeue.first_code(one.run, code, one.spec.resources.hosts)
            code = EXIT_PREEMPTED if code > 128 else code
            self._end(one.run, one.spec, requeue.Verdict(code, False, "told to stop"))

    def _end(self, run: Path, run_spec: RunSpec, found: requeue.Verdict) -> None:
        requeue.close(run, run_spec, found)
        self.codes[run] = found.code
        said = progress.line(run, run_spec.steps)
        print(f"{run_spec.id}: {array_spec.state_of(found.code)}  {said}".rstrip(), flush=True)


class _Job:
    """The processes of one run."""

    def __init__(
        self, run: Path, run_spec: RunSpec, held: gpu_locks.Slots, lock: IO[str], restarts: int = 0
    ) -> None:
        self.run, self.spec, self.slots, self.restarts = run, run_spec, held, restarts
        self.asked: float | None = None
        self.grace = GRACE
        requeue.clear_ranks(run)
        # A process that is left of an earlier start is turned away.
        port, session = free_port(), secrets.token_hex(8)
        count = run_spec.resources.processes
        share = len(held.names) // count
        self.processes: list[subprocess.Popen[bytes]] = []
        for rank in range(count):
            environment = {**os.environ, **run_spec.environment}
            for name in ("A2F_COORDINATOR", "A2F_NUM_PROCESSES", "A2F_PROCESS_ID", "A2F_SESSION"):
                environment.pop(name, None)
            if count > 1:
                environment |= {
                    "A2F_COORDINATOR": f"localhost:{port}",
                    "A2F_SESSION": session,
                    "A2F_NUM_PROCESSES": str(count),
                    "A2F_PROCESS_ID": str(rank),
                }
            if held.names:
                mine = held.names[rank * share : (rank + 1) * share]
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
            with (spec.launch(run) / "job.log").open("ab") as log:
                self.processes.append(
                    subprocess.Popen(
                        [run_spec.python, "-m", "launch.jobs.worker", str(run)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=run_spec.directory,
                        env=environment,
                        # Ctrl-C reaches the desk only, which then stops all.
                        start_new_session=True,
                        pass_fds=(lock.fileno(), *held.handles()),
                    )
                )

    def ask(self, grace: float = GRACE) -> None:
        """Asks the processes to stop, once."""
        if self.asked is not None:
            return
        self.asked, self.grace = time.monotonic(), grace
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends what does not listen."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def poll(self) -> int | None:
        """Returns the first exit code other than 0, or 0, once all processes have ended."""
        codes = [process.poll() for process in self.processes]
        if any(codes) and None in codes:
            self.ask(PEERS_GRACE)
        if None in codes:
            if self.asked is not None and time.monotonic() > self.asked + self.grace:
                self.kill()
            return None
        bad = [code for code in codes if code]
        return (128 - bad[0] if bad[0] < 0 else bad[0]) if bad else EXIT_OK


def exit_code(codes: Sequence[int]) -> int:
    """Returns the exit code of several runs: that of the worst."""
    states = {array_spec.state_of(code) for code in codes}
    if array_spec.FAILED in states:
        return next(
            code for code in codes if array_spec.state_of(code) == array_spec.FAILED and code
        )
    order = (array_spec.BAD_INPUT, array_spec.STOPPED)
    for state in order:
        if state in states:
            return next(code for code in codes if array_spec.state_of(code) == state)
    return EXIT_OK
