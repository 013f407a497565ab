"""Trainings through the command line: pins, errors, and runs on this machine."""

import dataclasses
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from a2fjax import sealed_json
from a2fjax.errors import InputError
from launch import schedulers, submit
from launch.jobs import data_pins, folders, progress
from launch.jobs import record as spec
from launch.jobs.spec import JobSpec
from launch.monitor import rows as table_rows
from launch.monitor import states
from launch.schedulers.local import gpu_locks
from launch.schedulers.slurm import script
from launch.submission import snapshot
from launch.submission import submit as submission

ROOT = Path(__file__).parents[2]
NASTY = 'it\'s $(touch hacked) "x"\n#SBATCH --y `touch hacked`'


def read(path):
    return json.loads(Path(path).read_text())


def exit_codes(run):
    return [e["exit_code"] for e in progress.events(run) if e["event"] == "ended"]


def start(cli, *arguments):
    code = (
        # Tests that run in the background inherit that Ctrl-C is ignored.
        "import signal, sys; from launch import submit\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(submit.main(sys.argv[2:], program=[sys.argv[1]]))"
    )
    argv = [sys.executable, "-c", code, str(cli.program), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        argv, cwd=cli.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


# ---- one run --------------------------------------------------------------------------------


def test_a_run_is_pinned_trained_and_reported(cli, capsys):
    assert cli("submit", cli.experiment, "--name", "one", "--config.steps=4") == 0
    run = cli.runs / "one"
    found, config = spec.read(run), read(run / "launch" / "config.json")
    assert config == found.config and config["config"]["steps"] == 4
    assert config["sources"]["steps"] == "--config.steps" and found.overrides == {"steps": "4"}
    assert found.fingerprint and found.experiment == cli.experiment
    assert found.packages["numpy"] and found.packages["python"]
    assert list(found.data) == [str(cli.shards)] and len(found.data[str(cli.shards)]) == 64
    assert found.git["commit"] and found.snapshot
    (begun,) = cli.starts("one")
    assert begun["code"] == found.code and begun["cwd"] == os.getcwd()
    assert (Path(found.code) / "launch" / "jobs" / "worker.py").is_file()
    assert exit_codes(run) == [0]
    result = read(run / "launch" / "result.json")
    assert result["step"] == 4 and result["metrics"] == {"train/loss": 0.25, "eval/loss": 0.5}
    assert "rank 0 starts at 0" in (run / "launch" / "logs" / "rank-0.log").read_text()
    capsys.readouterr()
    assert cli("status", "one") == 0
    assert "one: done  step 4/4  50 steps/s  eval/loss 0.5" in capsys.readouterr().out
    assert cli("list") == 0
    assert "one: done" in capsys.readouterr().out
    assert cli("logs", "one", "-f") == 0
    assert "rank 0 starts at 0" in capsys.readouterr().out
    assert cli("submit", cli.experiment, "--name", "one") == 2
    assert "submit.py resume one" in capsys.readouterr().err
    assert cli("resume", "one") == 0
    assert "is done" in capsys.readouterr().out
    # More steps are a free key; another width is not.
    (run / "config.json").write_text((run / "launch" / "config.json").read_text())
    assert cli("resume", "one", "--config.steps=6") == 0
    assert [b["step"] for b in cli.starts("one")] == [0, 4]
    assert spec.submission(run).attempt == 2 and spec.read(run).steps == 6
    assert cli("resume", "one", "--config.model.conv_width=16") == 2
    assert "model.conv_width" in capsys.readouterr().err
    assert spec.submission(run).attempt == 2


def test_later_edits_change_nothing_that_was_submitted(cli, capsys):
    code = cli.folder / "code"
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
    first, digest = snapshot.take(cli.runs, code=code)
    assert snapshot.take(cli.runs, code=code) == (first, digest)
    assert snapshot.git_state(code)["dirty"] is False
    names = {str(p.relative_to(first)) for p in Path(first).rglob("*") if not p.is_dir()}
    assert names == {"a.py", "sub/run.sh", "link"}
    assert (
        os.access(Path(first) / "sub" / "run.sh", os.X_OK) and (Path(first) / "link").is_symlink()
    )
    (code / "a.py").write_text("a = 2\n")
    second, _ = snapshot.take(cli.runs, code=code)
    assert second != first and (Path(first) / "a.py").read_text() == "a = 1\n"
    assert snapshot.git_state(code)["dirty"] is True
    # What did not change is one file on disk.
    same = [(Path(p) / "sub" / "run.sh").stat().st_ino for p in (first, second)]
    assert same[0] == same[1]
    plain = cli.folder / "plain"
    plain.mkdir()
    assert snapshot.take(cli.runs, code=plain) == (str(plain), None)
    assert snapshot.git_state(plain) is None


def test_a_run_trains_with_the_code_of_plugins_as_it_was(cli, monkeypatch, capsys):
    package = cli.folder / "site" / "launch_test_plugin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("VALUE = 1\n")
    (package / "part.txt").write_text("data of it\n")
    monkeypatch.syspath_prepend(package.parent)
    words = ["submit", cli.experiment, "--config.plugins=launch_test_plugin"]
    assert cli(*words, "--name", "one") == 0
    first = spec.read(cli.runs / "one")
    (package / "__init__.py").write_text("VALUE = 2\n")
    assert cli(*words, "--name", "two") == 0
    second = spec.read(cli.runs / "two")
    assert first.snapshot != second.snapshot
    for found, text in ((first, "VALUE = 1\n"), (second, "VALUE = 2\n")):
        copied = Path(found.code) / "launch_test_plugin"
        assert (copied / "__init__.py").read_text() == text
        assert sorted(p.name for p in copied.iterdir()) == ["__init__.py", "part.txt"]
    # It comes before what is on PYTHONPATH now.
    code = "import launch_test_plugin as p; print(p.VALUE)"
    environment = {**os.environ, **first.environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.stdout == b"1\n"
    run = cli.runs / "one"
    (run / "config.json").write_text((run / "launch" / "config.json").read_text())
    assert cli("resume", "one", "--config.steps=5") == 0
    assert spec.read(run).snapshot == first.snapshot
    (run / "config.json").write_text((run / "launch" / "config.json").read_text())
    words = ["resume", "one", "--new-code", "--config.steps=6"]
    assert cli(*words) == 2
    assert "plugin 'launch_test_plugin' has other code" in capsys.readouterr().err
    assert cli(*words, "--config.allow_plugin_changes=true") == 0
    assert spec.read(run).snapshot == second.snapshot
    with pytest.raises(InputError, match="no_such_plugin"):
        snapshot.take(cli.runs, plugins=["no_such_plugin"])


def test_runs_of_the_training_command_alone_are_listed_and_compared(cli, capsys):
    assert cli("submit", cli.experiment, "--name", "one") == 0
    config = read(cli.runs / "one" / "launch" / "config.json")
    for name, step in (("complete", 3), ("partial", 2)):
        run = cli.runs / name
        (run / "checkpoints" / str(step)).mkdir(parents=True)
        del config["crc32"]
        config["config"]["seed"] = step
        config = sealed_json.seal(config)
        (run / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert cli("list") == 0
    out = capsys.readouterr().out
    assert "complete: done" in out and "partial: stopped" in out and "one: done" in out
    lock = (cli.runs / "partial" / "lock").open("a")
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert cli("list", "--state", "running") == 0
    assert capsys.readouterr().out.startswith("partial: running")
    lock.close()
    assert cli("diff", "complete", str(cli.runs / "partial")) == 0
    assert "config.seed: 3 -> 2\n" in capsys.readouterr().out
    assert cli("diff", "one", "complete") == 0
    out = capsys.readouterr().out
    assert "config.seed: 0 -> 3\n" in out and "package" not in out
    assert cli("status", "complete") == 2
    (cli.runs / "partial" / "config.json").write_text("{")
    assert cli("diff", "one", "partial") == 2
    assert "partial/config.json: not JSON" in capsys.readouterr().err


def test_words_reach_the_command_unchanged(cli, monkeypatch):
    folder = cli.folder / f"my {NASTY[:30]}"
    folder.mkdir()
    (folder / "set").symlink_to(cli.shards)
    monkeypatch.chdir(folder)
    name = ["--name", "nasty", f"--config.name={NASTY}", "--config.data.shards=set"]
    runs = ["--runs", str(folder / "all 'runs'")]
    assert submit.main(["submit", cli.experiment, *name, *runs], program=cli.program_words) == 0
    run = folder / "all 'runs'" / "nasty"
    assert spec.read(run).config["config"]["name"] == NASTY
    (begun,) = cli.starts("nasty")
    assert begun["argv"][-1] == str(run) and begun["cwd"] == str(folder)
    assert not list(cli.folder.rglob("hacked"))
    words = ["run", "ev", *runs, "--", "a2fjax", "evaluate", NASTY, "--x", "--", "y"]
    assert submit.main(words) in (1, 2)
    assert spec.read(run.with_name("ev")).command[-5:] == ("evaluate", NASTY, "--x", "--", "y")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_saves_and_resume_goes_on(cli, number, tell_again, capsys):
    cli.set("slow-one")
    process = start(cli, "submit", cli.experiment, "--name", "one", *cli.to)
    cli.until(lambda: cli.steps("one") == 3)
    assert cli("status", "one") == 0
    assert "one: running  step 3/3" in capsys.readouterr().out
    assert cli("resume", "one") == 2
    assert "submit.py cancel" in capsys.readouterr().err
    process.send_signal(number)
    if number == signal.SIGTERM:
        tell_again(process)
    assert process.wait(30) == (130 if number == signal.SIGINT else 75), process.stdout.read()
    assert exit_codes(cli.runs / "one") == [75]
    assert cli("status", "one") == 0
    assert "one: stopped" in capsys.readouterr().out
    cli.unset("slow-one")
    assert cli("resume", "one") == 0
    assert [b["step"] for b in cli.starts("one")] == [0, 3]


def test_a_worker_that_is_signalled_twice_ends_with_the_code_of_its_command(cli, tell_again):
    cli.set("slow-one")
    process = start(cli, "submit", cli.experiment, "--name", "one", *cli.to)
    cli.until(lambda: cli.steps("one") == 3)
    tell_again(process)
    run = cli.runs / "one"
    worker = subprocess.Popen(
        [sys.executable, "-m", "launch.jobs.worker", str(run)], cwd=ROOT, env=dict(os.environ)
    )
    cli.until(lambda: len(cli.starts("one")) == 2)
    tell_again(worker)
    assert worker.returncode == 75 and exit_codes(run) == [75, 75]


def test_cancel_from_another_terminal_and_a_killed_worker_takes_its_command_along(cli, capsys):
    cli.set("slow-one")
    process = start(cli, "submit", cli.experiment, "--name", "one", *cli.to, "--retries", "0")
    cli.until(lambda: cli.steps("one") == 3)
    assert cli("cancel", "one") == 0
    assert process.wait(30) == 75
    assert "one: cancelled" in process.stdout.read()
    assert cli("cancel", "one") == 0
    assert "nothing runs" in capsys.readouterr().out
    assert cli("list", "--state", "cancelled") == 0
    assert "one: cancelled" in capsys.readouterr().out
    process = start(cli, "resume", "one", *cli.to)
    cli.until(lambda: len(cli.starts("one")) == 2)
    worker = progress.events(cli.runs / "one")[-1]["pid"]
    os.kill(worker, signal.SIGKILL)
    assert process.wait(30) == 137, process.stdout.read()
    found = subprocess.run(["pgrep", "-f", f"stand_in_training.py.*{cli.runs}"], text=True,
                           capture_output=True)  # fmt: skip
    assert found.stdout == ""


def test_what_is_lost_is_tried_again_a_few_times_and_bad_input_is_not(cli, capsys):
    cli.set("lost-one")
    submitted = ["--retries", "2", "--config.steps=2"]
    assert cli("submit", cli.experiment, "--name", "one", *submitted) == 70
    assert len(cli.starts("one")) == 3
    assert cli("status", "one") == 0
    out = capsys.readouterr().out
    assert "one: failed" in out and "failed 3 times without a new checkpoint" in out
    cli.unset("lost-one")
    cli.set("kill-one")
    assert cli("retry", "one") == 0
    assert len(cli.starts("one")) == 5
    for name, code in (("bad", 2), ("fail", 1)):
        cli.set(f"{name}-{name}")
        assert cli("submit", cli.experiment, "--name", name) == code
        assert len(cli.starts(name)) == 1
    assert cli("logs", "bad") == 0
    assert "error: bad" in capsys.readouterr().out


def test_several_processes_get_coordinator_and_rank(cli):
    two = ["--processes", "2", "--cpu-devices", "2", "--config.data.batch_size=8"]
    assert cli("submit", cli.experiment, "--name", "two", *two) == 0
    a, b = sorted(cli.starts("two"), key=lambda s: s["rank"])
    assert (a["rank"], b["rank"]) == (0, 1)
    assert a["env"]["A2F_COORDINATOR"] == b["env"]["A2F_COORDINATOR"]
    assert a["env"]["A2F_NUM_PROCESSES"] == "2" and a["env"]["A2F_LOCAL_DEVICES"] == "2"
    assert a["env"]["JAX_NUM_CPU_DEVICES"] == "2" and a["env"]["JAX_PLATFORMS"] == "cpu"
    assert (cli.runs / "two" / "launch" / "logs" / "rank-1.log").exists()
    # One fails: the other is stopped, and the run's code is that of the one.
    cli.set("fail-three")
    cli.set("slow-three")
    assert cli("submit", cli.experiment, "--name", "three", *two) == 1
    assert 1 in exit_codes(cli.runs / "three") and 0 not in exit_codes(cli.runs / "three")


def test_gpus_are_held_by_one_run_at_a_time(cli, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    two = ["--gpus", "2", "--processes", "2", "--config.data.batch_size=8"]
    assert cli("submit", cli.experiment, "--name", "two", *two) == 0
    mine = {s["rank"]: s["env"]["CUDA_VISIBLE_DEVICES"] for s in cli.starts("two")}
    assert mine == {0: "3", 1: "5"}
    first = gpu_locks.acquire(cli.runs, 1)
    second = gpu_locks.acquire(cli.runs, 1)
    assert (first.names, second.names) == (["3"], ["5"]) and gpu_locks.acquire(cli.runs, 1) is None
    process = start(cli, "submit", cli.experiment, "--name", "one", "--gpus", "1", *cli.to)
    cli.until(lambda: (cli.runs / "one" / "launch" / "job.json").exists())
    time.sleep(0.5)
    assert cli("status", "one") == 0
    assert "one: waiting" in capsys.readouterr().out
    second.free()
    assert process.wait(30) == 0
    assert cli.starts("one")[0]["env"]["CUDA_VISIBLE_DEVICES"] == "5"
    first.free()
    assert cli("submit", cli.experiment, "--name", "x", "--gpus", "3") == 2
    assert "this machine has 2 (3, 5)" in capsys.readouterr().err


def test_values_of_secrets_are_written_nowhere(cli, monkeypatch):
    planted = secrets.token_hex(16)
    monkeypatch.setenv("SITE_KEY", planted)
    assert cli("submit", cli.experiment, "--name", "one", "--pass", "SITE_KEY") == 0
    assert spec.read(cli.runs / "one").passed == ("SITE_KEY",)
    assert cli.starts("one")[0]["key"] == len(planted)
    found = [p for p in cli.runs.rglob("*") if p.is_file() and planted.encode() in p.read_bytes()]
    assert found == []
    run, run_spec = cli.runs / "one", spec.read(cli.runs / "one")
    options = schedulers.get("slurm").options({}, {}, run_spec.resources, array=None)
    slurm = dataclasses.replace(run_spec, scheduler="slurm", options=options)
    job = submission.run_job(run, cli.runs, [(run, slurm)], None)
    assert planted not in script.of_elements(job)


def test_one_run_after_another(cli, capsys):
    cli.set("fail-first")
    assert cli("submit", cli.experiment, "--name", "first") == 1
    assert cli("submit", cli.experiment, "--name", "next", "--after", "first") == 2
    assert "first is failed" in capsys.readouterr().err
    assert not (cli.runs / "next").exists()
    assert cli("submit", cli.experiment, "--name", "next", "--after", "frist:ok") == 2
    assert "did you mean 'first'?" in capsys.readouterr().err
    assert cli("submit", cli.experiment, "--name", "next", "--after", "first:an") == 2
    assert "did you mean 'any'?" in capsys.readouterr().err
    assert cli("submit", cli.experiment, "--name", "next", "--after", "first:any") == 0
    cli.set("slow-long")
    process = start(cli, "submit", cli.experiment, "--name", "long", *cli.to)
    cli.until(lambda: cli.steps("long") == 3)
    later = start(cli, "submit", cli.experiment, "--name", "later", "--after", "long", *cli.to)
    cli.until(lambda: (cli.runs / "later" / "launch" / "job.json").exists())
    time.sleep(0.5)
    assert cli("status", "later") == 0
    assert "later: waiting" in capsys.readouterr().out and not cli.starts("later")
    cli.unset("slow-long")
    assert process.wait(30) == 0 and later.wait(30) == 0
    assert len(cli.starts("later")) == 1


# ---- sweeps ---------------------------------------------------------------------------------


FOUR = json.dumps([{"seed": i} for i in range(4)] + [{"seed": 0}])


def test_a_sweep_runs_each_trial_once_and_goes_on_past_one_that_fails(cli, capsys):
    cli.set("fail-seed-2")
    words = ["submit", cli.experiment, "--name", "sw", "--sweep", FOUR, "--max-parallel", "2"]
    assert cli(*words) == 1
    names = [f"seed-{i}" for i in range(4)]
    assert [len(cli.starts(n)) for n in names] == [1, 1, 1, 1]
    rows = table_rows.collect(cli.runs / "sw")
    assert [r["state"] for r in rows] == ["done", "done", "failed", "done"]
    assert rows[1]["overrides"] == {"seed": 1} and rows[1]["step"] == rows[1]["steps"] == 3
    assert rows[1]["metrics"]["eval/loss"] == pytest.approx(2 / 3) and rows[1]["seconds"] > 0
    assert spec.read(cli.runs / "sw" / "seed-1").config["config"]["seed"] == 1
    capsys.readouterr()
    assert cli("status", "sw") == 0
    out = capsys.readouterr().out
    assert "sw: 4 runs: 3 done, 1 failed" in out and "seed-2: failed" in out
    assert cli("status", "sw/seed-2") == 0
    assert "error: fail" in capsys.readouterr().out
    assert cli("logs", "sw") == 0
    assert "sw/seed-2" in capsys.readouterr().out
    # Again: nothing runs twice; one more value does; another base is another sweep.
    assert cli(*words) == 0
    assert "4 of 4 runs exist already" in capsys.readouterr().out
    more = json.dumps([{"seed": i} for i in range(5)])
    assert cli("submit", cli.experiment, "--name", "sw", "--sweep", more) == 0
    assert [len(cli.starts(f"seed-{i}")) for i in range(5)] == [1, 1, 1, 1, 1]
    assert cli("submit", cli.experiment, "--name", "sw", "--sweep", FOUR, "--config.steps=9") == 2
    assert "has another configuration" in capsys.readouterr().err
    cli.unset("fail-seed-2")
    assert cli("retry", "sw", "--processes", "3") == 2
    assert "the nearest that can is 3" in capsys.readouterr().err
    assert cli("retry", "sw") == 0
    assert [len(cli.starts(n)) for n in names] == [1, 1, 2, 1]
    assert cli("retry", "sw") == 0
    assert "all is done" in capsys.readouterr().out
    assert cli("diff", "sw/seed-1", "sw/seed-2") == 0
    assert capsys.readouterr().out == "config.seed: 1 -> 2\n"
    # One copy of the code for all.
    assert len([p for p in (cli.runs / ".code").iterdir() if p.name != "files"]) == 1


def test_a_run_can_be_cancelled_after_its_submitting_process_was_killed(cli, capsys):
    cli.set("slow-one")
    process = start(cli, "submit", cli.experiment, "--name", "one", *cli.to)
    cli.until(lambda: cli.steps("one") == 3)
    process.kill()
    process.wait()
    assert cli("status", "one") == 0
    assert "one: running" in capsys.readouterr().out
    assert cli("resume", "one") == 2
    assert cli("cancel", "one") == 0
    run = cli.runs / "one"
    cli.until(lambda: not states.one(run).active)
    assert exit_codes(run) == [75]
    cli.unset("slow-one")
    assert cli("resume", "one") == 0
    assert [b["step"] for b in cli.starts("one")] == [0, 3]


@pytest.mark.slow
def test_concurrent_commands_see_what_the_others_did(cli):
    """The same sweep and the same name from three terminals: nothing runs twice."""
    words = ["submit", cli.experiment, "--name", "sw", "--sweep", FOUR, *cli.to]
    same = [start(cli, *words) for _ in range(3)]
    assert sorted(process.wait(60) for process in same) == [0, 0, 0]
    assert [len(cli.starts(f"seed-{i}")) for i in range(4)] == [1, 1, 1, 1]
    other = [start(cli, "submit", cli.experiment, "--name", "one", *cli.to) for _ in range(3)]
    assert sorted(process.wait(60) for process in other) == [0, 2, 2]
    said = [process.communicate()[0] for process in other if process.returncode]
    assert all("one: exists already; `submit.py resume one`" in text for text in said)
    cli.set("slow-one")
    (cli.runs / "one" / "launch" / "exit").write_text("1\n")
    again = [start(cli, "resume", "one", *cli.to) for _ in range(2)]
    cli.until(lambda: len(cli.starts("one")) == 2)
    time.sleep(1)
    cli.unset("slow-one")
    assert sorted(process.wait(60) for process in again) == [0, 2]
    assert len(cli.starts("one")) == 2
    before = folders.everything(cli.runs)
    unnamed = [start(cli, "submit", cli.experiment, *cli.to) for _ in range(3)]
    assert [process.wait(60) for process in unnamed] == [0, 0, 0]
    assert len(folders.everything(cli.runs)) == len(before) + 3


def test_a_name_that_is_held_for_long_is_reported(cli, monkeypatch, capsys):
    monkeypatch.setattr(folders, "_LOCK_SECONDS", 0.2)
    with folders.exclusive(cli.runs, "one"):
        assert cli("submit", cli.experiment, "--name", "one") == 2
        assert "one: another command has been submitting it" in capsys.readouterr().err
        assert cli("submit", cli.experiment, "--name", "one", "--dry-run") == 0
    assert cli("submit", cli.experiment, "--name", "one") == 0


def test_datasets_that_are_not_here_have_no_digest(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "manifest.json").write_text("{}")
    found = data_pins.digests(["here", "elsewhere"], directory=str(tmp_path))
    assert len(found["here"]) == 64 and found["elsewhere"] == ""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "here" / "manifest.json").unlink()
    (tmp_path / "pipe").rename(tmp_path / "here" / "manifest.json")
    with pytest.raises(InputError, match="named pipe"):
        data_pins.digests(["here"], directory=str(tmp_path))


@pytest.mark.parametrize("plugins", [None, [], {"a": 1}, "text"])
def test_a_record_with_damaged_plugins_is_refused(tmp_path, plugins):
    config = {"config": {"steps": 3}, "sources": {}, "plugins": {}, "fingerprint": "0" * 16}
    config = sealed_json.seal(config)
    written = JobSpec(
        id="one", command=("true",), directory="/", python="python", scheduler="local",
        created="2026-01-01T00:00:00Z", config=config,
    )  # fmt: skip
    spec.write(tmp_path, written)
    assert spec.read(tmp_path) == written
    spec.write(tmp_path, dataclasses.replace(written, config={**config, "plugins": plugins}))
    with pytest.raises(InputError, match="spec.json: damaged .config."):
        spec.read(tmp_path)
