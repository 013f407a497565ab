"""Trainings through the desk: what is pinned, what is refused, and runs on this machine."""

import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from a2fjax import errors
from launch import backends, checks, profile, progress, snapshot, spec, status, submit, verdict
from launch.backends import runs_slurm, slots

ROOT = Path(__file__).parents[2]
NASTY = 'it\'s $(touch hacked) "x"\n#SBATCH --y `touch hacked`'


def read(path):
    return json.loads(Path(path).read_text())


def exit_codes(run):
    return [e["exit_code"] for e in progress.events(run) if e["event"] == "ended"]


def start(desk, *arguments):
    code = (
        # Tests that run in the background inherit that Ctrl-C is ignored.
        "import signal, sys; from launch import submit\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(submit.main(sys.argv[2:], program=[sys.argv[1]]))"
    )
    argv = [sys.executable, "-c", code, str(desk.program), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        argv, cwd=desk.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


# ---- one run --------------------------------------------------------------------------------


def test_a_run_is_pinned_trained_and_told_of(desk, capsys):
    assert desk("submit", desk.experiment, "--name", "one", "--config.steps=4") == 0
    run = desk.runs / "one"
    found, config = spec.read(run), read(run / "launch" / "config.json")
    assert config == found.config and config["config"]["steps"] == 4
    assert config["sources"]["steps"] == "--config.steps" and found.overrides == {"steps": "4"}
    assert found.fingerprint and found.experiment == desk.experiment
    assert found.packages["numpy"] and found.packages["python"]
    assert list(found.data) == [str(desk.shards)] and len(found.data[str(desk.shards)]) == 64
    assert found.git["commit"] and found.snapshot
    (begun,) = desk.starts("one")
    assert begun["code"] == found.code and begun["cwd"] == os.getcwd()
    assert (Path(found.code) / "launch" / "worker.py").is_file()
    assert exit_codes(run) == [0]
    result = read(run / "launch" / "result.json")
    assert result["step"] == 4 and result["metrics"] == {"train/loss": 0.25, "eval/loss": 0.5}
    assert "rank 0 starts at 0" in (run / "launch" / "logs" / "rank-0.log").read_text()
    capsys.readouterr()
    assert desk("status", "one") == 0
    assert "one: done  step 4/4  50 steps/s  eval/loss 0.5" in capsys.readouterr().out
    assert desk("list") == 0
    assert "one: done" in capsys.readouterr().out
    assert desk("logs", "one", "-f") == 0
    assert "rank 0 starts at 0" in capsys.readouterr().out
    assert desk("submit", desk.experiment, "--name", "one") == 2
    assert "submit.py resume one" in capsys.readouterr().err
    assert desk("resume", "one") == 0
    assert "is done" in capsys.readouterr().out
    # More steps are a free key; another width is not.
    (run / "config.json").write_text((run / "launch" / "config.json").read_text())
    assert desk("resume", "one", "--config.steps=6") == 0
    assert [b["step"] for b in desk.starts("one")] == [0, 4]
    assert spec.submission(run).attempt == 2 and spec.read(run).steps == 6
    assert desk("resume", "one", "--config.model.conv_width=16") == 2
    assert "model.conv_width" in capsys.readouterr().err
    assert spec.submission(run).attempt == 2


def test_later_edits_change_nothing_that_was_submitted(desk, capsys):
    code = desk.folder / "code"
    (code / "sub").mkdir(parents=True)
    (code / "a.py").write_text("a = 1\n")
    (code / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (code / "sub" / "run.sh").chmod(0o755)
    (code / "link").symlink_to("a.py")
    (code / "untracked").write_text("no")
    environment = {**os.environ, "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b"}
    environment |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    for words in (["init", "-q"], ["add", "a.py", "sub", "link"], ["commit", "-qm", "x"]):
        subprocess.run(["git", "-C", code, *words], check=True, env=environment)
    first, digest = snapshot.take(desk.runs, code=code)
    assert snapshot.take(desk.runs, code=code) == (first, digest)
    assert snapshot.git_state(code)["dirty"] is False
    names = {str(p.relative_to(first)) for p in Path(first).rglob("*") if not p.is_dir()}
    assert names == {"a.py", "sub/run.sh", "link"}
    assert (
        os.access(Path(first) / "sub" / "run.sh", os.X_OK) and (Path(first) / "link").is_symlink()
    )
    (code / "a.py").write_text("a = 2\n")
    second, _ = snapshot.take(desk.runs, code=code)
    assert second != first and (Path(first) / "a.py").read_text() == "a = 1\n"
    assert snapshot.git_state(code)["dirty"] is True
    # What did not change is one file on disk.
    same = [(Path(p) / "sub" / "run.sh").stat().st_ino for p in (first, second)]
    assert same[0] == same[1]
    plain = desk.folder / "plain"
    plain.mkdir()
    assert snapshot.take(desk.runs, code=plain) == (str(plain), None)
    assert snapshot.git_state(plain) is None


def test_words_reach_the_command_as_they_are(desk, monkeypatch):
    folder = desk.folder / f"my {NASTY[:30]}"
    folder.mkdir()
    (folder / "set").symlink_to(desk.shards)
    monkeypatch.chdir(folder)
    name = ["--name", "nasty", f"--config.name={NASTY}", "--config.data.shards=set"]
    runs = ["--runs", str(folder / "all 'runs'")]
    assert submit.main(["submit", desk.experiment, *name, *runs], program=desk.program_words) == 0
    run = folder / "all 'runs'" / "nasty"
    assert spec.read(run).config["config"]["name"] == NASTY
    (begun,) = desk.starts("nasty")
    assert begun["argv"][-1] == str(run) and begun["cwd"] == str(folder)
    assert not list(desk.folder.rglob("hacked"))
    words = ["run", "ev", *runs, "--", "a2fjax", "evaluate", NASTY, "--x", "--", "y"]
    assert submit.main(words) in (1, 2)
    assert spec.read(run.with_name("ev")).command[-5:] == ("evaluate", NASTY, "--x", "--", "y")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_saves_and_resume_goes_on(desk, number, capsys):
    desk.say("slow-one")
    process = start(desk, "submit", desk.experiment, "--name", "one", *desk.to)
    desk.until(lambda: desk.steps("one") == 3)
    assert desk("status", "one") == 0
    assert "one: running  step 3/3" in capsys.readouterr().out
    assert desk("resume", "one") == 2
    assert "submit.py cancel" in capsys.readouterr().err
    process.send_signal(number)
    assert process.wait(30) == (130 if number == signal.SIGINT else 75), process.stdout.read()
    assert exit_codes(desk.runs / "one") == [75]
    assert desk("status", "one") == 0
    assert "one: stopped" in capsys.readouterr().out
    desk.unsay("slow-one")
    assert desk("resume", "one") == 0
    assert [b["step"] for b in desk.starts("one")] == [0, 3]


def test_cancel_from_another_terminal_and_a_killed_worker_takes_its_command_along(desk, capsys):
    desk.say("slow-one")
    process = start(desk, "submit", desk.experiment, "--name", "one", *desk.to, "--retries", "0")
    desk.until(lambda: desk.steps("one") == 3)
    assert desk("cancel", "one") == 0
    assert process.wait(30) == 75
    assert desk("cancel", "one") == 0
    assert "nothing runs" in capsys.readouterr().out
    process = start(desk, "resume", "one", *desk.to)
    desk.until(lambda: len(desk.starts("one")) == 2)
    worker = progress.events(desk.runs / "one")[-1]["pid"]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(30) == 137, process.stdout.read()
    found = subprocess.run(["pgrep", "-f", f"stand_in_training.py.*{desk.runs}"], text=True,
                           capture_output=True)  # fmt: skip
    assert found.stdout == ""


def test_what_is_lost_is_tried_again_a_few_times_and_bad_input_is_not(desk, capsys):
    desk.say("lost-one")
    submitted = ["--retries", "2", "--config.steps=2"]
    assert desk("submit", desk.experiment, "--name", "one", *submitted) == 70
    assert len(desk.starts("one")) == 3
    assert desk("status", "one") == 0
    out = capsys.readouterr().out
    assert "one: failed" in out and "failed 3 times without a new checkpoint" in out
    desk.unsay("lost-one")
    desk.say("kill-one")
    assert desk("retry", "one") == 0
    assert len(desk.starts("one")) == 5
    for name, code in (("bad", 2), ("fail", 1)):
        desk.say(f"{name}-{name}")
        assert desk("submit", desk.experiment, "--name", name) == code
        assert len(desk.starts(name)) == 1
    assert desk("logs", "bad") == 0
    assert "error: bad" in capsys.readouterr().out


def test_several_processes_are_told_of_each_other(desk):
    two = ["--processes", "2", "--cpu-devices", "2", "--config.data.batch_size=8"]
    assert desk("submit", desk.experiment, "--name", "two", *two) == 0
    a, b = sorted(desk.starts("two"), key=lambda s: s["rank"])
    assert (a["rank"], b["rank"]) == (0, 1)
    assert a["env"]["A2F_COORDINATOR"] == b["env"]["A2F_COORDINATOR"]
    assert a["env"]["A2F_NUM_PROCESSES"] == "2" and a["env"]["A2F_LOCAL_DEVICES"] == "2"
    assert a["env"]["JAX_NUM_CPU_DEVICES"] == "2" and a["env"]["JAX_PLATFORMS"] == "cpu"
    assert (desk.runs / "two" / "launch" / "logs" / "rank-1.log").exists()
    # One fails: the other is stopped, and the run's code is that of the one.
    desk.say("fail-three")
    desk.say("slow-three")
    assert desk("submit", desk.experiment, "--name", "three", *two) == 1
    assert 1 in exit_codes(desk.runs / "three") and 0 not in exit_codes(desk.runs / "three")


def test_gpus_are_held_by_one_run_at_a_time(desk, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    two = ["--gpus", "2", "--processes", "2", "--config.data.batch_size=8"]
    assert desk("submit", desk.experiment, "--name", "two", *two) == 0
    mine = {s["rank"]: s["env"]["CUDA_VISIBLE_DEVICES"] for s in desk.starts("two")}
    assert mine == {0: "3", 1: "5"}
    first = slots.take(desk.runs, 1)
    second = slots.take(desk.runs, 1)
    assert (first.names, second.names) == (["3"], ["5"]) and slots.take(desk.runs, 1) is None
    process = start(desk, "submit", desk.experiment, "--name", "one", "--gpus", "1", *desk.to)
    desk.until(lambda: (desk.runs / "one" / "launch" / "job.json").exists())
    time.sleep(0.5)
    assert desk("status", "one") == 0
    assert "one: waiting" in capsys.readouterr().out
    second.free()
    assert process.wait(30) == 0
    assert desk.starts("one")[0]["env"]["CUDA_VISIBLE_DEVICES"] == "5"
    first.free()
    assert desk("submit", desk.experiment, "--name", "x", "--gpus", "3") == 2
    assert "this machine has 2 (3, 5)" in capsys.readouterr().err


def test_values_of_secrets_are_written_nowhere(desk, monkeypatch):
    planted = secrets.token_hex(16)
    monkeypatch.setenv("SITE_KEY", planted)
    assert desk("submit", desk.experiment, "--name", "one", "--pass", "SITE_KEY") == 0
    assert spec.read(desk.runs / "one").passed == ("SITE_KEY",)
    assert desk.starts("one")[0]["key"] == len(planted)
    found = [p for p in desk.runs.rglob("*") if p.is_file() and planted.encode() in p.read_bytes()]
    assert found == []
    run, run_spec = desk.runs / "one", spec.read(desk.runs / "one")
    options = runs_slurm.options({}, {})
    slurm = dataclasses.replace(run_spec, options={**options, "max_parallel": None})
    assert planted not in runs_slurm.script(run, [(run, slurm)], ())


def test_one_run_after_another(desk, capsys):
    desk.say("fail-first")
    assert desk("submit", desk.experiment, "--name", "first") == 1
    assert desk("submit", desk.experiment, "--name", "next", "--after", "first") == 2
    assert "first is failed" in capsys.readouterr().err
    assert not (desk.runs / "next").exists()
    assert desk("submit", desk.experiment, "--name", "next", "--after", "frist:ok") == 2
    assert "did you mean 'first'?" in capsys.readouterr().err
    assert desk("submit", desk.experiment, "--name", "next", "--after", "first:an") == 2
    assert "did you mean 'any'?" in capsys.readouterr().err
    assert desk("submit", desk.experiment, "--name", "next", "--after", "first:any") == 0
    desk.say("slow-long")
    process = start(desk, "submit", desk.experiment, "--name", "long", *desk.to)
    desk.until(lambda: desk.steps("long") == 3)
    later = start(desk, "submit", desk.experiment, "--name", "later", "--after", "long", *desk.to)
    desk.until(lambda: (desk.runs / "later" / "launch" / "job.json").exists())
    time.sleep(0.5)
    assert desk("status", "later") == 0
    assert "later: waiting" in capsys.readouterr().out and not desk.starts("later")
    desk.unsay("slow-long")
    assert process.wait(30) == 0 and later.wait(30) == 0
    assert len(desk.starts("later")) == 1


# ---- sweeps ---------------------------------------------------------------------------------


FOUR = json.dumps([{"seed": i} for i in range(4)] + [{"seed": 0}])


def test_a_sweep_runs_each_trial_once_and_goes_on_past_one_that_fails(desk, capsys):
    desk.say("fail-seed-2")
    words = ["submit", desk.experiment, "--name", "sw", "--sweep", FOUR, "--max-parallel", "2"]
    assert desk(*words) == 1
    names = [f"seed-{i}" for i in range(4)]
    assert [len(desk.starts(n)) for n in names] == [1, 1, 1, 1]
    rows = status.collect(desk.runs / "sw")
    assert [r["state"] for r in rows] == ["done", "done", "failed", "done"]
    assert rows[1]["overrides"] == {"seed": 1} and rows[1]["step"] == rows[1]["steps"] == 3
    assert rows[1]["metrics"]["eval/loss"] == pytest.approx(2 / 3) and rows[1]["seconds"] > 0
    assert spec.read(desk.runs / "sw" / "seed-1").config["config"]["seed"] == 1
    capsys.readouterr()
    assert desk("status", "sw") == 0
    out = capsys.readouterr().out
    assert "sw: 4 runs: 3 done, 1 failed" in out and "seed-2: failed" in out
    assert desk("status", "sw/seed-2") == 0
    assert "error: fail" in capsys.readouterr().out
    assert desk("logs", "sw") == 0
    assert "sw/seed-2" in capsys.readouterr().out
    # Again: nothing runs twice; one more value does; another base is another sweep.
    assert desk(*words) == 0
    assert "4 of 4 runs are there" in capsys.readouterr().out
    more = json.dumps([{"seed": i} for i in range(5)])
    assert desk("submit", desk.experiment, "--name", "sw", "--sweep", more) == 0
    assert [len(desk.starts(f"seed-{i}")) for i in range(5)] == [1, 1, 1, 1, 1]
    assert desk("submit", desk.experiment, "--name", "sw", "--sweep", FOUR, "--config.steps=9") == 2
    assert "of another configuration" in capsys.readouterr().err
    desk.unsay("fail-seed-2")
    assert desk("retry", "sw", "--processes", "3") == 2
    assert "the nearest that can is 3" in capsys.readouterr().err
    assert desk("retry", "sw") == 0
    assert [len(desk.starts(n)) for n in names] == [1, 1, 2, 1]
    assert desk("retry", "sw") == 0
    assert "all is done" in capsys.readouterr().out
    assert desk("diff", "sw/seed-1", "sw/seed-2") == 0
    assert capsys.readouterr().out == "config.seed: 1 -> 2\n"
    # One copy of the code for all.
    assert len([p for p in (desk.runs / ".code").iterdir() if p.name != "files"]) == 1


# ---- what the desk refuses ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.sed=1"], "did you mean 'seed'?"),
        (["--backend", "slrum"], "did you mean 'slurm'?"),
        (["--config.data.batch_size=6", "--processes", "4"], "the nearest that can is 8"),
        (["--config.mesh.fsdp=3", "--cpu-devices", "4"], "the nearest that does is 2"),
        (["--config.mesh.data=8"], "leave mesh.data=-1"),
        (["--config.accumulate=3"], "in 3 parts"),
        (["--config.data.split=trian"], "did you mean 'train'?"),
        (["--config.data.shards=none"], "none does not exist"),
        (["--config.init_from=none"], "init_from='none'"),
        (["--nodes", "2"], "--nodes: is for --backend slurm or kubernetes"),
        (["--time", "1:00"], "--time: is for --backend slurm"),
        (["--backend", "slurm", "--time", "soon"], "--time soon: expected"),
        (["--backend", "slurm", "--nodes", "0"], "--nodes 0: expected 1 or more"),
        (["--backend", "slurm", "--layout", "per-gpus", "--gpus", "2"], "'per-gpu'"),
        (["--backend", "slurm", "--layout", "per-gpu"], "needs --gpus"),
        (["--backend", "slurm", "--gpus", "8", "--processes", "3"], "below that does is 2"),
        (["--gpus", "9"], "this machine has"),
        (["--name", "../x"], "--name '../x'"),
        (["--pass", "a b"], "--pass 'a b'"),
        (["--profile", "none.toml"], "none.toml"),
        (["--python", "no-python"], "--python no-python"),
        (["--max-requeues", "-1"], "--max-requeues -1"),
        (["--bogus", "1"], "--bogus"),
        (["--poll", "-1"], "--poll -1: expected seconds"),
        (["--poll", "nan"], "--poll nan: expected seconds"),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(desk, capsys, monkeypatch, arguments, says):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    # Who works on this project has files of their own beside it, which is remarked on.
    monkeypatch.setattr(snapshot, "untracked", lambda: [])
    assert desk("submit", desk.experiment, *arguments) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not [p for p in desk.runs.glob("*")] or "--python" in arguments


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('partitoin = "x"', "did you mean 'partition'?"),
        ("partition = 3", "expected a string"),
        ('gpus = "8"', "expected a whole number"),
        ("gpus = true", "expected a whole number"),
        ('setup = "module load x"', "expected a list of strings"),
        ('layout = "per-gpus"', "did you mean 'per-gpu'?"),
        ('[environment]\nWANDB_API_KEY = "x"', 'pass = ["WANDB_API_KEY"]'),
        ('[environment]\n"A B" = "x"', "expected a variable"),
        ("= 3", "not TOML"),
    ],
)
def test_wrong_profiles_are_one_line(desk, capsys, text, says):
    file = desk.folder / "site.toml"
    file.write_text(text)
    words = ["--profile", str(file), "--backend", "slurm"]
    assert desk("submit", desk.experiment, *words) == 2
    err = capsys.readouterr().err
    assert says in err and "site.toml" in err and err.count("\n") == 1
    assert profile.read(None) == {}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x"], "expected a command behind --"),
        (["x", "--", "ls"], "expected a command behind --"),
        (["x", "--", "a2fjax", "evalute", "r"], "did you mean 'evaluate'?"),
        (["x", "--", "a2fjax", "train"], "submit.py submit"),
        (["x y", "--", "a2fjax", "evaluate", "r"], "NAME 'x y'"),
    ],
)
def test_wrong_commands_are_one_line(desk, capsys, words, says):
    assert submit.main(["run", *words, *[]]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["spec.json", "job.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 9}', "\0"])
def test_a_damaged_file_is_named(desk, capsys, name, text):
    assert desk("submit", desk.experiment, "--name", "one") == 0
    (desk.runs / "one" / "launch" / name).write_text(text)
    capsys.readouterr()
    assert desk("status", "one") == 2
    err = capsys.readouterr().err
    assert name in err and err.count("\n") == 1


def test_unknown_runs_are_named(desk, capsys):
    assert desk("submit", desk.experiment, "--name", "one") == 0
    capsys.readouterr()
    for words in (["resume", "onee"], ["diff", "one", "onee"], ["status", "onee"]):
        assert desk(*words) == 2
        assert "did you mean 'one'?" in capsys.readouterr().err
    assert desk("list", "--state", "runing") == 2
    assert "did you mean 'running'?" in capsys.readouterr().err
    assert desk("finish", "one") == 2
    assert "ends by itself" in capsys.readouterr().err
    (desk.folder / "some").mkdir()
    for words in (["retry", "--nodes", "2"], ["logs", "--rank", "1"], ["logs", "-f"]):
        assert desk(words[0], str(desk.folder / "some"), *words[1:]) == 2
        assert "is for runs and sweeps" in capsys.readouterr().err
    assert desk("logs", "one", "--rank", "7") == 2
    assert "--rank 7: one has 0" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(desk, capsys):
    dry = ["--dry-run", "--name", "dry", "--backend", "slurm", "--nodes", "2", "--gpus", "4"]
    assert desk("submit", desk.experiment, *dry, "--config.data.batch_size=8") == 0
    out = capsys.readouterr().out
    assert '"id": "dry"' in out and "#SBATCH --gpus-per-node=4" in out
    assert "sbatch --test-only" in out or "to start at" in out or "refuses" in out
    assert not desk.runs.exists()


# ---- Slurm's script without Slurm -----------------------------------------------------------


def script_of(desk, capsys, *arguments):
    words = ["submit", desk.experiment, "--name", "s", "--backend", "slurm", "--array-limit", "100"]
    monkey = backends.NotInstalled("no Slurm here")

    def refuse(*_, **__):
        raise monkey

    before, runs_slurm.call = runs_slurm.call, refuse
    try:
        assert desk(*words, "--dry-run", *arguments) == 0
    finally:
        runs_slurm.call = before
    return capsys.readouterr().out.partition("#!/bin/bash")[2]


def test_layouts_and_the_profile(desk, capsys):
    site = desk.folder / "site.toml"
    site.write_text(
        'partition = "h100"\ngpus = 8\ngpu_option = "gres"\ngpu_type = "h100"\ncpus_per_node = 96\n'
        'setup = ["module load cuda"]\nsbatch = ["--exclusive"]\nsrun = ["--cpu-bind=cores"]\n'
        'time = "24h"\nmem = "64G"\nnotice_seconds = 300\n[environment]\nNCCL_X = "it\'s"\n'
    )
    batch = "--config.data.batch_size=16"
    lines = script_of(desk, capsys, "--profile", str(site), "--nodes", "2", batch).splitlines()
    wanted = "nodes=2 ntasks-per-node=1 cpus-per-task=96 gres=gpu:h100:8 partition=h100 time=1440"
    for word in f"{wanted} mem=65536M signal=TERM@300 requeue".split():
        assert f"#SBATCH --{word}" in lines, word
    assert lines.index("module load cuda") < lines.index("set -uo pipefail")
    assert "  --kill-on-bad-exit=1" in lines and "  --ntasks=2" in lines
    assert "  --cpu-bind=cores" in lines and "export A2F_LOCAL_DEVICES=8" in lines
    assert "export NCCL_X='it'\"'\"'s'" in lines
    per = ["--gpus", "4", "--layout", "per-gpu", "--nodes", "2", "--time", "5", batch]
    lines = script_of(desk, capsys, *per).splitlines()
    for word in ("ntasks-per-node=4", "gpus-per-node=4", "time=5"):
        assert f"#SBATCH --{word}" in lines, word
    assert "  --ntasks=8" in lines and "export A2F_LOCAL_DEVICES=1" in lines
    assert not [line for line in lines if "--signal" in line]  # too short to be told in time


def test_the_script_runs_the_worker_and_keeps_the_first_exit_code(desk, capsys):
    text = script_of(desk, capsys)
    assert desk("submit", desk.experiment, "--name", "s") == 0
    path = desk.folder / "job.sh"
    path.write_text("#!/bin/bash" + text)
    env = {"PATH": os.environ["PATH"], "A2F_STAND_IN": os.environ["A2F_STAND_IN"]}
    for name, code in ((None, 0), ("fail", 1), ("bad", 2), ("lost", 70)):
        if name:
            desk.say(f"{name}-s")
        done = subprocess.run(["bash", path], env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert (desk.runs / "s" / "launch" / "exit").read_text() == f"{code}\n"
        if name:
            desk.unsay(f"{name}-s")


# ---- verdicts -------------------------------------------------------------------------------


def test_verdicts(desk):
    assert desk("submit", desk.experiment, "--name", "one", "--retries", "1") == 0
    run, ranks = desk.runs / "one", desk.runs / "one" / "launch" / "ranks"
    two = dataclasses.replace(spec.read(run), resources=spec.Resources(processes=2))

    def judge(code, *codes, **given):
        verdict.clear_ranks(run)
        for rank, value in enumerate(codes):
            text = json.dumps({"rank": rank, "exit_code": value, "unix": 100.0 + rank})
            (ranks / f"{rank}.json").write_text(text)
        options = {"ended": False, "restarts": 0, **given}
        found = verdict.decide(run, two, code, **options)
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
    (run / "launch" / "cancelled").touch()
    assert judge(75, 75) == (75, False)


def test_times():
    assert [checks.minutes(t) for t in ("90m", "24h", "2d", "1-0", "0:30", "5")] == [
        90, 1440, 2880, 1440, 1, 5,
    ]  # fmt: skip
    for text in ("0", "soon", "1.5h", "-1"):
        with pytest.raises(errors.InputError, match="--time"):
            checks.minutes(text)


def test_the_desk_needs_no_jax(desk, tmp_path):
    code = (
        "import sys; from launch import submit\n"
        f"argv = ['submit', {desk.experiment!r}, '--runs', {str(tmp_path / 'r')!r}, '--dry-run',\n"
        f"        '--config.data.shards={desk.shards}']\n"
        "assert submit.main(argv) == 0\n"
        "print([n for n in ('jax', 'flax', 'scipy', 'grain') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_killed_desk_leaves_a_run_that_can_be_cancelled(desk, capsys):
    desk.say("slow-one")
    process = start(desk, "submit", desk.experiment, "--name", "one", *desk.to)
    desk.until(lambda: desk.steps("one") == 3)
    process.kill()
    process.wait()
    assert desk("status", "one") == 0
    assert "one: running" in capsys.readouterr().out
    assert desk("resume", "one") == 2
    assert desk("cancel", "one") == 0
    run = desk.runs / "one"
    desk.until(lambda: not status.states([run])[run].active)
    assert exit_codes(run) == [75]
    desk.unsay("slow-one")
    assert desk("resume", "one") == 0
    assert [b["step"] for b in desk.starts("one")] == [0, 3]


def test_what_does_not_compile_is_told_before_anything_is_written(desk, capsys):
    python = desk.folder / "python"
    python.write_text("#!/bin/sh\necho a2fjax inspect: error: needs 90 GB >&2\nexit 2\n")
    python.chmod(0o755)
    words = ["--check-compile", "--python", str(python)]
    assert desk("submit", desk.experiment, *words) == 2
    assert "--check-compile: a2fjax inspect: error: needs 90 GB" in capsys.readouterr().err
    assert not desk.runs.exists()


def test_kubernetes_is_asked_of_its_module(desk, monkeypatch, capsys):
    module = types.ModuleType("launch.backends.jobset")
    module.OPTIONS = {"image", "namespace", "queue", "volume", "cpus", "mem"}
    module.JobSetRun = types.SimpleNamespace
    module.options = lambda given: dict(given)
    module.render = lambda run, options: f"kind: JobSet # {run.name} {run.nodes} {options}"
    monkeypatch.setitem(sys.modules, "launch.backends.jobset", module)
    words = ["--name", "k", "--backend", "kubernetes", "--image", "x", "--nodes", "2"]
    assert desk("submit", desk.experiment, *words, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "kind: JobSet # a2f-k-" in out and " 2 {'image': 'x'}" in out
    program = desk.folder / "bin" / "kubectl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>"{desk.folder}/calls"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert desk("submit", desk.experiment, *words) == 0
    assert spec.submission(desk.runs / "k").job.startswith("a2f-k-")
    assert desk("status", "k") == 0
    assert "k: lost" in capsys.readouterr().out  # kubectl found no such JobSet
    assert desk("submit", desk.experiment, *words, "--config.data.shards=x", "--name", "l") == 2
    assert "absolute path inside the containers" in capsys.readouterr().err
    calls = (desk.folder / "calls").read_text().splitlines()
    assert calls[0].startswith("apply -f ") and calls[1].startswith("get jobset a2f-k-")
