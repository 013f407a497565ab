"""The command line, and jobs on this machine."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import submit
from launch.jobs import record
from launch.monitor import states
from launch.schedulers import base

ROOT = Path(__file__).parents[2]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def pids(job) -> list[int]:
    return [json.loads(x)[2] for p in job.out.glob("*.runs") for x in p.read_text().splitlines()]


def start(job, *arguments) -> subprocess.Popen:
    code = (
        # Tests that run in the background inherit that Ctrl-C is ignored.
        "import signal, sys; from launch import submit\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.exit(submit.main(sys.argv[2:], program=[sys.argv[1]]))"
    )
    stand_in = str(Path(__file__).with_name("stand_in.py"))
    argv = [
        "build",
        str(job.source),
        "--out",
        str(job.out),
        "--elements",
        str(job.parts),
        *arguments,
    ]
    return subprocess.Popen(
        [sys.executable, "-c", code, stand_in, *argv],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_elements_then_the_last_command_and_again(make_job, capsys):
    job = make_job(5)
    job.set("die-3")  # is started again, as it would be elsewhere
    assert job("build", "--max-parallel", "2") == 0
    assert job.done == [1, 2, 3, 4, 5]
    assert [job.runs(i) for i in range(1, 6)] == [1, 1, 2, 1, 1]
    assert (job.out / "manifest.json").exists()
    assert job("status") == 0
    assert "5 of 5 done" in capsys.readouterr().out
    assert job("retry") == 0
    assert job.runs(1) == 1
    assert job("build", "--max-parallel", "2") == 0
    assert job.done == [1, 2, 3, 4, 5]


def test_what_failed_is_named_and_retried(make_job, capsys):
    job = make_job(4)
    job.set("bad-2")
    job.set("fail-4")
    assert job("build", "--retries", "1") == 1
    assert "missing: [2, 4]" in capsys.readouterr().err
    assert [job.runs(i) for i in range(1, 5)] == [1, 1, 1, 2]
    assert job("status") == 0
    out = capsys.readouterr().out
    assert "1 of 4 bad input: 2" in out and "1 of 4 failed: 4" in out and "finalize: failed" in out
    assert job("logs") == 0
    assert "element 2/4" in capsys.readouterr().out
    job.unset("bad-2")
    job.unset("fail-4")
    assert job("retry") == 0
    assert [job.runs(i) for i in range(1, 5)] == [1, 2, 1, 3]


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_stopping_stops_all_and_a_second_run_goes_on(make_job, tell_again, sign, code):
    job = make_job(4)
    job.set("slow-2")
    job.set("slow-3")
    process = start(job, "--max-parallel", "2")
    job.until(lambda: job.runs(2) and job.runs(3))
    process.send_signal(sign)
    if sign == signal.SIGTERM:
        tell_again(process)
    assert process.wait(30) == code
    assert "Traceback" not in process.stderr.read()
    assert len(pids(job)) == 3 and not any(map(alive, pids(job)))
    job.unset("slow-2")
    job.unset("slow-3")
    assert job("build", "--max-parallel", "2") == 0
    assert [job.runs(i) for i in range(1, 5)] == [2, 2, 2, 1]


def test_cancel_from_another_terminal(make_job, capsys):
    job = make_job(2)
    job.set("slow-1")
    process = start(job)
    job.until(lambda: job.runs(1))
    assert job("status") == 0
    out = capsys.readouterr().out
    assert "1 of 2 running: 1" in out and "1 of 2 waiting: 2" in out
    assert job("cancel") == 0
    assert process.wait(30) == 75
    assert job("cancel") == 0
    assert "nothing runs" in capsys.readouterr().out
    assert job("status") == 0
    assert "2 of 2 cancelled" in capsys.readouterr().out


def test_elements_that_outlive_a_killed_process_are_not_run_twice(make_job, capsys):
    job = make_job(2)
    job.set("slow-1")
    process = start(job)
    job.until(lambda: job.runs(1))
    process.kill()
    process.wait()
    assert job("build") == 2
    assert "run or wait" in capsys.readouterr().err
    job.unset("slow-1")
    job.until(lambda: not any(s.active for s in states.query(record.members(job.record)).values()))
    assert job("build") == 0
    assert job.runs(1) == 2 and job.done == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--scheduler", "slrum"], "did you mean 'slurm'?"),
        (["--layout", "nvidea"], "did you mean 'nvidia'?"),
        (["--config.sed=1"], "did you mean 'seed'?"),
        (["--config.val=7"], "val + test"),
        (["--elements", "0"], "--elements 0"),
        (["--partition", "x"], "is for --scheduler slurm"),
        (["--cpus", "4"], "is for --scheduler kubernetes or slurm"),
        (["--sead=1"], "--sead=1"),
        (["--elements", "many"], "--elements"),
    ],
)
def test_wrong_words_are_one_line(make_job, capsys, arguments, word):
    job = make_job()
    assert job("build", *arguments) == 2
    err = capsys.readouterr().err
    assert word in err and err.count("\n") == 1
    assert not job.out.exists()


def test_wrong_folders_are_one_line(tmp_path, capsys, make_job):
    job = make_job()
    assert submit.main(["build", str(tmp_path / "none"), "--out", str(job.out)]) == 2
    assert submit.main(["build", str(job.source), "--out", str(job.source / "parts")]) == 2
    assert submit.main(["status", str(job.out)]) == 2
    assert "nothing was submitted" in capsys.readouterr().err
    broken = f"{job.source}/\udcff"
    assert submit.main(["build", str(job.source), "--out", broken]) == 2
    assert "not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', '{"version": 9}', "\0"])
def test_a_damaged_record_is_named(make_job, capsys, text):
    job = make_job()
    job.launch.mkdir(parents=True)
    (job.launch / "spec.json").write_text(text)
    assert job("status") == 2
    err = capsys.readouterr().err
    assert "spec.json" in err and err.count("\n") == 1


def test_dry_run_leaves_nothing(make_job, capsys):
    job = make_job(3)
    assert job("build", "--dry-run") == 0
    out = capsys.readouterr().out
    assert [f"--part {i}/3" in out for i in (1, 2, 3)] == [True] * 3 and "--finish" in out
    assert not job.out.exists()


def test_it_starts_anywhere_and_without_jax(tmp_path, loaded):
    script = [sys.executable, str(ROOT / "launch" / "submit.py"), "--help"]
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True)
    module = [sys.executable, "-m", "launch.submit", "build", "--help"]
    subprocess.run(module, cwd=ROOT, check=True, capture_output=True)
    code = (
        "from launch import schedulers\n"
        "[schedulers.get(n) for n in schedulers.names()]\n"
        f"folder = {str(tmp_path)!r}\n"
        "submit.main(['build', folder, '--out', folder + '/o', '--dry-run'])"
    )
    assert loaded(code) == "[]"


def test_a_log_without_an_end_is_shown_by_its_end(tmp_path, monkeypatch):
    log = tmp_path / "job.log"
    log.write_text("first\n" + 300 * "later\n" + "last\n")
    assert base.read_log(log).startswith("first\n")
    monkeypatch.setattr(base, "LOG_MB", 0.001)
    shown = base.read_log(log)
    assert shown.startswith("(the last 0.001 of 0.00181 MB of ") and shown.endswith("later\nlast\n")
    assert len(shown) < 1200
    monkeypatch.setattr(base, "LOG_MB", 1.0)
    os.truncate(log, 1 << 40)
    assert len(base.read_log(log)) < 1_001_000
