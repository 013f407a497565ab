"""A scheduler that a plugin adds in one package: runs, sweeps and arrays work with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = Path(__file__).with_name("background_scheduler")
SCRIPT = """
import sys
from launch import submit
sys.exit(submit.main(sys.argv[2:], program=[sys.argv[1]]))
"""


@pytest.fixture
def command(tmp_path):
    """Runs the command line in a process that finds the plugin as an installed one."""
    site = tmp_path / "site"
    site.mkdir()
    (site / PLUGIN.name).symlink_to(PLUGIN)
    info = site / "background-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: background\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[a2fjax.plugins]\nbackground = background_scheduler\n")

    def call(program, *words, code=0):
        path = os.pathsep.join([str(site), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(program), *map(str, words)], text=True,
            capture_output=True, env={**os.environ, "PYTHONPATH": path}, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.mark.slow
def test_runs_and_sweeps(cli, command):
    def call(*words, code=0):
        return command(cli.program, *words, *cli.to, code=code)

    own = ["--scheduler", "background", "--niceness", "1"]
    assert "--niceness" in call("submit", "--help")
    text = call("submit", cli.experiment, "--name", "dry", *own, "--dry-run")
    assert "nice -n 1" in text
    shown = call("submit", cli.experiment, "--name", "dry", *own, "--dry-run", "--json")
    assert '"scheduler": "background"' in shown
    call("submit", cli.experiment, "--name", "one", *own, "--wait", "--poll", "0.2")
    assert "one: done  step 3/3" in call("status", "one")
    assert "rank 0 starts at 0" in call("logs", "one")
    assert "one: done" in call("list")
    # It returns at once, is seen at work, and stops when it is asked to.
    cli.set("slow-two")
    call("submit", cli.experiment, "--name", "two", "--after", "one", *own)
    cli.until(lambda: cli.steps("two") == 3)
    assert "two: running  step 3/3" in call("status", "two")
    assert "asked 1 to stop" in call("cancel", "two")
    assert "two: cancelled" in call("wait", "two", "--poll", "0.2", code=75) + call("status", "two")
    cli.unset("slow-two")
    call("resume", "two", "--wait", "--poll", "0.2")
    assert [b["step"] for b in cli.starts("two")] == [0, 3]
    cli.set("fail-seed-1")
    sweep = ["--sweep", json.dumps([{"seed": 0}, {"seed": 1}]), "--name", "sw", *own, "--wait"]
    call("submit", cli.experiment, *sweep, "--poll", "0.2", code=1)
    assert "sw: 2 runs: 1 done, 1 failed" in call("status", "sw")
    cli.unset("fail-seed-1")
    call("retry", "sw", "--wait", "--poll", "0.2")
    assert "sw: 2 runs: 2 done" in call("status", "sw")


@pytest.mark.slow
@pytest.mark.slow
def test_arrays(make_job, command, tmp_path):
    job = make_job(3)
    stand_in = Path(__file__).with_name("stand_in.py")

    def call(*words, code=0):
        return command(stand_in, *words, code=code)

    site = tmp_path / "site.toml"
    site.write_text("[background]\nniceness = 2\n")
    build = ["build", job.source, "--out", job.out, "--elements", "3", "--scheduler", "background"]
    assert "nice -n 2" in call(*build, "--profile", site, "--dry-run")
    job.set("slow-2")
    job.set("bad-3")
    call(*build)
    job.until(lambda: job.runs(2) and job.done == [1])
    assert "run or wait" in call(*build, code=2)
    job.until(lambda: "1 of 3 bad input: 3" in call("status", job.out))
    text = call("status", job.out)
    assert "1 of 3 running: 2" in text and "1 of 3 done" in text and "finalize: waiting" in text
    call("cancel", job.out)
    assert "cancelled" in call("wait", job.out, "--poll", "0.2", code=75)
    job.unset("slow-2")
    job.unset("bad-3")
    call("retry", job.out, "--wait", "--poll", "0.2")
    assert "3 of 3 done" in call("status", job.out) and (job.out / "manifest.json").exists()
    assert [job.runs(i) for i in (1, 2, 3)] == [1, 2, 2]
    assert "element 2/3" in call("logs", job.out, "--element", "2")


def test_without_the_plugin_it_is_unknown(cli, capsys):
    assert cli("submit", cli.experiment, "--scheduler", "backgroud") == 2
    err = capsys.readouterr().err
    assert "unknown scheduler 'backgroud'" in err and err.count("\n") == 1


def test_nothing_else_asks_which_scheduler_it_is():
    """Names of schedulers occur in their own packages only."""
    names = ("local", "slurm", "kubernetes")
    for path in (ROOT / "launch").rglob("*.py"):
        if "schedulers" not in path.parts:
            text = path.read_text()
            assert not [n for n in names for q in "'\"" if f"{q}{n}{q}" in text], path
