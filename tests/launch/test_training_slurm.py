"""Trainings on a real Slurm: what is preempted or lost goes on, what is cancelled does not."""

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
def desk(desk, slurm):
    yield desk
    subprocess.run(["scancel", "--full", "-u", str(os.getuid())], timeout=30)
    desk.until(lambda: not squeue().strip(), 60)


def submit(desk, name, *arguments):
    words = ["--name", name, "--scheduler", "slurm", "--time", "20", *arguments]
    return desk("submit", desk.experiment, *words)


def state(desk, name):
    run = desk.runs / name
    return states.one(run).name


def test_every_script_passes_the_scheduler(desk, capsys):
    batch = "--config.data.batch_size=8"
    for words in (
        [],
        ["--nodes", "2", batch],
        ["--nodes", "2", "--processes", "2", batch],
        ["--nodes", "2", "--gpus", "2", batch],
        ["--nodes", "2", "--gpus", "2", "--layout", "per-gpu", batch],
        ["--partition", "urgent", "--cpus", "2", "--mem", "1M"],
    ):
        assert submit(desk, "x", "--dry-run", *words) == 0, words
        assert "to start at" in capsys.readouterr().out
    site = desk.folder / "site.toml"
    site.write_text('gpu_option = "gres"\ngpus = 2\nsbatch = ["--exclusive"]\n')
    assert submit(desk, "x", "--dry-run", "--profile", str(site)) == 0
    assert "to start at" in capsys.readouterr().out
    for words, says in (
        (["--nodes", "5", "--config.data.batch_size=10"], "sbatch refuses"),
        (["--partition", "mian"], "Invalid partition"),
        (["--gpus", "3", "--config.data.batch_size=3"], "sbatch refuses"),
    ):
        assert submit(desk, "x", *words) == 2
        assert says in capsys.readouterr().err
    assert not (desk.runs / "x").exists()


def test_a_higher_partition_takes_the_nodes_and_the_run_goes_on(desk, monkeypatch, capsys):
    planted = secrets.token_hex(16)
    monkeypatch.setenv("SITE_KEY", planted)
    desk.say("slow-pre")
    two = ["--nodes", "2", "--partition", "main", "--config.data.batch_size=4"]
    assert submit(desk, "pre", *two, "--pass", "SITE_KEY") == 0
    desk.until(lambda: desk.steps("pre") == 3 and len(desk.starts("pre")) == 2)
    assert desk("status", "pre") == 0
    assert "pre: running  step 3/3" in capsys.readouterr().out
    assert desk("resume", "pre") == 2
    subprocess.run(["srun", "-p", "urgent", "-N4", "--exclusive", "true"], check=True, timeout=120)
    desk.until(lambda: len(desk.starts("pre")) == 4)
    desk.unsay("slow-pre")
    desk.until(lambda: state(desk, "pre") == "done")
    starts = desk.starts("pre")
    assert starts[0]["step"] == 0 and [s["step"] for s in starts[2:]] == [3, 3]
    assert sorted(s["rank"] for s in starts[2:]) == [0, 1]
    assert starts[0]["env"]["A2F_PORT"] != starts[2]["env"]["A2F_PORT"]
    assert all(s["key"] == len(planted) for s in starts)
    ended = [e for e in progress.events(desk.runs / "pre") if e["event"] == "ended"]
    assert sorted(e["exit_code"] for e in ended) == [0, 0, 75, 75]
    found = [p for p in desk.runs.rglob("*") if p.is_file() and planted.encode() in p.read_bytes()]
    assert found == []


def test_a_run_comes_back_no_more_often_than_it_may(desk, capsys):
    desk.say("lost-one")
    assert submit(desk, "one", "--retries", "9", "--max-requeues", "1", *QUICK) == 70
    assert len(desk.starts("one")) == 2
    assert desk("status", "one") == 0
    assert "--max-requeues allows" in capsys.readouterr().out
    desk.unsay("lost-one")
    desk.say("kill-one")
    assert desk("resume", "one", *QUICK) == 0
    assert len(desk.starts("one")) == 4
    for name, code in (("bad", 2), ("fail", 1)):
        desk.say(f"{name}-{name}")
        assert submit(desk, name, *QUICK) == code
        assert len(desk.starts(name)) == 1
        assert f"error: {name}" in capsys.readouterr().err


