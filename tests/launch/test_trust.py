"""Shared folders hold data: they name no process, no file elsewhere, and stop no list."""

import dataclasses
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys

import pytest

from a2fjax import sealed_json
from a2fjax.errors import InputError
from launch import schedulers, submit
from launch.jobs import outcome, processes, progress, record, worker
from launch.jobs.record import Submission
from launch.jobs.spec import JobSpec, Resources
from launch.monitor import listing, table
from launch.schedulers.local import executor, scheduler
from launch.schedulers.slurm import script
from launch.submission import secrecy
from launch.submission import submit as submission


def make_spec(name="one", **values):
    given = {
        "id": name, "command": (sys.executable, "-c", ""), "directory": "/",
        "python": sys.executable, "scheduler": "local", "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return JobSpec(**{**given, **values})


def make_run(folder, **values):
    record.write(folder, make_spec(folder.name, **values))
    record.write_submission(
        folder,
        Submission(scheduler="local", job="elsewhere/1-2-x", index=None, attempt=1, time="t"),
    )
    return folder


@pytest.fixture
def sleeper():
    code = "import time; print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, "a-word"], stdout=subprocess.PIPE)
    process.stdout.readline()  # Just after it starts, the kernel does not show its command yet.
    yield process
    process.stdout.close()
    process.kill()
    process.wait()


def test_only_the_process_that_was_meant_is_stopped(sleeper):
    start = processes.started(sleeper.pid)
    assert processes.is_alive(sleeper.pid, start) and processes.started(os.getpid()) != start
    for pid, begun, word in (
        (sleeper.pid, "1", "a-word"),
        (sleeper.pid, None, "a-word"),
        (sleeper.pid, start, "word"),
        (str(sleeper.pid), start, "a-word"),
    ):
        assert not processes.terminate(pid, begun, word)
    for pid in (-1, 0, 1, True, 2**40, None, [sleeper.pid]):
        for begun in (None, start, "0"):
            assert not processes.terminate(pid, begun, "a-word")
    assert sleeper.poll() is None
    assert processes.terminate(sleeper.pid, start, "a-word")
    assert sleeper.wait(10) == -signal.SIGTERM
    assert not processes.is_alive(sleeper.pid, start)


def test_cancel_signals_no_process_that_a_file_names_wrongly(tmp_path, sleeper, monkeypatch):
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    run = make_run(tmp_path / "one")
    gone = f"{socket.gethostname()}/999999-1-x"
    entry = dataclasses.replace(record.submission(run), job=gone)
    assert executor.abandoned(gone) and not executor.abandoned("elsewhere/999999-1-x")
    for pid in (sleeper.pid, -1, 0, "x", [1], None, os.getpid()):
        progress.event(run, "started", pid=pid, attempt=1, host=progress.host(), start="1")
        progress.event(run, "started", pid=pid, attempt=1, host=progress.host())
    scheduler.Local().cancel({run: entry})
    assert sleeper.poll() is None
    assert progress.seconds(run) == 0


@pytest.mark.parametrize("job", ["", "-1", "/-1--x", "0-0-x", "x", "../../x", "a/b/c"])
def test_damaged_names_of_submissions(job, tmp_path):
    name = f"{socket.gethostname()}/{job}"
    executor.abandoned(name)
    assert not executor.running(tmp_path, name)


def test_a_submitter_is_known_by_its_start():
    mine = f"{socket.gethostname()}/{os.getpid()}"
    assert not executor.abandoned(f"{mine}-{processes.started(os.getpid())}-x")
    assert executor.abandoned(f"{mine}-1-x")  # Its id is used again.


def test_exit_code_0_is_not_the_end_of_a_training(tmp_path):
    config = sealed_json.seal({"config": {"steps": 5}, "sources": {}, "fingerprint": "f"})
    run = make_run(tmp_path / "one", config=config)
    assert worker.work(run, record.read(run)) == 1
    assert "ended with exit code 0, but the last checkpoint is 0" in worker.tail(run)
    assert json.loads((run / "launch" / "result.json").read_text())["state"] == "failed"
    (run / "metrics.jsonl").write_text('{"step": 5}\n')
    (run / "checkpoints" / "4").mkdir(parents=True)
    assert outcome.missing_steps(run, 5)
    (run / "checkpoints" / "5").mkdir()
    assert worker.work(run, record.read(run)) == 0
    assert worker.work(make_run(tmp_path / "other"), make_spec()) == 0  # Nothing to compare.


def test_records_are_readable_by_their_owner_alone(cli):
    before = os.umask(0o022)
    try:
        assert cli("submit", cli.experiment, "--name", "one") == 0
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(cli.runs)): stat.S_IMODE(path.stat().st_mode)
        for path in (cli.runs / "one" / "launch").rglob("*")
        if path.is_file()
    }
    assert len(modes) > 6
    assert {name for name, mode in modes.items() if mode & 0o077} == set()


