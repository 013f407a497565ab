"""The real training through `submit.py`: preempted and killed runs end with the same bytes."""

import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from launch import submit
from launch.jobs import progress, record
from launch.monitor import causes
from launch.monitor.wait import wait

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SMALL = [
    "--config.steps=60", "--config.data.batch_size=4", "--config.checkpoint.every_steps=20",
    "--config.eval.every_steps=20",
]  # fmt: skip
SLURM = ["--scheduler", "slurm", "--partition", "main", "--time", "20"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    place = ROOT / "tests" / "end_to_end" / "conftest.py"
    found = importlib.util.spec_from_file_location("small_experiment", place)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.write_experiment(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module", autouse=True)
def environment():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("JAX_PLATFORMS", raising=False)
        yield


def caller(small, runs):
    def call(command, *words):
        if command in ("submit", "tune"):
            words = (str(small / "experiment.py"), f"--config.data.shards={small / 'shards'}",
                     *SMALL, *words)  # fmt: skip
        return submit.main([command, *words, "--runs", str(runs)])

    call.runs = runs
    return call


@pytest.fixture
def make(small, tmp_path):
    return caller(small, tmp_path / "runs")


@pytest.fixture(scope="module")
def sweep(slurm, small, tmp_path_factory):
    """Two trainings of four devices that nothing disturbs, as one array."""
    make = caller(small, tmp_path_factory.mktemp("runs"))
    words = ["--name", "sweep", "--sweep", "seeds(2)", "--nodes", "2", "--processes", "2"]
    assert make("submit", *words, *SLURM, "--wait", "--poll", "0.5") == 0
    return make


def numbers(run):
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in x.items() if not k.startswith(("time/", "perf/"))} for x in lines]


def wait_for_steps(runs, count):
    end = time.monotonic() + 180
    while min(progress.last(run)[0] or 0 for run in runs) < count:
        assert time.monotonic() < end, [causes.why(run) for run in runs]
        time.sleep(0.05)


def started(run):
    return [e for e in progress.events(run) if e["event"] == "started"]


def test_a_sweep_of_several_processes_is_one_array_and_its_table_names_the_best(sweep, capsys):
    runs = record.trials(sweep.runs / "sweep")
    assert [run.name for run in runs] == [f"seed-{i}" for i in range(2)]
    assert len({record.submission(run).job for run in runs}) == 1
    for run in runs:
        assert sorted(e["rank"] for e in started(run)) == [0, 1, 2, 3]
        assert len({e["host"] for e in started(run)}) == 2
        assert progress.last(run)[0] == 60
    assert len({e["host"] for run in runs for e in started(run)}) == 4
    losses = [progress.last(run)[1]["eval/loss"] for run in runs]
    assert len(set(losses)) == 2
    capsys.readouterr()
    assert sweep("status", "sweep", "--sort", "eval/loss") == 0
    lines = capsys.readouterr().out.splitlines()[1:3]
    ranked = [run.name for _, run in sorted(zip(losses, runs, strict=True))]
    assert [line.split()[0] for line in lines] == ranked


def test_elements_of_an_array_that_are_preempted_end_with_the_bytes_of_undisturbed_ones(
    sweep, checksum
):
    # As many devices as the undisturbed ones, of half as many processes.
    words = ["--name", "pre", "--sweep", "seeds(2)", "--nodes", "2", "--cpu-devices", "2"]
    assert sweep("submit", *words, *SLURM) == 0
    runs = record.trials(sweep.runs / "pre")
    wait_for_steps(runs, 3)
    subprocess.run(["srun", "-p", "urgent", "-N4", "--exclusive", "true"], check=True, timeout=120)
    assert wait(sweep.runs / "pre", runs, 0.5) == 0
    assert len({record.submission(run).job for run in runs}) == 1
    for run in runs:
        codes = [e["exit_code"] for e in progress.events(run) if e["event"] == "ended"]
        assert sorted(codes) == [0, 0, 75, 75], run
        whole = sweep.runs / "sweep" / run.name
        assert numbers(run) == numbers(whole)
        assert checksum(run) == checksum(whole)
        assert json.loads((run / "config.json").read_text()) == record.read(run).config
    # What comes after a run takes its folder.
    report = runs[0] / "report.json"
    words = ["run", "report", "--after", "pre", *SLURM, "--wait", "--poll", "0.5"]
    words += ["--runs", str(sweep.runs), "--", "a2fjax", "evaluate"]
    assert submit.main([*words, str(runs[0]), "--out", str(report)]) == 0
    assert report.is_file()


