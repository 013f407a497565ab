import multiprocessing
import os
import time
from pathlib import Path

import pytest

from data_pipeline.execution import process_pool


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
    assert dict(process_pool.run_jobs(square, range(7), 2)) == {x: x * x for x in range(7)}
    assert list(process_pool.run_jobs(square, range(3), 0)) == [(0, 0), (1, 1), (2, 4)]
    assert list(process_pool.run_jobs(square, [], 2)) == []


def test_a_job_that_kills_its_process_takes_no_other_with_it():
    found = list(process_pool.run_jobs(deadly, range(9), 2))
    assert sorted(job for job, _ in found) == list(range(9))
    results = dict(found)
    assert isinstance(results.pop(3), process_pool.ProcessDied) and str(results.pop(5)) == "five"
    assert results == {x: x for x in results}


def test_processes_work_with_one_thread_and_the_environment_is_left_alone():
    before = dict(os.environ)
    assert dict(process_pool.run_jobs(threads, [0], 1)) == {0: ("1", "cpu")}
    assert dict(os.environ) == before


def slow(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(120)


def test_a_pool_that_is_closed_leaves_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(process_pool, "GRACE", 0.5)
    before = set(multiprocessing.active_children())
    quick, long = tmp_path / "quick", tmp_path / "long"
    found = process_pool.run_jobs(quick_or_slow, [quick, long], 2)
    assert next(found)[0] == quick
    while not long.is_file() or not long.read_text():
        time.sleep(0.02)
    start = time.monotonic()
    found.close()
    assert time.monotonic() - start < 5
    assert set(multiprocessing.active_children()) == before
    with pytest.raises(ProcessLookupError):
        os.kill(int(long.read_text()), 0)


def quick_or_slow(path):
    return path if path.name == "quick" else slow(path)


def test_in_this_process_errors_are_raised():
    with pytest.raises(ValueError, match="five"):
        list(process_pool.run_jobs(deadly, [5], 0))
