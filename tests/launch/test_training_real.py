"""The real training through `submit.py`: two processes, preempted: the same numbers."""

import hashlib
import importlib.util
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax.train import checkpoints
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
        if command in ("submit", "tune"):
            words = (str(small / "experiment.py"), f"--config.data.shards={small / 'shards'}",
                     *SMALL, *words)  # fmt: skip
        return submit.main([command, *words, "--runs", str(runs)])

    call.runs = runs
    return call


def numbers(run):
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if not k.startswith(("time/", "perf/"))} for x in lines]


def checksum(run):
    """Of the last state's parameters and averages."""
    digest = hashlib.sha256()
    for item in ("params", "ema"):
        for leaf in jax.tree.leaves(checkpoints.load_params(run, None, item)[1]):
            digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def test_two_nodes_preempted_and_continued_end_with_the_bytes_of_an_undisturbed_run(slurm, make):
    words = ["--backend", "slurm", "--nodes", "2", "--time", "20", "--partition", "main"]
    assert make("submit", "--name", "whole", *words, "--wait", "--poll", "0.5") == 0
    whole = numbers(make.runs / "whole")
    assert whole[-1]["step"] == 60
    assert make("submit", "--name", "pre", *words) == 0
    run = make.runs / "pre"
    end = time.monotonic() + 180
    while (progress.last(run)[0] or 0) < 5:
        assert time.monotonic() < end, status.why(run)
        time.sleep(0.05)
    subprocess.run(["srun", "-p", "urgent", "-N2", "--exclusive", "true"], check=True, timeout=120)
    assert status.wait(run, [run], 0.5) == 0
    codes = [e["exit_code"] for e in progress.events(run) if e["event"] == "ended"]
    assert sorted(codes) == [0, 0, 75, 75]
    assert numbers(run) == whole
    assert checksum(run) == checksum(make.runs / "whole")
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


def test_values_are_chosen_and_the_best_is_named(make, tmp_path, capsys):
    words = ["--name", "study", "--poll", "0.2", "--max-parallel", "2", "--pruner", "none"]
    words += ["--space", '{"optim.learning_rate": loguniform(1e-4, 1e-2)}', "--config.steps=20"]
    assert make("tune", *words, "--trials", "2") == 0
    said = capsys.readouterr().out
    assert "study: best is trial" in said
    assert make("tune", *words, "--trials", "3") == 0
    runs = spec.trials(make.runs / "study")
    assert len(runs) == 3 and all(progress.last(run)[0] == 20 for run in runs)
    rates = {spec.read(run).trial["optim.learning_rate"] for run in runs}
    assert len(rates) == 3
    # Each was started once, whichever driver it was.
    starts = [[e for e in progress.events(run) if e["event"] == "started"] for run in runs]
    assert [len(found) for found in starts] == [1, 1, 1]
    capsys.readouterr()
    page, sheet = tmp_path / "study.html", tmp_path / "study.csv"
    files = ["--html", str(page), "--csv", str(sheet)]
    assert make("status", "study", "--sort", "eval/loss", *files) == 0
    lines = capsys.readouterr().out.splitlines()
    losses = [progress.last(run)[1]["eval/loss"] for run in runs]
    best = min(zip(losses, runs, strict=True))[1]
    assert lines[1].startswith(best.name)
    assert "<svg" in page.read_text() and len(sheet.read_text().splitlines()) == 4
    assert make("status", "study", "--sort", "eval/los") == 2
    assert "did you mean 'eval/loss'?" in capsys.readouterr().err
    words[words.index("--space") + 1] = '{"optim.learning_rat": uniform(0, 1)}'
    assert make("tune", *words, "--trials", "1") == 2
    assert "did you mean" in capsys.readouterr().err