BROKEN = {
    "no-json": ("job.json", b"{"),
    "kinds": ("spec.json", b'{"version": 1, "id": 3, "command": 5, "resources": []}'),
    "deep": ("job.json", b"[" * 100_000),
    "bytes": ("spec.json", b"\xff\xfe\x00"),
    "version": ("spec.json", b'{"version": {}}'),
    "null": ("spec.json", b"null"),
    "sweep": ("sweep.json", b'{"version": 1, "trials": ["../../../etc"]}'),
    "steps": ("sweep.json", b'{"version": 1, "trials": 7}'),
}


def test_broken_runs_do_not_hide_the_others(tmp_path, capsys):
    make_run(tmp_path / "good")
    for name, (file, content) in BROKEN.items():
        folder = make_run(tmp_path / name)
        (folder / "launch" / file).write_bytes(content)
    odd = make_run(tmp_path / "odd\x1b[2J")
    (odd / "metrics.jsonl").write_text(f'{{"step": 1, "train/loss": {10**400}}}\n')
    listing.show(tmp_path, None)
    captured = capsys.readouterr()
    assert "good: lost" in captured.out and "odd" in captured.out
    for name in BROKEN:
        assert f"{name}: damaged: " in captured.err


def test_one_damaged_trial_does_not_hide_the_sweep(cli, capsys):
    sweep = ["--sweep", "seeds(2)"]
    assert cli("submit", cli.experiment, "--name", "two", *sweep) == 0
    damaged = record.trials(cli.runs / "two")[0]
    (damaged / "launch" / "job.json").write_text("{")
    (damaged / "launch" / "spec.json").write_text("{")
    capsys.readouterr()
    assert cli("status", "two") == 0
    assert cli("status", "two", "--sort", "eval/loss") == 0
    captured = capsys.readouterr()
    assert "1 done, 1 lost" in captured.out and f"{damaged.name}: damaged: " in captured.out
    assert f"{damaged.name}: damaged: " in captured.err


def test_trials_stay_in_their_sweep(tmp_path):
    record.write_sweep(tmp_path / "s", ["../../other"])
    with pytest.raises(InputError, match=r"sweep.json: trials: '../../other': expected a file"):
        record.trials(tmp_path / "s")


def test_cells_of_csv_are_no_formulas():
    rows = [
        {"run": "=cmd|'/C calc'!A0", "state": "done", "overrides": {"a": "@x", "b": "-0.5"},
         "metrics": {"eval/loss": -1.5}},
        {"run": "b", "state": "done", "overrides": {"a": "+1", "b": -2},
         "metrics": {"eval/loss": 2.0}},
    ]  # fmt: skip
    lines = table.csv(rows, "eval/loss").splitlines()
    assert lines[1].startswith("'=cmd|") and "'@x" in lines[1] and ",-0.5" in lines[1]
    assert ",-1.5," in lines[1] and lines[2].endswith("+1,-2")


