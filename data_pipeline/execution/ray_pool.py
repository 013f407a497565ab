"""Jobs as tasks of Ray: those whose node is lost are done again elsewhere."""

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
"""How often a job is begun again whose process or node is gone."""

_AHEAD = 2
"""Jobs handed over for each core, so that none waits for this process."""


class Cluster:
    """A cluster that is connected to when there are jobs, and left by `close`."""

    def __init__(self, address: str, workers: int | None) -> None:
        """See `engines.opened`; an address of "" is a cluster of this process's own."""
        try:
            import ray
        except ImportError:
            raise InputError("--engine ray: needs the extra: pip install 'a2fjax[ray]'") from None
        self._ray, self._address, self._workers = ray, address, workers
        self._connected = False

    def run(
        self, function: Callable[[Job], Any], jobs: Sequence[Job]
    ) -> Generator[tuple[Job, Any], None, None]:
        """Yields as `pool.run` does; every job once, however often it was begun."""
        if not jobs:
            return
        self._connect()
        ray = self._ray
        task = ray.remote(_outcome).options(
            num_cpus=1, max_retries=RETRIES, runtime_env={"env_vars": process_pool.SINGLE_THREAD}
        )
        shared, waiting = ray.put(function), list(enumerate(jobs))[::-1]
        at_work: dict[Any, int] = {}
        try:
            while waiting or at_work:
                # Nodes come and go.
                room = self._workers or _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
                while waiting and len(at_work) < room:
                    place, job = waiting.pop()
                    at_work[task.remote(shared, job)] = place
                for done in ray.wait(list(at_work), timeout=5.0)[0]:
                    place = at_work.pop(done)
                    yield jobs[place], self._result(done)
        finally:
            for left in at_work:
                with contextlib.suppress(Exception):
                    ray.cancel(left, force=True)

    def close(self) -> None:
        """Leaves the cluster, and ends it where it is this process's own."""
        if self._connected:
            self._connected = False
            with _handlers():
                self._ray.shutdown()

    def _knock(self) -> None:
        """Sees whether anybody is there: Ray itself tries for minutes."""
        host, _, port = self._address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
        except (OSError, OverflowError, UnicodeError) as error:
            said = getattr(error, "strerror", None) or error
            raise InputError(
                f"--engine ray:{self._address}: no cluster answers there ({said})"
            ) from None

    def _result(self, done: Any) -> Any:
        errors = self._ray.exceptions
        try:
            said, result = self._ray.get(done)
            return result if said == "result" else pickle.loads(result)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            return process_pool.ProcessDied(
                f"its process died {RETRIES + 1} times; {_short(error)}"
            )
        except errors.RayError as error:
            return process_pool.ProcessDied(f"Ray: {_short(error)}")

    def _connect(self) -> None:
        if self._connected:
            return
        # Nothing of a build is anybody else's business.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own: dict[str, Any] = {"include_dashboard": False}
        if not self._address:
            own["num_cpus"] = self._workers or process_pool.available_cores()
        if self._address not in ("", "auto"):
            self._knock()
        where = {"address": self._address} if self._address else {"address": "local", **own}
        try:
            with _handlers():
                self._ray.init(**where, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            if not self._address:
                raise WorkFailed(f"Ray does not start: {_short(error)}") from None
            raise InputError(
                f"--engine ray:{self._address}: no cluster that can be used ({_short(error)})"
            ) from None
        self._connected = True


def _outcome(function: Callable[[Any], Any], job: Any) -> tuple[str, Any]:
    """Returns what is to be told from what Ray raises: exceptions of the work are results of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return "result", function(job)
    except Exception as error:  # noqa: BLE001 - whoever asked for the job judges what stopped it
        try:
            return "error", pickle.dumps(error)
        except Exception:  # noqa: BLE001 - any can come from an object that does not pickle
            return "error", pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


@contextlib.contextmanager
def _handlers() -> Iterator[None]:
    """Keeps this process's handlers: Ray puts its own in the place of that of SIGTERM."""
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
