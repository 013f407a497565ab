import os
import time

import pytest

from a2fjax.errors import WorkFailed
from data_pipeline import pool


def square(x):
    return x * x


def deadly(x):
    if x == 3:
        os._exit(9)
    if x == 5:
        raise ValueError("five")
    time.sleep(0.05)
    return x


def threads(_):
    return os.environ["OMP_NUM_THREADS"], os.environ["JAX_PLATFORMS"]


def test_every_job_comes_back_with_its_result():
    assert dict(pool.run(square, range(7), 2)) == {x: x * x for x in range(7)}
    assert list(pool.run(square, range(3), 0)) == [(0, 0), (1, 1), (2, 4)]
    assert list(pool.run(square, [], 2)) == []


def test_a_job_that_kills_its_process_takes_no_other_with_it():
    found = list(pool.run(deadly, range(9), 2))
    assert sorted(job for job, _ in found) == list(range(9))
    results = dict(found)
    assert isinstance(results.pop(3), WorkFailed) and str(results.pop(5)) == "five"
    assert results == {x: x for x in results}


def test_processes_work_with_one_thread_and_the_environment_is_left_alone():
    before = dict(os.environ)
    assert dict(pool.run(threads, [0], 1)) == {0: ("1", "cpu")}
    assert dict(os.environ) == before


def test_in_this_process_errors_are_raised():
    with pytest.raises(ValueError, match="five"):
        list(pool.run(deadly, [5], 0))