TOKEN = "hf_" + "A1b2" * 8


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"command": ("python", "-m", "x", f"--name={TOKEN}")}, "word 4 of its command"),
        ({"command": ("python", "--token", "abc")}, "word 3 of its command"),
        ({"command": ("python", "https://me:pw@host/x")}, "word 2 of its command"),
        ({"environment": {"PROXY": "http://me:pw@proxy:3128"}}, "environment PROXY"),
        ({"overrides": {"log.wandb_project": TOKEN}}, "--config.log.wandb_project"),
        ({"trial": {"x.password": "abc"}}, "sweep.x.password"),
        ({"options": {"sbatch": [f"--comment={TOKEN}"]}}, "options.sbatch"),
        ({"config": {"config": {"data": {"shards": ["s3://k:v@b/x"]}}}}, "config.data.shards"),
    ],
)
def test_secrets_do_not_get_into_specifications(values, where):
    with pytest.raises(InputError, match="looks like a secret") as raised:
        secrecy.check(make_spec(**values))
    assert where in str(raised.value) and "--pass" in str(raised.value)
    assert TOKEN not in str(raised.value) and "pw" not in str(raised.value)


def test_specifications_without_secrets_pass(cli, capsys):
    secrecy.check(make_spec(environment={"PYTHONPATH": "/a:/b"}, overrides={"steps": "5"}))
    line = ["--", "a2fjax", "evaluate", "RUN", f"--config.x={TOKEN}"]
    assert submit.main(["run", "evaluation", *cli.to, *line]) == 2
    captured = capsys.readouterr()
    assert "looks like a secret" in captured.err and TOKEN not in captured.err
    assert not (cli.runs / "evaluation").exists()


def test_names_with_control_characters_are_shown_escaped(cli, capsys):
    run = make_run(cli.runs / "odd\x1b[2J")
    assert cli("list") == 0
    assert cli("logs", run.name) == 2
    captured = capsys.readouterr()
    assert "odd\\x1b[2J: lost" in captured.out
    assert "\x1b" not in captured.out + captured.err


def test_processes_of_a_run_share_a_secret_that_no_file_holds(cli):
    two = ["--processes", "2", "--config.data.batch_size=8"]
    assert cli("submit", cli.experiment, "--name", "two", *two) == 0
    found = {start["env"].get("A2F_SECRET") for start in cli.starts("two")}
    assert len(found) == 1 and len(secret := found.pop()) == 64
    for path in cli.runs.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes()


def test_scripts_and_manifests_make_a_secret_for_several_processes(tmp_path):
    yaml = pytest.importorskip("yaml")

    def job(name, nodes, **given):
        resources = Resources(nodes=nodes, cpu_devices=1)
        found = schedulers.get(name)
        options = found.options(given, {}, resources, array=None)
        spec = make_spec(
            scheduler=name, resources=resources, options=options, directory=str(tmp_path)
        )
        return submission.run_job(tmp_path / "one", tmp_path, [(tmp_path / "one", spec)], None)

    text = script.of_elements(job("slurm", 2))
    line = next(line for line in text.splitlines() if "A2F_SECRET=" in line).strip()
    made = [subprocess.check_output(["bash", "-c", f"{line}; echo $A2F_SECRET"]) for _ in range(2)]
    assert made[0] != made[1] and re.fullmatch(r"[0-9a-f]{64}\n", made[0].decode())
    pod = {"image": f"a2f@sha256:{'0' * 64}", "volume": [f"claim:{tmp_path}"]}
    render = schedulers.get("kubernetes").render
    secret, jobset = yaml.safe_load_all(render(job("kubernetes", 2, **pod)))
    assert secret["kind"] == "Secret" and len(secret["stringData"]["secret"]) == 64
    assert secret["metadata"]["name"] == jobset["metadata"]["name"]
    reference = {"secretKeyRef": {"name": secret["metadata"]["name"], "key": "secret"}}
    assert f"'valueFrom': {reference}" in str(jobset)
    (alone,) = yaml.safe_load_all(render(job("kubernetes", 1, **pod)))
    assert "A2F_SECRET" not in str(alone)
