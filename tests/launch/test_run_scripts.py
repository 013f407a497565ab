"""Slurm scripts of runs without a Slurm, and requeue decisions."""

import dataclasses
import json
import os
import subprocess

from launch.jobs import record, requeue
from launch.jobs.spec import Resources
from launch.schedulers import base
from launch.schedulers.slurm import queue


def script_of(cli, capsys, *arguments):
    words = [
        "submit",
        cli.experiment,
        "--name",
        "s",
        "--scheduler",
        "slurm",
        "--array-limit",
        "100",
    ]
    monkey = base.NotInstalled("no Slurm here")

    def refuse(*_, **__):
        raise monkey

    before, queue.call = queue.call, refuse
    try:
        assert cli(*words, "--dry-run", *arguments) == 0
    finally:
        queue.call = before
    return capsys.readouterr().out.partition("#!/bin/bash")[2]


def test_layouts_and_the_profile(cli, capsys):
    site = cli.folder / "site.toml"
    site.write_text(
        'partition = "h100"\ngpus = 8\ngpu_option = "gres"\ngpu_type = "h100"\ncpus_per_node = 96\n'
        'setup = ["module load cuda"]\nsbatch = ["--exclusive"]\nsrun = ["--cpu-bind=cores"]\n'
        'time = "24h"\nmem = "64G"\nnotice_seconds = 300\n[environment]\nNCCL_X = "it\'s"\n'
    )
    batch = "--config.data.batch_size=16"
    lines = script_of(cli, capsys, "--profile", str(site), "--nodes", "2", batch).splitlines()
    wanted = "nodes=2 ntasks-per-node=1 cpus-per-task=96 gres=gpu:h100:8 partition=h100 time=1440"
    for word in f"{wanted} mem=65536M signal=TERM@300 requeue".split():
        assert f"#SBATCH --{word}" in lines, word
    assert lines.index("module load cuda") < lines.index("set -uo pipefail")
    assert "  --kill-on-bad-exit=1" in lines and "  --ntasks=2" in lines
    assert "  --cpu-bind=cores" in lines and "export A2F_LOCAL_DEVICES=8" in lines
    assert "export NCCL_X='it'\"'\"'s'" in lines
    per = ["--gpus", "4", "--layout", "per-gpu", "--nodes", "2", "--time", "5", batch]
    lines = script_of(cli, capsys, *per).splitlines()
    for word in ("ntasks-per-node=4", "gpus-per-node=4", "time=5"):
        assert f"#SBATCH --{word}" in lines, word
    assert "  --ntasks=8" in lines and "export A2F_LOCAL_DEVICES=1" in lines
    assert not [line for line in lines if "--signal" in line]  # too short for a notice


def test_the_script_runs_the_worker_and_keeps_the_first_exit_code(cli, capsys):
    text = script_of(cli, capsys)
    assert cli("submit", cli.experiment, "--name", "s") == 0
    path = cli.folder / "job.sh"
    path.write_text("#!/bin/bash" + text)
    env = {"PATH": os.environ["PATH"], "A2F_STAND_IN": os.environ["A2F_STAND_IN"]}
    for name, code in ((None, 0), ("fail", 1), ("bad", 2), ("lost", 70)):
        if name:
            cli.set(f"{name}-s")
        done = subprocess.run(["bash", path], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert (cli.runs / "s" / "launch" / "exit").read_text() == f"{code}\n"
        if name:
            cli.unset(f"{name}-s")


# ---- requeue decisions ----------------------------------------------------------------------


def test_requeue_decisions(cli):
    assert cli("submit", cli.experiment, "--name", "one", "--retries", "1") == 0
    run, ranks = cli.runs / "one", cli.runs / "one" / "launch" / "ranks"
    two = dataclasses.replace(record.read(run), resources=Resources(processes=2))

    def judge(code, *codes, **given):
        requeue.clear_ranks(run)
        for rank, value in enumerate(codes):
            text = json.dumps({"rank": rank, "exit_code": value, "unix": 100.0 + rank})
            (ranks / f"{rank}.json").write_text(text)
        options = {"ended": False, "restarts": 0, **given}
        found = requeue.decide(run, two, code, **options)
        return found.code, found.again

    assert judge(0, 0, 0) == (0, False)
    assert judge(75, 75, 75) == (75, True)
    assert judge(75, 1, 75) == (1, False) and judge(75, 2, 75) == (2, False)
    assert judge(75, 75, ended=True) == (75, False)
    assert judge(75, 75, restarts=50) == (75, False) and judge(75, 75, restarts=49) == (75, True)
    assert judge(143) == (143, True)
    (run / "launch" / "failures.json").unlink(missing_ok=True)
    assert judge(137, 70, 137) == (70, True)
    assert judge(137) == (137, False)
    (run / "checkpoints" / "77").mkdir()
    assert judge(137) == (137, True)  # there was progress
    # What is killed because it did not stop in time did not fail.
    assert judge(137, ended=True) == (75, False)
    (run / "launch" / "cancelled").touch()
    assert judge(75, 75) == (75, False) and judge(137) == (75, False) and judge(1) == (1, False)
    assert judge(0) == (0, False)
