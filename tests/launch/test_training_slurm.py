"""Trainings on a real Slurm: preempted and lost runs go on, cancelled ones do not."""

import json
import os
import secrets
import subprocess
import time

import pytest

from launch.jobs import progress, record
from launch.monitor import rows as table_rows
from launch.monitor import states

pytestmark = pytest.mark.slow
QUICK = ["--wait", "--poll", "0.2"]


def squeue():
    argv = ["squeue", "-h", "-r", "-o", "%F_%K %T"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
def cli(cli, slurm):
    yield cli
    subprocess.run(["scancel", "--full", "-u", str(os.getuid())], timeout=30)
    cli.until(lambda: not squeue().strip(), 60)


def submit(cli, name, *arguments):
    words = ["--name", name, "--scheduler", "slurm", "--time", "20", *arguments]
    return cli("submit", cli.experiment, *words)


def state(cli, name):
    run = cli.runs / name
    return states.one(run).name


def test_every_script_passes_the_scheduler(cli, capsys):
    batch = "--config.data.batch_size=8"
    for words in (
        [],
        ["--nodes", "2", batch],
        ["--nodes", "2", "--processes", "2", batch],
        ["--nodes", "2", "--gpus", "2", batch],
        ["--nodes", "2", "--gpus", "2", "--layout", "per-gpu", batch],
        ["--partition", "urgent", "--cpus", "2", "--mem", "1M"],
    ):
        assert submit(cli, "x", "--dry-run", *words) == 0, words
        assert "to start at" in capsys.readouterr().err
    site = cli.folder / "site.toml"
    site.write_text('gpu_option = "gres"\ngpus = 2\nsbatch = ["--exclusive"]\n')
    assert submit(cli, "x", "--dry-run", "--profile", str(site)) == 0
    assert "to start at" in capsys.readouterr().err
    for words, says in (
        (["--nodes", "5", "--config.data.batch_size=10"], "sbatch refuses"),
        (["--partition", "mian"], "Invalid partition"),
        (["--gpus", "3", "--config.data.batch_size=3"], "sbatch refuses"),
    ):
        assert submit(cli, "x", *words) == 2
        assert says in capsys.readouterr().err
    assert not (cli.runs / "x").exists()


def test_a_higher_partition_takes_the_nodes_and_the_run_goes_on(cli, monkeypatch, capsys):
    planted = secrets.token_hex(16)
    monkeypatch.setenv("SITE_KEY", planted)
    cli.set("slow-pre")
    two = ["--nodes", "2", "--partition", "main", "--config.data.batch_size=4"]
    assert submit(cli, "pre", *two, "--pass", "SITE_KEY") == 0
    cli.until(lambda: cli.steps("pre") == 3 and len(cli.starts("pre")) == 2)
    assert cli("status", "pre") == 0
    assert "pre: running  step 3/3" in capsys.readouterr().out
    assert cli("resume", "pre") == 2
    subprocess.run(["srun", "-p", "urgent", "-N4", "--exclusive", "true"], check=True, timeout=120)
    cli.until(lambda: len(cli.starts("pre")) == 4)
    cli.unset("slow-pre")
    cli.until(lambda: state(cli, "pre") == "done")
    starts = cli.starts("pre")
    assert starts[0]["step"] == 0 and [s["step"] for s in starts[2:]] == [3, 3]
    assert sorted(s["rank"] for s in starts[2:]) == [0, 1]
    assert starts[0]["env"]["A2F_PORT"] != starts[2]["env"]["A2F_PORT"]
    assert all(s["key"] == len(planted) for s in starts)
    ended = [e for e in progress.events(cli.runs / "pre") if e["event"] == "ended"]
    assert sorted(e["exit_code"] for e in ended) == [0, 0, 75, 75]
    found = [p for p in cli.runs.rglob("*") if p.is_file() and planted.encode() in p.read_bytes()]
    assert found == []


def test_a_run_comes_back_no_more_often_than_it_may(cli, capsys):
    cli.set("lost-one")
    assert submit(cli, "one", "--retries", "9", "--max-requeues", "1", *QUICK) == 70
    assert len(cli.starts("one")) == 2
    assert cli("status", "one") == 0
    assert "--max-requeues allows" in capsys.readouterr().out
    cli.unset("lost-one")
    cli.set("kill-one")
    assert cli("resume", "one", *QUICK) == 0
    assert len(cli.starts("one")) == 4
    for name, code in (("bad", 2), ("fail", 1)):
        cli.set(f"{name}-{name}")
        assert submit(cli, name, *QUICK) == code
        assert len(cli.starts(name)) == 1
        assert f"error: {name}" in capsys.readouterr().err


def test_a_sweep_is_one_array_and_one_that_fails_stops_no_other(cli, capsys):
    cli.set("fail-seed-2")
    four = json.dumps([{"seed": i} for i in range(4)])
    two = ["--nodes", "2", "--processes", "2", "--config.data.batch_size=8", "--max-parallel", "2"]
    assert submit(cli, "sw", "--sweep", four, *two, *QUICK) == 1
    runs = record.trials(cli.runs / "sw")
    assert len({record.submission(run).job for run in runs}) == 1
    rows = table_rows.collect(cli.runs / "sw")
    assert [r["state"] for r in rows] == ["done", "done", "failed", "done"]
    for i in (0, 1, 3):
        assert sorted(s["rank"] for s in cli.starts(f"seed-{i}")) == [0, 1, 2, 3]
    assert len({s["env"]["A2F_PORT"] for i in range(4) for s in cli.starts(f"seed-{i}")}) == 4
    capsys.readouterr()
    assert cli("status", "sw") == 0
    assert "sw: 4 runs: 3 done, 1 failed" in capsys.readouterr().out
    cli.unset("fail-seed-2")
    assert cli("retry", "sw", *QUICK) == 0
    before = len(cli.starts("seed-1"))
    assert before == 4 and record.submission(runs[2]).index == 3
    assert submit(cli, "sw", "--sweep", four, *two, *QUICK) == 0
    assert len(cli.starts("seed-1")) == before


@pytest.mark.parametrize("how", ["ours", "scancel"])
def test_what_is_cancelled_stays_so(cli, how, capsys):
    four = json.dumps([{"seed": i} for i in range(4)])
    for i in range(4):
        cli.set(f"slow-seed-{i}")
    assert submit(cli, "sw", "--sweep", four, "--max-parallel", "2") == 0
    cli.until(lambda: cli.steps("sw/seed-0") == 3 and cli.steps("sw/seed-1") == 3)
    if how == "ours":
        assert cli("cancel", "sw/seed-1") == 0
        cli.until(lambda: state(cli, "sw/seed-1") == "cancelled")
        assert state(cli, "sw/seed-0") == "running"
        assert cli("cancel", "sw") == 0
    else:
        subprocess.run(["scancel", record.submission(cli.runs / "sw" / "seed-0").job], check=True)
    cli.until(lambda: not squeue().strip())
    time.sleep(1)
    assert not squeue().strip()
    capsys.readouterr()
    assert cli("status", "sw") == 0
    assert ("cancelled" if how == "ours" else "stopped") in capsys.readouterr().out
    for i in range(4):
        cli.unset(f"slow-seed-{i}")
    assert cli("retry", "sw", *QUICK) == 0
    assert [r["state"] for r in table_rows.collect(cli.runs / "sw")] == ["done"] * 4
    assert cli.starts("seed-0")[-1]["step"] == 3


def test_a_run_waits_for_another_and_reports_when_it_never_starts(cli, capsys):
    cli.set("slow-first")
    cli.set("fail-bad")
    assert submit(cli, "first") == 0
    assert submit(cli, "second", "--after", "first:ok") == 0
    cli.until(lambda: cli.steps("first") == 3)
    assert cli("status", "second") == 0
    out = capsys.readouterr().out
    assert "second: waiting" in out and "waits: Dependency" in out
    cli.unset("slow-first")
    cli.until(lambda: state(cli, "second") == "done")
    cli.set("slow-gate")
    assert submit(cli, "gate") == 0
    assert submit(cli, "bad", "--after", "gate:any") == 0
    assert submit(cli, "never", "--after", "bad:ok") == 0
    assert submit(cli, "always", "--after", "bad:any") == 0
    cli.unset("slow-gate")
    cli.until(lambda: state(cli, "always") == "done")
    assert state(cli, "bad") == "failed"
    capsys.readouterr()

    def says():
        assert cli("status", "never") == 0
        return capsys.readouterr().out

    cli.until(lambda: "never starts" in says())
    assert cli("cancel", "never") == 0
    cli.until(lambda: state(cli, "never") == "cancelled")
    # Another command, chained.
    words = ["run", "report", "--after", "first", "--scheduler", "slurm", "--time", "20", *QUICK]
    from launch import submit as command

    argv = [*words, *cli.to, "--", "a2fjax", "inspect", str(cli.shards)]
    assert command.main(argv) in (0, 1, 2)
    assert record.read(cli.runs / "report").command[-2:] == ("inspect", str(cli.shards))
    assert (cli.runs / "report" / "launch" / "logs" / "rank-0.log").read_text().count("\n") > 1


def test_a_run_survives_the_loss_of_its_node(cli, slurm):
    cli.set("slow-one")
    assert submit(cli, "one") == 0
    cli.until(lambda: cli.steps("one") == 3)
    with slurm(progress.events(cli.runs / "one")[0]["host"]):
        cli.until(lambda: len(cli.starts("one")) == 2, 180)
        cli.unset("slow-one")
        cli.until(lambda: state(cli, "one") == "done")
