"""Runs the elements of a job as processes on this machine, a few at a time.

An element consists of one or more processes. The submitting process holds the lock
ROOT/.local/NAME, and all processes that it starts inherit it: the job counts as running while any
of them lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from a2fjax import files, signals
from a2fjax.errors import EXIT_OK, EXIT_PREEMPTED, InputError
from launch.jobs import outcome, processes, progress, requeue
from launch.jobs.record import interpreter, launch
from launch.schedulers.base import Element, Job, Submitted
from launch.schedulers.local import gpu_locks

FOLDER = ".local"
GRACE_SECONDS = 60.0
"""From SIGTERM to SIGKILL: a training saves its state meanwhile."""

PEER_GRACE_SECONDS = 20.0
"""The same for processes whose peer has ended, which wait for each other in vain."""

_RENDEZVOUS = tuple(
    f"A2F_{name}"
    for name in "COORDINATOR NUM_PROCESSES PROCESS_ID SESSION SECRET SECRET_FILE BIND".split()
)


def execute(job: Job, submitted: Submitted, *, ready: Callable[[], bool]) -> dict[Path, int]:
    """Runs all chosen elements to their end, then the last command; returns their exit codes.

    An element that fails does not stop the others.

    Args:
      job: job to run.
      submitted: called with this job's name before anything starts.
      ready: returns whether the dependencies have ended; raises if one failed.

    Raises:
      Preempted: on SIGTERM; the processes were stopped and saved their state.
      KeyboardInterrupt: on Ctrl-C; the same.
    """
    files.make_folder(job.root / FOLDER)
    name = f"{os.getpid()}-{processes.started(os.getpid())}-{secrets.token_hex(4)}"
    path = job.root / FOLDER / name
    last = [job.finalize] if job.finalize else []
    with files.open_append(path) as lock, signals.raise_on_signal():
        fcntl.flock(lock, fcntl.LOCK_EX)
        submitted(f"{socket.gethostname()}/{name}", [*job.chosen, *last])
        executor = _Executor(job.root, lock)
        try:
            elements = [*job.chosen, *last]
            while not ready() and not all(outcome.is_cancelled(e.folder) for e in elements):
                time.sleep(0.2)
            executor.run(list(job.chosen), job.spec.options.get("max_parallel") or 1)
            executor.run(last, 1)
        finally:
            executor.stop()
            if not any(process.poll() is None for process in executor.started):
                path.unlink(missing_ok=True)
    return executor.codes


def abandoned(name: str) -> bool:
    """Returns whether the submitting process is known to be gone, judged on this machine."""
    host, _, rest = name.rpartition("/")
    pid, _, rest = rest.partition("-")
    if host != socket.gethostname() or not pid.isdecimal():
        return False
    return not processes.is_alive(int(pid), rest.partition("-")[0])


def running(root: Path, name: str) -> bool:
    """Returns whether a process of a submission still runs."""
    return files.is_locked(root / FOLDER / name.rpartition("/")[2])


def _free_port() -> int:
    """Returns a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Executor:
    """Elements of one submission."""

    def __init__(self, root: Path, lock: IO[bytes]) -> None:
        self.root, self.lock = root, lock
        self.active: list[_Running] = []
        self.started: list[subprocess.Popen[bytes]] = []
        self.codes: dict[Path, int] = {}

    def run(self, waiting: list[Element], max_parallel: int) -> None:
        """Runs elements, at most `max_parallel` at a time and as free GPUs allow."""
        while waiting or self.active:
            for element in list(waiting):
                if outcome.is_cancelled(element.folder):
                    waiting.remove(element)
                    self._end(element, requeue.Decision(EXIT_PREEMPTED, False, "cancelled"))
                elif len(self.active) < max_parallel:
                    gpus = gpu_locks.acquire(self.root, element.spec.resources.gpus or 0)
                    if gpus is None:
                        break
                    waiting.remove(element)
                    self._begin(element, gpus)
            time.sleep(0.05)
            for one in list(self.active):
                if outcome.is_cancelled(one.element.folder):
                    one.ask()
                code = one.poll()
                if code is None:
                    continue
                self.active.remove(one)
                one.gpus.free()
                if not self._restart(one, code):
                    waiting.insert(0, one.element)

    def _restart(self, one: _Running, code: int) -> bool:
        """Ends or restarts an element; returns False if it waits for GPUs."""
        element = one.element
        decision = requeue.decide(
            element.folder, element.spec, code, ended=False, restarts=one.restarts
        )
        # On this machine only the user asks an element to stop, so it is not restarted.
        if not decision.again or decision.code in outcome.STOP_CODES:
            self._end(element, requeue.Decision(decision.code, False, decision.why))
            return True
        requeue.close(element.folder, element.spec, decision)
        gpus = gpu_locks.acquire(self.root, element.spec.resources.gpus or 0)
        if gpus is None:
            return False
        self._begin(element, gpus, one.restarts + 1)
        return True

    def _begin(self, element: Element, gpus: gpu_locks.Gpus, restarts: int = 0) -> None:
        try:
            self.active.append(_Running(element, gpus, self.lock, restarts))
        except OSError as error:
            raise InputError(
                f"{element.spec.id}: {error.filename or element.spec.python}: cannot be started "
                f"({error.strerror})"
            ) from None
        self.started += self.active[-1].processes

    def stop(self) -> None:
        """Stops all running elements, with SIGTERM first so that training saves its state."""
        for one in self.active:
            one.ask()
        for one in self.active:
            end = time.monotonic() + GRACE_SECONDS
            while one.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            one.kill()
            ended = one.poll()
            code = EXIT_PREEMPTED if ended is None else ended
            code = requeue.first_code(one.element.folder, code, one.element.spec.resources.hosts)
            code = EXIT_PREEMPTED if code > 128 else code
            self._end(one.element, requeue.Decision(code, False, "asked to stop"))

    def _end(self, element: Element, decision: requeue.Decision) -> None:
        files.make_folder(launch(element.folder))
        requeue.close(element.folder, element.spec, decision)
        self.codes[element.folder] = decision.code
        text = progress.line(element.folder, element.spec.steps)
        state = outcome.ended(element.folder, decision.code)
        print(f"{element.spec.id}: {state}  {text}".rstrip(), flush=True)


