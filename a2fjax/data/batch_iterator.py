"""Reads batches ahead in threads or worker processes.

A worker process that is killed, for example by the kernel when memory runs out, loses nothing: the
batches depend on their number alone, so reading continues with new workers at the next one.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from a2fjax import signals
from a2fjax.batch import Batch
from a2fjax.configuration import DataConfig
from a2fjax.data.dataset import ClipSource
from a2fjax.data.window_builder import CACHE_ERROR
from a2fjax.errors import InputError, WorkFailed

_log = logging.getLogger(__name__)

RESTARTS = 3
"""Restarts of the worker processes within `RESTART_BATCHES` batches."""

RESTART_BATCHES = 100


class Batches:
    """An iterator over batches that also reports unreadable records.

    Attributes:
      source: the clips; `Batch.clip` is an index into its entries.
    """

    def __init__(self, data: grain.MapDataset, source: ClipSource, config: DataConfig):
        """Starts reading ahead.

        Args:
          data: pairs of a batch and a dict from clip index to the reason for a bad record.
          source: the clips.
          config: sets workers, threads, prefetching and the policy for bad records.
        """
        self.source = source
        self._data, self._config = data, config
        self._number = 0
        self._restarts: list[int] = []
        # Stop the workers when this object or the program ends, whichever comes first; at
        # interpreter shutdown they would print errors.
        self._reading = [iter(_stream(data, config))]
        self._end = weakref.finalize(self, _stop, self._reading)

    @property
    def bad(self) -> Mapping[str, str]:
        """Unreadable records so far: name (shard, record, clip) -> reason."""
        return {self.source.entries[i].name: why for i, why in sorted(self.source.bad.items())}

    def __iter__(self) -> Iterator[Batch]:
        """Returns itself."""
        return self

    def __next__(self) -> Batch:
        """Returns the next batch.

        Raises:
          InputError: a record cannot be read and `data.on_bad_record` is "raise", or hidden states
            cannot be read from a feature cache.
          WorkFailed: worker processes were killed more than `RESTARTS` times in a short while.
        """
        if not self._reading:
            raise StopIteration
        batch, bad = self._next()
        self._number += 1
        if CACHE_ERROR in bad:
            raise InputError(bad[CACHE_ERROR])
        for index, reason in bad.items():
            if self._config.on_bad_record == "raise":
                raise InputError(f"{self.source.entries[index].name}: {reason}")
            self.source.note(index, reason)
        # Workers put batches into shared memory, which must be released for later batches.
        return jax.tree.map(np.array, batch) if self._config.workers else batch

    def _next(self) -> tuple[Batch, dict[int, str]]:
        """Returns the next batch and its bad records; replaces worker processes that were killed.

        Raises:
          WorkFailed: as `__next__`.
        """
        while True:
            try:
                result: tuple[Batch, dict[int, str]] = next(self._reading[0])
                return result
            except RuntimeError as error:
                if not (self._config.workers and _KILLED in str(error)):
                    raise
                self._restart(str(error).partition(_KILLED)[2].partition(".")[0].strip())

    def _restart(self, code: str) -> None:
        recent = [n for n in self._restarts if n > self._number - RESTART_BATCHES]
        what = f"a data worker was killed (exit code {code}{_MEMORY.get(code, '')})"
        count = self._config.workers
        if len(recent) >= RESTARTS:
            raise WorkFailed(
                f"{what}, {len(recent) + 1} times within {RESTART_BATCHES} batches; give the run "
                f"more memory, or fewer workers than --config.data.workers={count}"
            )
        _log.warning("%s; reading continues with %d new ones", what, count)
        self._restarts = [*recent, self._number]
        self._reading.pop().close()
        self._reading.append(iter(_stream(self._data[self._number :], self._config)))

    def close(self) -> None:
        """Stops threads and worker processes and ends the iteration."""
        self._end()


_KILLED = "terminated unexpectedly with exit code"
"""Text of Grain's error for a worker process that ended by itself."""

_MEMORY = {"-9": ", mostly because memory ran out"}


def _stream(data: grain.MapDataset, config: DataConfig) -> grain.IterDataset:
    """Returns a dataset that reads batches ahead in worker processes, or in threads."""
    if not config.workers:
        reading = grain.ReadOptions(
            num_threads=config.threads,
            prefetch_buffer_size=max(config.prefetch, config.threads),
        )
        return data.to_iter_dataset(reading)
    options = grain.MultiprocessingOptions(
        num_workers=config.workers,
        per_worker_buffer_size=max(1, -(-config.prefetch // config.workers)),
    )
    # Grain reads its absl flags when it starts workers; programs that do not use absl have not
    # parsed them.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    # One thread per worker: reading further ahead than the buffer would only use memory.
    reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    return data.to_iter_dataset(reading).mp_prefetch(options, _start_worker)


def _stop(reading: list[Any]) -> None:
    while reading:
        reading.pop().close()


def _start_worker(index: int, count: int) -> None:
    """Hides the accelerators from a worker process and makes it end with its parent."""
    del index, count
    # Schedulers send these signals to all processes of a job; only the trainer handles them.
    signals.ignore(signals.STOP_SIGNALS)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_platforms", "cpu")


def _end_with(parent: int) -> None:
    """Ends this process once its parent is gone, because a killed parent cannot do so."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
