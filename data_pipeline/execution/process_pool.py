"""Runs jobs in processes of one thread each; a process that dies loses only its own job."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from a2fjax.errors import EXIT_FAILED, WorkFailed

Job = TypeVar("Job")

GRACE = 5.0
"""Seconds that running jobs are given to end when the pool stops."""

SINGLE_THREAD = {
    # Parallelism comes from the processes, and single-threaded sums do not depend on the number
    # of processes and cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
"""Environment of worker processes."""


class ProcessDied(WorkFailed):
    """A job ended its process: out of memory, or a crash in a library."""


def available_cores() -> int:
    """Returns the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_jobs(
    function: Callable[[Job], Any], jobs: Sequence[Job], workers: int | None
) -> Generator[tuple[Job, Any], None, None]:
    """Yields (job, result or exception) for each job, in order of completion.

    When a process dies (out of memory, a crash in a library), the jobs that were running are
    repeated, each in a separate process, so that only the job that kills its process is lost: its
    result is `ProcessDied`. When the iterator is closed, or an exception such as KeyboardInterrupt
    passes through it, processes that do not end within `GRACE` are killed.

    Args:
      function: picklable function of a job.
      jobs: picklable jobs, in the order in which they start.
      workers: number of processes, None for one per core; 0 runs jobs in this process and lets
        exceptions propagate.
    """
    if workers == 0:
        for job in jobs:
            yield job, function(job)
        return
    todo, count = list(jobs), max(1, min(workers or available_cores(), len(jobs)))
    while todo:
        lost = []
        with contextlib.closing(_pooled(function, todo, count)) as results:
            for index, result in results:
                if isinstance(result, BrokenProcessPool):
                    lost.append(index)
                else:
                    yield todo[index], result
        todo = [todo[index] for index in sorted(lost)]
        # One of the submitted jobs, which are at the head of the queue, killed its process.
        suspects, todo = todo[: 2 * count + 1], todo[2 * count + 1 :]
        for job in suspects:
            with contextlib.closing(_pooled(function, [job], 1)) as results:
                for _, result in results:
                    if isinstance(result, BrokenProcessPool):
                        result = ProcessDied("its process died; out of memory?")
                    yield job, result


def _pooled(
    function: Callable[[Job], Any], jobs: Sequence[Job], count: int
) -> Generator[tuple[int, Any], None, None]:
    """Yields (index of the job, result or exception)."""
    if not jobs:
        return
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from multiprocessing import active_children, get_context

    with _environment(SINGLE_THREAD):
        others = set(active_children())
        pool = ProcessPoolExecutor(
            count,
            mp_context=get_context("spawn"),
            initializer=_start,
            initargs=(os.getpid(),),
        )
        try:
            # Processes start as work is submitted, and inherit the environment at that time.
            futures = {pool.submit(function, job): index for index, job in enumerate(jobs)}
            for future in as_completed(futures):
                error = future.exception()
                yield futures[future], error if error is not None else future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _end(set(active_children()) - others)
            raise
        pool.shutdown(wait=True)


def _end(processes: Iterable[BaseProcess]) -> None:
    """Waits `GRACE` for processes to end by themselves, then kills them."""
    last = time.monotonic() + GRACE
    try:
        while time.monotonic() < last and any(p.is_alive() for p in processes):
            time.sleep(0.05)
    finally:
        for process in processes:
            process.kill()  # safe: unfinished files have temporary names
            # The pool's thread may reap the process first and report it a moment later.
            while process.is_alive():
                time.sleep(0.001)


def _start(parent: int) -> None:
    """Ignores Ctrl-C and ends with the parent: a killed build must leave no workers."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(EXIT_FAILED)

    # SIGTERM must still end the process: a broken pool uses it to end the remaining ones.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
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
