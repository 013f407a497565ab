"""Work in several processes, each with one thread; a process that dies takes only its own work."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from a2fjax.errors import EXIT_FAILED, WorkFailed

Job = TypeVar("Job")

_SINGLE_THREAD = {
    # The processes are the parallelism, and sums come out the same whatever the number of
    # processes and cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def cores() -> int:
    """Returns the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run(
    function: Callable[[Job], Any], jobs: Sequence[Job], workers: int | None
) -> Iterator[tuple[Job, Any]]:
    """Yields (job, result or the exception that stopped it) in the order in which they end.

    When a process dies (out of memory, a crash in a library), what it and its neighbours were at is
    done again, one job a process, so that only the job that kills its process is lost.

    Args:
      function: of the job alone; picklable.
      jobs: picklable, in the order in which they are to begin.
      workers: processes, None for one a core; 0 works in this process and raises what is raised.
    """
    if workers == 0:
        for job in jobs:
            yield job, function(job)
        return
    todo, count = list(jobs), max(1, min(workers or cores(), len(jobs)))
    while todo:
        lost = []
        for job, result in _pooled(function, todo, count):
            if isinstance(result, BrokenProcessPool):
                lost.append(job)
            else:
                yield job, result
        todo = [job for job in todo if any(job is other for other in lost)]
        # One of those that had been handed out killed its process: the first of the queue.
        suspects, todo = todo[: 2 * count + 1], todo[2 * count + 1 :]
        for job in suspects:
            for _, result in _pooled(function, [job], 1):
                if isinstance(result, BrokenProcessPool):
                    result = WorkFailed("its process died; out of memory?")
                yield job, result


def _pooled(
    function: Callable[[Job], Any], jobs: Sequence[Job], count: int
) -> Iterator[tuple[Job, Any]]:
    if not jobs:
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import get_context

    with _environment(_SINGLE_THREAD):
        pool = ProcessPoolExecutor(
            count,
            mp_context=get_context("spawn"),
            initializer=_start,
            initargs=(os.getpid(),),
        )
        try:
            # Processes start as work is submitted and take the environment as it is now.
            futures = {pool.submit(function, job): job for job in jobs}
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], error if error is not None else future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start(parent: int) -> None:
    """Leaves Ctrl-C to the parent, and ends with it: a killed build must not leave workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(EXIT_FAILED)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {k: os.environ.get(k) for k in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
