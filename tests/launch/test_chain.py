"""Work that waits for work of other kinds: captures, shards, caches, training, evaluation."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launch import submit
from launch.jobs import data_pins, progress, record
from launch.monitor.wait import wait
from launch.submission import dependencies

ROOT = Path(__file__).parents[2]
STAND_IN = Path(__file__).with_name("stand_in.py")
SCRIPT = """
import sys
from launch import submit
sys.exit(submit.main(sys.argv[2:], program=[sys.argv[1]]))
"""


def begin(program, *words):
    """Starts the command line in another process, as in another terminal."""
    return subprocess.Popen([sys.executable, "-c", SCRIPT, program, *words], cwd=ROOT)


def test_dependencies_are_checked(make_job, tmp_path, capsys):
    job = make_job(1)
    (job.out).mkdir()
    assert job("build", "--after", str(job.out)) == 2
    assert "nothing was submitted that fills this folder" in capsys.readouterr().err
    assert job("build", "--after", "nothing") == 2
    assert f"no run or sweep in {Path('runs').absolute()}" in capsys.readouterr().err
    job.set("bad-1")
    assert job("build", "--retries", "0") != 0
    capsys.readouterr()
    assert dependencies.check([f"{job.out}:any"], tmp_path) == (f"{job.out}:any",)
    assert dependencies.unfilled(dependencies.check([str(job.out)], tmp_path)) == {
        str(job.out.resolve())
    }
    second = ["build", str(job.source), "--out", str(tmp_path / "second")]
    run = [str(STAND_IN)]
    assert submit.main([*second, "--after", str(job.out)], program=run) == 2
    assert "give --after my öut'$(touch x):any" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()
    assert submit.main([*second, "--after", f"{job.out}:and"], program=run) == 2
    assert "did you mean 'any'?" in capsys.readouterr().err
    job.unset("bad-1")
    assert submit.main([*second, "--after", f"{job.out}:any"], program=run) == 0
    assert job("retry") == 0
    assert dependencies.unfilled(dependencies.check([str(job.out)], tmp_path)) == frozenset()


def test_a_training_waits_for_the_shards_that_a_build_makes(cli, make_job, capsys):
    job = make_job(1)
    job.set("slow-1")
    waiting = begin(STAND_IN, "build", job.source, "--out", job.out, "--elements", "1")
    job.until(lambda: job.runs(1) == 1)
    there = f"--config.data.shards={job.out}"
    words = ["submit", cli.experiment, there, "--name", "one"]
    assert cli(*words) == 2
    assert "manifest.json" in capsys.readouterr().err
    second = begin(cli.program, *words, "--after", job.out, *cli.to)
    job.until(lambda: (cli.runs / "one" / "launch" / "job.json").exists())
    assert record.read(cli.runs / "one").data == {str(job.out): ""}
    assert not cli.starts("one")
    job.unset("slow-1")
    assert waiting.wait(30) == 0 and second.wait(30) == 0
    assert len(cli.starts("one")) == 1 and progress.result(cli.runs / "one")["exit_code"] == 0
    digest = hashlib.sha256((job.out / "manifest.json").read_bytes()).hexdigest()
    run = cli.runs / "one"
    assert json.loads((run / "launch" / "data.json").read_text())[str(job.out)] == digest
    assert data_pins.pinned(run, record.read(run)) == {str(job.out): digest}


def test_a_run_does_not_train_on_other_shards_than_were_submitted(
    cli, tiny_shards, tmp_path, capsys
):
    shards = tmp_path / "own"
    shutil.copytree(tiny_shards, shards)
    cli.set("slow-first")
    first = begin(cli.program, "submit", cli.experiment, "--name", "first", *cli.to)
    cli.until(lambda: cli.steps("first") == 3)
    words = ["submit", cli.experiment, f"--config.data.shards={shards}", "--name", "one"]
    second = begin(cli.program, *words, "--after", "first", *cli.to)
    cli.until(lambda: (cli.runs / "one" / "launch" / "job.json").exists())
    text = (shards / "manifest.json").read_text()
    (shards / "manifest.json").write_text(text + "\n")
    cli.unset("slow-first")
    assert first.wait(30) == 0 and second.wait(30) == 2 and not cli.starts("one")
    capsys.readouterr()
    assert cli("status", "one") == 0
    out = capsys.readouterr().out
    assert "one: bad input" in out and "`submit.py resume one` accepts it as it is now" in out
    assert cli("resume", "one") == 0
    assert len(cli.starts("one")) == 1


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    """A minute of two people, and one more."""
    folder = tmp_path_factory.mktemp("chain")
    words = ["--subjects", "2", "--unseen", "1", "--minutes", "1", "--workers", "1"]
    command = [sys.executable, "-m", "data_pipeline.demo", "--out", str(folder), *words]
    subprocess.run(command, check=True, cwd=ROOT)
    return folder / "captures"


SMALL = {
    "steps": 6, "optim.warmup_steps": 2, "data.batch_size": 2, "data.window_frames": 32,
    "data.encoder_features": "cached", "model.conv_layers": 1, "model.conv_width": 8,
    "model.recurrent_width": 8, "eval.every_steps": 3, "eval.batches": 1,
}  # fmt: skip


@pytest.mark.slow
def test_captures_to_a_report_are_queued_at_once(
    slurm, captures, tiny_encoder, tmp_path, monkeypatch, capsys
):
    """Five commands in a row, none of which waits: Slurm does."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    shards, runs = tmp_path / "the shards", ["--runs", str(tmp_path / "runs")]
    queue = ["--scheduler", "slurm", "--time", "20"]
    features = f"--config.audio.features=mel,{tiny_encoder}"
    steps = [
        ["build", str(captures), "--out", str(shards), "--elements", "2", "--workers", "1", *queue],
        ["cache", str(shards), "--features", tiny_encoder, "--elements", "2",
         "--after", str(shards), *queue],
        ["submit", str(ROOT / "experiments" / "regression_v2_3.py"), "--name", "one", features,
         f"--config.data.shards={shards}", *(f"--config.{k}={v}" for k, v in SMALL.items()),
         "--after", str(shards / "feature_cache"), "--after", str(shards), *runs, *queue],
        ["run", "report", "--after", "one", *runs, *queue, "--", "a2fjax", "evaluate",
         str(tmp_path / "runs" / "one"), "--quick", "--out", str(tmp_path / "report.json")],
    ]  # fmt: skip
    for words in steps:
        assert submit.main(words) == 0, capsys.readouterr().err
    assert not (shards / "manifest.json").exists()
    one, report = tmp_path / "runs" / "one", tmp_path / "runs" / "report"
    assert record.read(one).data == {str(shards): ""}
    assert wait(report, [report], 0.5) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "report.json").read_text())
    assert progress.result(one)["step"] == 6
    digest = hashlib.sha256((shards / "manifest.json").read_bytes()).hexdigest()
    assert data_pins.pinned(one, record.read(one)) == {str(shards): digest}


@pytest.mark.slow
def test_a_build_that_never_starts_says_so(slurm, make_job, tmp_path, capsys):
    job, queue = make_job(1), ["--scheduler", "slurm", "--time", "20"]
    run, out = [str(STAND_IN)], tmp_path / "second"
    job.set("slow-1")
    job.set("bad-1")
    assert job("build", *queue, "--retries", "0") == 0
    second = ["build", str(job.source), "--out", str(out), "--elements", "1", *queue]
    assert submit.main([*second, "--after", str(job.out)], program=run) == 0
    assert submit.main(["status", str(out)]) == 0
    assert "1 of 1 waiting" in capsys.readouterr().out
    job.until(lambda: job.runs(1) == 1)
    job.unset("slow-1")
    assert submit.main(["wait", str(out), "--poll", "0.2"]) == 1
    assert "never starts" in capsys.readouterr().err
    assert submit.main(["status", str(out)]) == 0
    assert f"`submit.py cancel {out}`" in capsys.readouterr().out
    assert submit.main(["cancel", str(out)]) == 0
    job.unset("bad-1")
    for folder in (job.out, out):
        assert submit.main(["retry", str(folder), "--wait", "--poll", "0.2"]) == 0
    assert (out / "manifest.json").exists()
