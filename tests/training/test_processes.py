"""Real processes on this machine: they stop together, go on to the bit, and no fault is silent.

That any number of processes and devices gives the same run is shown with the real model by
tests/end_to_end/test_topologies.py.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from a2fjax.training import checkpoints, tracking
from a2fjax.training.distributed import process_setup, session, watchdog

HERE = Path(__file__).resolve()
SMALL = {"sharding__min_mib": 6e-5, "data__batch_size": 8, "log__every_steps": 1}
THREE = {"data__batch_size": 6}  # What three processes can share.


class Job:
    """The processes of one start of a run."""

    def __init__(self, run, processes, devices=1, **options):
        options["changes"] = {**SMALL, **options.get("changes", {})}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.run, self.logs, self.processes = run, [], []
        self.began = time.monotonic()
        for number in range(processes):
            environment = {
                **os.environ,
                "JAX_PLATFORMS": "cpu",
                "JAX_NUM_CPU_DEVICES": str(devices),
                "XLA_FLAGS": os.environ.get("XLA_FLAGS", "--xla_backend_optimization_level=0"),
                "A2F_COORDINATOR": f"127.0.0.1:{port}",
                "A2F_NUM_PROCESSES": str(processes),
                "A2F_PROCESS_ID": str(number),
                "A2F_LOCAL_DEVICES": str(devices),
                "A2F_SESSION": str(port),
                "A2F_SECRET": f"{port:064d}",
            }
            log = run.with_name(f"{run.name}.{len(list(run.parent.glob('*.log')))}.log")
            self.logs.append(log)
            with log.open("wb") as file:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, str(HERE.with_name("process.py")), str(run),
                         json.dumps(options)],
                        cwd=HERE.parents[2], env=environment, stdout=file, stderr=file,
                    )
                )  # fmt: skip

    def text(self, number):
        return self.logs[number].read_text(errors="replace")

    def until(self, condition, seconds=180.0):
        end = time.monotonic() + seconds
        while not condition():
            ended = [p.poll() for p in self.processes]
            assert time.monotonic() < end and set(ended) == {None}, (
                ended,
                *map(self.text, range(len(self.logs))),
            )
            time.sleep(0.02)

    def step(self):
        """The last update that was logged."""
        lines = tracking.read_metrics(self.run) if (self.run / "metrics.jsonl").exists() else []
        return max((line["step"] for line in lines), default=0)

    def codes(self, seconds=240.0, but=()):
        """Exit codes of all; those of `but` are killed once the others have ended."""
        end = time.monotonic() + seconds
        try:
            for number, process in enumerate(self.processes):
                if number not in but:
                    process.wait(max(0.1, end - time.monotonic()))
        finally:
            for process in self.processes:
                if process.poll() is None:
                    process.kill()
        return [process.wait() for process in self.processes]


@pytest.fixture
def start(tmp_path):
    jobs = []

    def begin(run, processes, devices=1, **options):
        jobs.append(Job(tmp_path / run, processes, devices, **options))
        return jobs[-1]

    yield begin
    for job in jobs:
        for process in job.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def losses(run):
    lines = {line["step"]: line for line in tracking.read_metrics(run) if "train/loss" in line}
    return np.array([lines[step]["train/loss"] for step in sorted(lines)])


def finish(start, run, processes, devices=1, **options):
    job = start(run, processes, devices, **options)
    assert job.codes() == [0] * processes, [job.text(i) for i in range(processes)]
    return job


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run of two processes with two devices each that nothing happened to."""
    job = Job(tmp_path_factory.mktemp("two") / "run", 2, 2)
    assert job.codes() == [0, 0], job.text(0) + job.text(1)
    return job.run


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A run of three processes that nothing happened to."""
    job = Job(tmp_path_factory.mktemp("three") / "run", 3, 1, changes=THREE)
    assert job.codes() == [0] * 3, [job.text(i) for i in range(3)]
    return job.run


@pytest.mark.slow
def test_a_stop_of_one_process_is_one_of_all_and_goes_on_to_the_bit(
    start, undisturbed, tmp_path, checksum
):
    for number, fault in enumerate((("term", 5), ("usr2", 8))):
        job = start("run", 2, 2, faults=[[1 - number, fault[1], fault[0]]])
        assert job.codes() == [75, 75], job.text(0) + job.text(1)
        texts = [job.text(0), job.text(1)]
        assert all("is saved after step" in text for text in texts)
        assert sum("another process was told to stop" in text for text in texts) == 1
    finish(start, "run", 2, 2)
    assert checksum(tmp_path / "run") == checksum(undisturbed)
    assert (losses(tmp_path / "run") == losses(undisturbed)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "faults", "saved"),
    [
        (0, [[0, 9, "pause"], [0, 10, "kill"]], {8}),
        # While the state of step 8 is on its way to the disk.
        (1, [[1, 8, "kill"]], {4, 8}),
    ],
    ids=["first", "in a save"],
)
def test_a_killed_process_ends_all_and_costs_the_steps_since_the_last_state(
    start, three, tmp_path, victim, faults, saved, checksum
):
    run = tmp_path / "run"
    job = start("run", 3, 1, changes=THREE, faults=faults)
    codes = job.codes(but=(victim,))
    assert codes[victim] == -signal.SIGKILL
    others = [number for number in range(3) if number != victim]
    assert {codes[number] for number in others} == {70}, [job.text(i) for i in range(3)]
    for number in others:
        assert f"process {victim} (" in job.text(number) and "is gone" in job.text(number)
    assert checkpoints.steps(run)[-1] in saved
    finish(start, "run", 3, 1, changes=THREE)
    assert checksum(run) == checksum(three)
    assert (losses(run) == losses(three)).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "code", "says"),
    [
        ("input", 2, "shard 7: cannot be read"),
        ("bug", 1, "KeyError: 'a bug'"),
    ],
)
def test_an_error_of_one_process_is_told_by_all(start, what, code, says):
    job = start("run", 2, 1, faults=[[1, 5, what]], closing=1.0)
    assert job.codes() == [code, code], job.text(0) + job.text(1)
    assert says in job.text(1) and "process 1 (" in job.text(0) and says in job.text(0)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1)], ids=["first", "other", "both"])
def test_a_full_disk_ends_all_processes_and_is_named_by_all(start, victims):
    # The metrics are logged too seldom for the first process to notice by them.
    quiet = {"log__every_steps": 1000}
    faults = [[victim, 6, "disk"] for victim in victims]
    job = start("run", 2, 1, limit=600, faults=faults, changes={**SMALL, **quiet})
    job.until(lambda: all("disk" in job.text(victim) for victim in victims))
    began = time.monotonic()
    assert set(job.codes()) <= {1, 70} and time.monotonic() - began < 60
    for number in range(2):
        assert str(job.run) in job.text(number), job.text(number)
        assert "could not be written" in job.text(number), job.text(number)


@pytest.mark.slow
def test_a_process_that_stands_still_in_python_ends_all_with_its_stack(start):
    job = start("run", 2, 1, limit=8.0, faults=[[1, 6, "sleep"]])
    assert job.codes() == [70, 70], job.text(0) + job.text(1)
    assert "no progress for 8 s" in job.text(0) + job.text(1)
    assert "process.py" in job.text(1) and "in happen" in job.text(1)


@pytest.mark.slow
def test_a_process_that_is_frozen_is_missed(start):
    job = start("run", 2, 1, limit=600, faults=[[1, 6, "stop"]])
    job.until(lambda: "stop" in job.text(1))
    began = time.monotonic()
    assert job.codes(but=(1,))[0] == 70
    assert time.monotonic() - began < 60
    assert "process 1 (" in job.text(0) and "was not heard of for 25 s" in job.text(0)


def test_who_does_not_come_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("A2F_RENDEZVOUS_SECONDS", "1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    setup = process_setup.ProcessSetup(
        source="explicit", processes=3, process=0, host="127.0.0.1", port=port, session="x"
    )
    with (
        pytest.raises(session.WorkFailed, match="1 of 3 processes came .* missing: 1, 2"),
        session.session(setup, watchdog.Watchdog(0)),
    ):
        pass
