"""The real training through `submit.py`: two processes, preempted: the same numbers."""

import importlib.util
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from launch import progress, spec, status, submit

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = [
    "--config.steps=60", "--config.data.batch_size=4", "--config.checkpoint.every_steps=20",
    "--config.eval.every_steps=20",
]  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    place = ROOT / "tests" / "end_to_end" / "conftest.py"
    found = importlib.util.spec_from_file_location("small_experiment", place)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.write_experiment(tmp_path_factory.mktemp("small"))


@pytest.fixture
def make(small, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    runs = tmp_path / "runs"

    def call(command, *words):
        if command == "submit":
            words = (str(small / "experiment.py"), f"--config.data.shards={small / 'shards'}",
                     *SMALL, *words)  # fmt: skip
        return submit.main([command, *words, "--runs", str(runs)])

    call.runs = runs
    return call


def numbers(run):
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if not k.startswith(("time/", "perf/"))} for x in lines]


def test_two_nodes_preempted_and_continued_give_the_numbers_of_an_undisturbed_run(slurm, make):
    assert make("submit", "--name", "whole", "--processes", "2") == 0
    whole = numbers(make.runs / "whole")
    assert whole[-1]["step"] == 60
    words = ["--name", "pre", "--backend", "slurm", "--nodes", "2", "--time", "20"]
    assert make("submit", *words, "--partition", "main") == 0
    run = make.runs / "pre"
    end = time.monotonic() + 180
    while (progress.last(run)[0] or 0) < 5:
        assert time.monotonic() < end, status.why(run)
        time.sleep(0.05)
    subprocess.run(["srun", "-p", "urgent", "-N2", "--exclusive", "true"], check=True, timeout=120)
    assert status.wait(run, [run], 0.5) == 0
    codes = [e["exit_code"] for e in progress.events(run) if e["event"] == "ended"]
    assert sorted(codes) == [0, 0, 75, 75]
    found = numbers(run)
    assert [x["step"] for x in found] == [x["step"] for x in whole]
    for a, b in zip(whole, found, strict=True):
        assert a == pytest.approx(b, rel=1e-5), a["step"]
    assert json.loads((run / "config.json").read_text()) == spec.read(run).config
    # What comes after a run takes its folder.
    after = ["--backend", "slurm", "--after", "pre", "--time", "20", "--wait", "--poll", "0.5"]
    report = run / "report.json"
    words = ["run", "report", *after, "--runs", str(make.runs), "--", "a2fjax", "evaluate"]
    assert submit.main([*words, str(run), "--out", str(report)]) == 0
    assert report.is_file()


def test_a_process_that_is_killed_ends_the_run_which_is_started_again(make):
    run = make.runs / "one"

    def kill():
        end = time.monotonic() + 120
        while (progress.last(run)[0] or 0) < 25 and time.monotonic() < end:
            time.sleep(0.05)
        started = [e for e in progress.events(run) if e["event"] == "started" and e["rank"] == 1]
        os.kill(started[0]["pid"], signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert make("submit", "--name", "one", "--processes", "2") == 0
    thread.join()
    starts = [e for e in progress.events(run) if e["event"] == "started"]
    assert len(starts) == 4 and progress.last(run)[0] == 60
    assert [e["why"] for e in progress.events(run) if e["event"] == "again"] == [
        "failure 1 of at most 3 retries"
    ]
