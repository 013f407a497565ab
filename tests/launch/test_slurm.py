"""Arrays on a real Slurm: killed elements run again, cancelled ones do not."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import submit

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def slurm_id(job, name):
    return json.loads((job.launch / "job.json").read_text())[name]


def scancel(*arguments):
    subprocess.run(["scancel", *arguments], check=True, timeout=30)


def queue():
    argv = ["squeue", "-h", "-r", "-o", "%F_%K %T"]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout


def processes(*words):
    """The processes that have all words on their command line, the build itself and not srun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            argv = path.read_text(errors="replace").split("\0")
            if "data_pipeline.build" in argv and argv[0] != "srun" and set(words) <= set(argv):
                found.append(int(path.parent.name))
    return found


def until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.1)


def test_an_array_survives_a_kill_and_a_preemption(slurm, make_job, capsys):
    job = make_job(6)
    job.set("slow-3")
    job.set("slow-5")
    assert job("build", "--scheduler", "slurm", "--max-parallel", "4", "--time", "20") == 0
    array = slurm_id(job, "job")
    # Twice: not while the first is at work.
    job.until(lambda: all(job.runs(i) for i in range(1, 7)))
    assert job("build", "--scheduler", "slurm") == 2
    assert "submit.py cancel" in capsys.readouterr().err
    job.until(lambda: job.done == [1, 2, 4, 6])

    # One is killed as if out of memory, one is asked to stop and ends with 75: both come back.
    os.kill(json.loads((job.out / "3.runs").read_text())[2], signal.SIGKILL)
    scancel("--signal=TERM", f"{array}_5")
    job.until(lambda: f"{array}_3 PENDING" in queue() and f"{array}_5 PENDING" in queue())
    assert not (job.out / "manifest.json").exists()
    assert job("status") == 0
    assert "2 of 6 waiting: 3, 5" in capsys.readouterr().out
    job.unset("slow-3")
    job.unset("slow-5")
    assert job("wait", "--poll", "0.2") == 0
    assert json.loads((job.out / "manifest.json").read_text()) == [f"{i}.done" for i in range(1, 7)]
    assert [job.runs(i) for i in range(1, 7)] == [1, 1, 2, 1, 2, 1]
    assert ": again" in job.log(3).read_text()
    argv, directory, _ = json.loads((job.out / "2.runs").read_text())
    assert argv[:3] == [str(job.source), "--out", str(job.out)] and argv[-2:] == ["--part", "2/6"]
    assert directory == os.getcwd()
    # Given again, all is submitted and nothing is done twice.
    assert job("build", "--scheduler", "slurm", "--wait", "--poll", "0.2") == 0
    assert job.done == [1, 2, 3, 4, 5, 6]


def test_bad_input_is_not_tried_again_and_retry_does_only_the_rest(slurm, make_job, capsys):
    job = make_job(4)
    job.set("bad-2")
    job.set("fail-4")
    build = ["--scheduler", "slurm", "--retries", "0", "--wait", "--poll", "0.2"]
    assert job("build", *build) == 1
    assert "missing: [2, 4]" in capsys.readouterr().err
    assert job("status") == 0
    out = capsys.readouterr().out
    assert "1 of 4 bad input: 2" in out and "1 of 4 failed: 4" in out and "finalize: failed" in out
    assert not (job.out / "manifest.json").exists()
    job.unset("bad-2")
    job.unset("fail-4")
    assert job("retry", "--wait", "--poll", "0.2") == 0
    assert [job.runs(i) for i in range(1, 5)] == [1, 2, 1, 2]
    assert job("retry") == 0
    assert "all is done" in capsys.readouterr().out
    for name in ("exit", "result.json"):
        (job.record / "finalize" / "launch" / name).unlink()
    (job.out / "manifest.json").unlink()
    assert job("retry", "--wait", "--poll", "0.2") == 0
    assert ": finalize: slurm job" in capsys.readouterr().out
    assert (job.out / "manifest.json").exists()
    assert [job.runs(i) for i in range(1, 5)] == [1, 2, 1, 2]


