"""Killed data workers are replaced, and what is read goes on as if nothing had happened."""

import itertools
import logging
import os
import signal
import types
from multiprocessing import active_children

import jax
import numpy as np
import pytest

from a2fjax.configuration import DataConfig
from a2fjax.data import batch_iterator, loader
from a2fjax.errors import WorkFailed

KILLED = "Worker process was terminated unexpectedly with exit code -9. Search the logs above."


@pytest.fixture
def batches(monkeypatch):
    """Returns a function of (calls at which a worker dies) that returns batches 0, 1, ..."""

    def make(dies, error=KILLED, workers=2):
        calls = itertools.count()

        def stream(data, config):
            for number in data:
                if next(calls) in dies:
                    raise RuntimeError(error)
                yield np.array(number), {}

        monkeypatch.setattr(batch_iterator, "_stream", stream)
        source = types.SimpleNamespace(note=None)
        return batch_iterator.Batches(range(1000), source, DataConfig(workers=workers))

    return make


def test_reading_continues_at_the_next_batch(batches, caplog):
    with caplog.at_level(logging.WARNING):
        found = [int(b) for b in itertools.islice(batches({0, 5, 6}), 20)]
    assert found == list(range(20))
    lines = [r.getMessage() for r in caplog.records]
    assert (
        lines
        == [
            "a data worker was killed (exit code -9, mostly because memory ran out); "
            "reading continues with 2 new ones"
        ]
        * 3
    )


def test_workers_that_are_always_killed_end_the_run_with_one_line(batches):
    with pytest.raises(WorkFailed, match=r"killed .* 4 times within 100 .*data.workers=2") as error:
        list(batches(range(3, 100)))
    assert "\n" not in str(error.value)
    # Now and then is not always.
    assert len(list(batches(range(50, 1000, 60)))) == 1000


def test_other_errors_are_not_hidden(batches):
    with pytest.raises(RuntimeError, match="of another kind"):
        list(batches({3}, "of another kind"))
    with pytest.raises(RuntimeError, match="terminated"):
        list(batches({3}, workers=0))


@pytest.mark.slow
def test_killed_processes_change_nothing(shards, build):
    expected = list(itertools.islice(loader.batches(build.config(shards)), 12))
    stream = loader.batches(build.config(shards, workers=2))
    found = list(itertools.islice(stream, 3))
    for process in active_children():
        os.kill(process.pid, signal.SIGKILL)
    found += list(itertools.islice(stream, 9))
    stream.close()
    for a, b in zip(expected, found, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
