"""Runs jobs as Ray tasks; jobs of a lost node are rerun on another one."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from a2fjax.errors import InputError, WorkFailed
from data_pipeline.execution import process_pool

Job = TypeVar("Job")

RETRIES = 3
"""Number of restarts of a job when its process or node is lost."""

_AHEAD = 2
"""Jobs submitted for each core, so that no core waits for this process."""


class Cluster:
    """A Ray cluster; connects at the first job and disconnects in `close`."""

    def __init__(self, address: str, workers: int | None) -> None:
        """Takes the arguments of `executor.open_executor`; "" starts a cluster in this process."""
        try:
            import ray
        except ImportError:
            raise InputError("--engine ray: needs the extra: pip install 'a2fjax[ray]'") from None
        self._ray, self._address, self._workers = ray, address, workers
        self._connected = False

    def run(
        self, function: Callable[[Job], Any], jobs: Sequence[Job]
    ) -> Generator[tuple[Job, Any], None, None]:
        """Yields like `process_pool.run_jobs`; each job once, however often it was started."""
        if not jobs:
            return
        self._connect()
        ray = self._ray
        task = ray.remote(_outcome).options(
            num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": process_pool.SINGLE_THREAD}
        )
        shared, waiting = ray.put(function), list(enumerate(jobs))[::-1]
        running: dict[Any, int] = {}
        try:
            while waiting or running:
                # Read the limit every time, since nodes join and leave.
                limit = self._workers or _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while waiting and len(running) < limit:
                    index, job = waiting.pop()
                    running[task.remote(shared, job)] = index
                for done in ray.wait(list(running), timeout=5.0)[0]:
                    index = running.pop(done)
                    yield jobs[index], self._result(done)
        finally:
            for unfinished in running:
                with contextlib.suppress(Exception):
                    ray.cancel(unfinished, force=True)

    def close(self) -> None:
        """Disconnects, and shuts the cluster down if this process started it."""
        if self._connected:
            self._connected = False
            with _handlers():
                self._ray.shutdown()

    def _check_reachable(self) -> None:
        """Checks that the port accepts connections, because Ray would retry for minutes."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
        except (OSError, OverflowError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"--engine ray:{self._address}: no cluster answers there ({reason})"
            ) from None

    def _result(self, done: Any) -> Any:
        errors = self._ray.exceptions
        try:
            kind, result = self._ray.get(done)
            return result if kind == "result" else pickle.loads(result)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            return process_pool.ProcessDied(
                f"its process died {RETRIES + 1} times; {_short(error)}"
            )
        except errors.RayError as error:
            return process_pool.ProcessDied(f"Ray: {_short(error)}")

    def _connect(self) -> None:
        if self._connected:
            return
        # A build sends no usage statistics.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {"include_dashboard": False}
        if not self._address:
            local["num_cpus"] = self._workers or process_pool.available_cores()
        if self._address not in ("", "auto"):
            self._check_reachable()
        arguments = {"address": self._address} if self._address else {"address": "local", **local}
        try:
            with _handlers():
                self._ray.init(**arguments, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            if not self._address:
                raise WorkFailed(f"Ray does not start: {_short(error)}") from None
            raise InputError(
                f"--engine ray:{self._address}: no cluster that can be used ({_short(error)})"
            ) from None
        self._connected = True


def _outcome(function: Callable[[Any], Any], job: Any) -> tuple[str, Any]:
    """Returns ("result", value) or ("error", pickled error) in place of Ray's wrapped errors."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return "result", function(job)
    except Exception as error:  # noqa: BLE001 - the caller judges what stopped the job
        try:
            return "error", pickle.dumps(error)
        except Exception:  # noqa: BLE001 - any can come from an object that does not pickle
            return "error", pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


@contextlib.contextmanager
def _handlers() -> Iterator[None]:
    """Restores this process's signal handlers, because Ray replaces the one for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