class _Running:
    """The processes of one element."""

    def __init__(
        self, element: Element, gpus: gpu_locks.Gpus, lock: IO[bytes], restarts: int = 0
    ) -> None:
        self.element, self.gpus, self.restarts = element, gpus, restarts
        self.asked: float | None = None
        self.grace = GRACE_SECONDS
        folder, spec = element.folder, element.spec
        files.make_folder(launch(folder))
        requeue.clear_ranks(folder)
        # The session id rejects processes left over from an earlier start.
        port, session, secret = _free_port(), secrets.token_hex(8), secrets.token_hex(32)
        count = spec.resources.processes
        share = len(gpus.names) // count
        self.processes: list[subprocess.Popen[bytes]] = []
        for rank in range(count):
            environment = {**os.environ, **spec.environment}
            for name in _RENDEZVOUS:
                environment.pop(name, None)
            if count > 1:
                environment |= {
                    "A2F_COORDINATOR": f"127.0.0.1:{port}",
                    "A2F_SESSION": session,
                    "A2F_SECRET": secret,
                    "A2F_NUM_PROCESSES": str(count),
                    "A2F_PROCESS_ID": str(rank),
                }
            if gpus.names:
                visible = gpus.names[rank * share : (rank + 1) * share]
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible)
            with files.open_private(launch(folder) / "job.log") as log:
                self.processes.append(
                    subprocess.Popen(
                        [*interpreter(folder, spec), "-m", "launch.jobs.worker", str(folder)],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        cwd=spec.directory,
                        env=environment,
                        # Ctrl-C must reach only the submitting process, which stops the others.
                        start_new_session=True,
                        pass_fds=(lock.fileno(), *gpus.handles()),
                    )
                )

    def ask(self, grace: float = GRACE_SECONDS) -> None:
        """Asks the processes once to stop."""
        if self.asked is not None:
            return
        self.asked, self.grace = time.monotonic(), grace
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills processes that did not stop."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def poll(self) -> int | None:
        """Returns the first exit code other than 0, or 0, once all processes have ended."""
        codes = [process.poll() for process in self.processes]
        if any(codes) and None in codes:
            self.ask(PEER_GRACE_SECONDS)
        if None in codes:
            if self.asked is not None and time.monotonic() > self.asked + self.grace:
                self.kill()
            return None
        bad = [code for code in codes if code]
        return (128 - bad[0] if bad[0] < 0 else bad[0]) if bad else EXIT_OK