@pytest.mark.parametrize("how", ["ours", "scancel"])
def test_what_is_cancelled_stays_so(slurm, make_job, how, capsys):
    job = make_job(3)
    for i in (1, 2, 3):
        job.set(f"slow-{i}")
    assert job("build", "--scheduler", "slurm", "--max-parallel", "2") == 0
    array, last = slurm_id(job, "job"), slurm_id(job, "finalize")
    job.until(lambda: job.runs(1) and job.runs(2))
    if how == "ours":
        assert job("cancel") == 0
    else:
        scancel(array, last)
    job.until(lambda: not queue().strip())
    assert [job.runs(i) for i in (1, 2, 3)] == [1, 1, 0]
    capsys.readouterr()
    assert job("status") == 0
    # What never started was cancelled by us, or is gone from the queue.
    expected = "3 of 3 cancelled" if how == "ours" else "2 of 3 stopped"
    assert expected in capsys.readouterr().out
    for i in (1, 2, 3):
        job.unset(f"slow-{i}")
    assert job("retry", "--wait", "--poll", "0.2") == 0
    assert job.done == [1, 2, 3]


def test_one_element_killed_by_hand_is_named_by_the_last_job_and_redone(slurm, make_job, capsys):
    job = make_job(3)
    job.set("slow-2")
    assert job("build", "--scheduler", "slurm") == 0
    job.until(lambda: job.done == [1, 3] and job.runs(2))
    scancel("--signal=KILL", f"{slurm_id(job, 'job')}_2")
    assert job("wait", "--poll", "0.2") == 1
    assert "missing: [2]" in capsys.readouterr().err
    assert not (job.out / "manifest.json").exists()
    job.unset("slow-2")
    assert job("retry", "--wait", "--poll", "0.2") == 0
    assert (job.out / "manifest.json").exists()
    assert [job.runs(i) for i in (1, 2, 3)] == [1, 2, 1]


def test_a_higher_partition_takes_the_nodes_and_gives_them_back(slurm, make_job):
    job = make_job(4)
    for i in range(1, 5):
        job.set(f"slow-{i}")
    assert job("build", "--scheduler", "slurm", "--partition", "main") == 0
    job.until(lambda: all(job.runs(i) for i in range(1, 5)))
    subprocess.run(["srun", "-p", "urgent", "-N4", "--exclusive", "true"], check=True, timeout=120)
    for i in range(1, 5):
        job.unset(f"slow-{i}")
    assert job("wait", "--poll", "0.2") == 0
    assert [job.runs(i) for i in range(1, 5)] == [2, 2, 2, 2]
    assert job.done == [1, 2, 3, 4]


def test_preflight_asks_the_scheduler(slurm, make_job, capsys):
    job = make_job(6)
    assert job("build", "--scheduler", "slurm", "--dry-run", "--partition", "main") == 0
    assert "to start at" in capsys.readouterr().err
    assert not job.out.exists()
    assert job("build", "--scheduler", "slurm", "--dry-run", "--partition", "mian") == 2
    assert "Invalid partition" in capsys.readouterr().err
    job.parts = 101
    assert job("build", "--scheduler", "slurm") == 2
    assert "MaxArraySize=101 takes at most 100; use --elements 100" in capsys.readouterr().err
    job.parts = 100
    assert job("build", "--scheduler", "slurm", "--dry-run") == 0


def test_the_real_build_as_an_array_equals_the_build_of_one_process(slurm, tmp_path):
    """Shards of an array job, of which a part was killed, are those of one process, to the byte."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    source = tmp_path / "captures"
    one, many = tmp_path / "one" / "the set", tmp_path / "many" / "the set"
    many.parent.mkdir()

    def python(*arguments):
        subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, env=environment)

    demo = ["--subjects", "2", "--unseen", "1", "--minutes", "1", "--workers", "1"]
    python("-m", "data_pipeline.demo", "--out", str(tmp_path), *demo)
    python("-m", "data_pipeline.build", str(source), "--out", str(one), "--workers", "1")
    build = ["build", str(source), "--out", str(many), "--elements", "3", "--workers", "1"]
    assert submit.main([*build, "--scheduler", "slurm"]) == 0
    until(lambda: processes(str(many), "--part", "2/3") and any(many.glob(".build/takes/*")))
    for pid in processes(str(many), "--part", "2/3"):
        os.kill(pid, signal.SIGKILL)
    assert submit.main(["wait", str(many), "--poll", "0.5"]) == 0
    assert ": again" in (many / ".build" / "launch" / "job-2.log").read_text()
    names = {p.relative_to(one) for p in one.rglob("*") if ".build" not in p.parts and p.is_file()}
    assert len(names) > 4
    for name in sorted(names):
        assert (many / name).read_bytes() == (one / name).read_bytes(), name