def test_a_node_that_dies_costs_the_steps_since_the_last_state(slurm, sweep, checksum):
    words = ["--name", "dies", "--config.seed=1", "--nodes", "2", "--cpu-devices", "2"]
    assert sweep("submit", *words, *SLURM) == 0
    run = sweep.runs / "dies"
    wait_for_steps([run], 23)
    second = next(e["host"] for e in started(run) if e["rank"] == 1)
    began = time.monotonic()
    with slurm(second):
        assert wait(run, [run], 0.5) == 0
        print(f"node {second} died: done {time.monotonic() - began:.0f} s later")
    assert len(started(run)) == 4 and second not in [e["host"] for e in started(run)[2:]]
    whole = sweep.runs / "sweep" / "seed-1"
    assert numbers(run) == numbers(whole)
    assert checksum(run) == checksum(whole)


def test_a_process_that_is_killed_ends_the_run_which_is_started_again(make):
    run = make.runs / "one"

    def kill():
        wait_for_steps([run], 25)
        os.kill(next(e["pid"] for e in started(run) if e["rank"] == 1), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    assert make("submit", "--name", "one", "--processes", "2") == 0
    thread.join()
    log = (run / "launch" / "job.log").read_text()
    assert re.search(r"^rank 0 .*: process 1 .* is gone \(killed", log), log
    again = [e["why"] for e in progress.events(run) if e["event"] == "again"]
    # On a machine without time for it, the second attempt may lose its peer as well.
    assert again[0] == "failure 1 of at most 3 retries" and len(again) <= 2, log
    assert len(started(run)) == 2 + 2 * len(again) and progress.last(run)[0] == 60, log


def test_values_are_chosen_with_each_run_a_slurm_job(slurm, make, tmp_path, capsys):
    words = ["--name", "study", "--poll", "0.2", "--max-parallel", "2", "--pruner", "none", *SLURM]
    words += ["--space", '{"optim.learning_rate": loguniform(1e-4, 1e-2)}', "--config.steps=20"]
    assert make("tune", *words, "--trials", "2") == 0
    assert make("tune", *words, "--trials", "3") == 0
    said = capsys.readouterr().out
    runs = record.trials(make.runs / "study")
    assert len(runs) == 3 and all(progress.last(run)[0] == 20 for run in runs)
    assert all(progress.result(run)["state"] == "done" for run in runs)
    assert len({record.submission(run).job for run in runs}) == 3
    assert {record.submission(run).scheduler for run in runs} == {"slurm"}
    assert len({record.read(run).trial["optim.learning_rate"] for run in runs}) == 3
    # Each was started once, whichever driver it was.
    assert [len(started(run)) for run in runs] == [1, 1, 1]
    best = min(runs, key=lambda run: progress.last(run)[1]["eval/loss"])
    assert f": {best}\n" in said
    # The first two run at once, and never more than two.
    times = sorted((e["unix"], {"started": 1, "ended": -1}[e["event"]]) for run in runs
                   for e in progress.events(run) if e["event"] in ("started", "ended"))  # fmt: skip
    assert max(itertools.accumulate(change for _, change in times)) == 2
    page, sheet = tmp_path / "study.html", tmp_path / "study.csv"
    files = ["--html", str(page), "--csv", str(sheet)]
    assert make("status", "study", "--sort", "eval/loss", *files) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(best.name)
    assert "<svg" in page.read_text() and len(sheet.read_text().splitlines()) == 4
    assert make("status", "study", "--sort", "eval/los") == 2
    assert "did you mean 'eval/loss'?" in capsys.readouterr().err
    words[words.index("--space") + 1] = '{"optim.learning_rat": uniform(0, 1)}'
    assert make("tune", *words, "--trials", "1") == 2
    assert "did you mean" in capsys.readouterr().err
