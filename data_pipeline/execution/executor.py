"""Executors that run jobs in processes on this machine or on a Ray cluster."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from a2fjax.errors import InputError, nearest
from data_pipeline.execution import process_pool

Job = TypeVar("Job")

PROCESSES, RAY = "processes", "ray"
ENGINES = (PROCESSES, RAY)
_ADDRESS = re.compile(r"auto|[\w.-]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5}")


class Run(Protocol):
    """Yields (job, result or exception) for each job, in order of completion."""

    def __call__(
        self, function: Callable[[Job], Any], jobs: Sequence[Job]
    ) -> Generator[tuple[Job, Any], None, None]:
        """Runs `function` on each of `jobs`; both must be picklable."""
        ...


def parse_engine(text: str, workers: int | None) -> tuple[str, str]:
    """Returns the name of an engine and its address ("" if none).

    Raises:
      InputError: there is no such engine, or it cannot be combined with `workers`.
    """
    name, colon, address = text.partition(":")
    if name not in ENGINES:
        raise InputError(f"--engine {text}{nearest(name, ENGINES)}")
    if colon and (name != RAY or not _ADDRESS.fullmatch(address)):
        raise InputError(f"--engine {text}: expected {PROCESSES}, ray, ray:HOST:PORT or ray:auto")
    if name == RAY and workers == 0:
        raise InputError("--workers 0: works in this process; leave out --engine ray")
    return name, address


@contextlib.contextmanager
def open_executor(text: str, workers: int | None) -> Iterator[Run]:
    """Yields a function that runs jobs on an engine; nothing starts before the first job.

    Args:
      text: "processes", "ray" (a cluster of this machine's cores) or "ray:ADDRESS".
      workers: number of concurrent jobs; None for one per core.

    Raises:
      InputError: as `parse_engine`; Ray is not installed or its cluster does not answer.
    """
    name, address = parse_engine(text, workers)
    if name == PROCESSES:
        yield functools.partial(process_pool.run_jobs, workers=workers)
        return
    from data_pipeline.execution import ray_pool

    with contextlib.closing(ray_pool.Cluster(address, workers)) as cluster:
        yield cluster.run