def test_a_sweep_is_one_array_and_one_that_fails_stops_no_other(desk, capsys):
    desk.say("fail-seed-2")
    four = json.dumps([{"seed": i} for i in range(4)])
    two = ["--nodes", "2", "--processes", "2", "--config.data.batch_size=8", "--max-parallel", "2"]
    assert submit(desk, "sw", "--sweep", four, *two, *QUICK) == 1
    runs = record.trials(desk.runs / "sw")
    assert len({record.submission(run).job for run in runs}) == 1
    rows = table_rows.collect(desk.runs / "sw")
    assert [r["state"] for r in rows] == ["done", "done", "failed", "done"]
    for i in (0, 1, 3):
        assert sorted(s["rank"] for s in desk.starts(f"seed-{i}")) == [0, 1, 2, 3]
    assert len({s["env"]["A2F_PORT"] for i in range(4) for s in desk.starts(f"seed-{i}")}) == 4
    capsys.readouterr()
    assert desk("status", "sw") == 0
    assert "sw: 4 runs: 3 done, 1 failed" in capsys.readouterr().out
    desk.unsay("fail-seed-2")
    assert desk("retry", "sw", *QUICK) == 0
    before = len(desk.starts("seed-1"))
    assert before == 4 and record.submission(runs[2]).index == 3
    assert submit(desk, "sw", "--sweep", four, *two, *QUICK) == 0
    assert len(desk.starts("seed-1")) == before


@pytest.mark.parametrize("how", ["ours", "scancel"])
def test_what_is_cancelled_stays_so(desk, how, capsys):
    four = json.dumps([{"seed": i} for i in range(4)])
    for i in range(4):
        desk.say(f"slow-seed-{i}")
    assert submit(desk, "sw", "--sweep", four, "--max-parallel", "2") == 0
    desk.until(lambda: desk.steps("sw/seed-0") == 3 and desk.steps("sw/seed-1") == 3)
    if how == "ours":
        assert desk("cancel", "sw/seed-1") == 0
        desk.until(lambda: state(desk, "sw/seed-1") == "stopped")
        assert state(desk, "sw/seed-0") == "running"
        assert desk("cancel", "sw") == 0
    else:
        subprocess.run(["scancel", record.submission(desk.runs / "sw" / "seed-0").job], check=True)
    desk.until(lambda: not squeue().strip())
    time.sleep(1)
    assert not squeue().strip()
    capsys.readouterr()
    assert desk("status", "sw") == 0
    assert "stopped" in capsys.readouterr().out
    for i in range(4):
        desk.unsay(f"slow-seed-{i}")
    assert desk("retry", "sw", *QUICK) == 0
    assert [r["state"] for r in table_rows.collect(desk.runs / "sw")] == ["done"] * 4
    assert desk.starts("seed-0")[-1]["step"] == 3


def test_a_run_waits_for_another_and_says_when_in_vain(desk, capsys):
    desk.say("slow-first")
    desk.say("fail-bad")
    assert submit(desk, "first") == 0
    assert submit(desk, "second", "--after", "first:ok") == 0
    desk.until(lambda: desk.steps("first") == 3)
    assert desk("status", "second") == 0
    out = capsys.readouterr().out
    assert "second: waiting" in out and "waits: Dependency" in out
    desk.unsay("slow-first")
    desk.until(lambda: state(desk, "second") == "done")
    desk.say("slow-gate")
    assert submit(desk, "gate") == 0
    assert submit(desk, "bad", "--after", "gate:any") == 0
    assert submit(desk, "never", "--after", "bad:ok") == 0
    assert submit(desk, "always", "--after", "bad:any") == 0
    desk.unsay("slow-gate")
    desk.until(lambda: state(desk, "always") == "done")
    assert state(desk, "bad") == "failed"
    capsys.readouterr()

    def says():
        assert desk("status", "never") == 0
        return capsys.readouterr().out

    desk.until(lambda: "never starts" in says())
    assert desk("cancel", "never") == 0
    desk.until(lambda: state(desk, "never") == "stopped")
    # Another command, chained.
    words = ["run", "report", "--after", "first", "--scheduler", "slurm", "--time", "20", *QUICK]
    from launch import submit as command

    argv = [*words, *desk.to, "--", "a2fjax", "inspect", str(desk.shards)]
    assert command.main(argv) in (0, 1, 2)
    assert record.read(desk.runs / "report").command[-2:] == ("inspect", str(desk.shards))
    assert (desk.runs / "report" / "launch" / "logs" / "rank-0.log").read_text().count("\n") > 1


def test_a_node_that_dies_takes_nothing_along(desk, slurm):
    desk.say("slow-one")
    assert submit(desk, "one") == 0
    desk.until(lambda: desk.steps("one") == 3)
    with slurm(progress.events(desk.runs / "one")[0]["host"]):
        desk.until(lambda: len(desk.starts("one")) == 2, 180)
        desk.unsay("slow-one")
        desk.until(lambda: state(desk, "one") == "done")
