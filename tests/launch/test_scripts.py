"""Slurm scripts of arrays without a Slurm, run by bash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from a2fjax.errors import InputError
from launch.jobs import outcome, progress, record, worker
from launch.schedulers.slurm import script

PRINT = ["/usr/bin/printf", "%s\\0"]
NASTY = [
    "with space",
    "it's",
    'say "x"',
    "$(touch hacked)",
    "`touch hacked`",
    "$HOME",
    "new\nline\n#SBATCH --partition=x",
    "*",
    "back\\",
    "%j-%a",
    "ünïcode 顔",
    "",
    "~",
    "-n",
    "!!",
    ")",
]


def run(text: str, folder: Path, index: int, **environment) -> subprocess.CompletedProcess:
    path = folder / "script.sh"
    path.write_text(text, encoding="utf-8")
    env = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": str(index), **environment}
    return subprocess.run(["bash", path], env=env, capture_output=True, cwd=folder, timeout=60)


def words(element: Path) -> list[str]:
    """Returns the arguments of the command, after the worker's first line."""
    log = worker.log_path(element, 0).read_bytes()
    return log.split(b"\n", 1)[1].decode().split("\0")[:-1]


def state(element: Path) -> str:
    return outcome.state_of(outcome.exit_code(element))


def test_every_element_runs_once_and_words_arrive_unchanged(make_array, tmp_path):
    folder = tmp_path / "my $(touch hacked) öut's"
    job = make_array("slurm", [*PRINT, *NASTY], 5, folder=folder)
    record.write(folder, job.spec)
    text = script.of_elements(job)
    assert "#SBATCH --array=1-5" in text.splitlines()
    shares = []
    for element in job.elements:
        done = run(text, tmp_path, element.index)
        assert done.returncode == 0, done.stderr
        *given_, flag, share = words(element.folder)
        assert given_ == NASTY and flag == "--part"
        shares.append(share)
        assert state(element.folder) == outcome.DONE
    assert shares == [f"{i}/5" for i in range(1, 6)]
    last = run(script.of_finalize(job), tmp_path, 0, SLURM_ARRAY_TASK_ID="")
    assert last.returncode == 0, last.stderr
    assert words(job.finalize.folder) == [*NASTY, "--finish"]
    assert state(job.finalize.folder) == outcome.DONE
    assert not list(tmp_path.rglob("hacked")) and not Path("/hacked").exists()


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)))
def test_any_word_arrives(make_array, tmp_path_factory, given_):
    folder = tmp_path_factory.mktemp("any")
    job = make_array("slurm", [*PRINT, *given_], folder=folder)
    record.write(folder, job.spec)
    element = job.elements[1].folder
    argv = [sys.executable, "-m", "launch.jobs.worker", str(element)]
    subprocess.run(argv, check=True, capture_output=True, cwd=Path(__file__).parents[2])
    assert words(element) == [*given_, "--part", "2/4"]


def test_directives_come_before_any_command_and_hold_no_word_of_the_user(make_array):
    job = make_array("slurm", ["x", *NASTY], partition="main", time="1-00", mem="8G", cpus=3)
    lines = script.of_elements(job).splitlines()
    start = lines.index("set -uo pipefail")
    assert {n for n, line in enumerate(lines) if line.startswith("#SBATCH")} <= set(range(1, start))
    assert not any("#SBATCH --partition=x" in line for line in lines)
    wanted = {"--partition=main", "--time=1440", "--mem=8192M", "--cpus-per-task=3", "--requeue"}
    assert wanted <= {line.removeprefix("#SBATCH ") for line in lines[1:start]}


@pytest.mark.parametrize(
    ("code", "state_"),
    [(0, "done"), (1, "failed"), (2, "bad input"), (75, "stopped"), (137, "failed")],
)
def test_the_exit_code_is_kept_and_handed_on(make_array, tmp_path, code, state_):
    job = make_array("slurm", ["/bin/sh", "-c", f"exit {code}"])
    record.write(job.folder, job.spec)
    element = job.elements[2].folder
    done = run(script.of_elements(job), tmp_path, 3)
    assert done.returncode == code
    assert state(element) == state_
    assert not list((element / "launch").glob(".exit*"))
    assert [e["exit_code"] for e in progress.events(element) if e["event"] == "ended"] == [code]


def test_a_short_time_limit_gets_no_notice(make_array):
    def text(time):
        return script.of_elements(make_array("slurm", ["x"], time=time))

    # Limits are rounded up to the minute: 9:59 asks Slurm for 10.
    for time in (None, "10", "00:10:00", "1-0", "0-0:10", "2-0:0:0", "11:00", "9:59"):
        assert "--signal=TERM@" in text(time), time
    for time in ("9", "8:59", "0:08:59", "0-0:9"):
        assert "--signal" not in text(time), time


def test_only_some_elements(make_array):
    job = make_array("slurm", ["x"], 20, chosen=(1, 2, 3, 7, 9, 10))
    assert "--array=1-3,7,9-10" in script.of_elements(job)


@pytest.mark.parametrize(
    ("given_", "word"),
    [
        ({"partition": "a b"}, "--partition"),
        ({"account": "x\n#SBATCH --y"}, "--account"),
        ({"time": "soon"}, "--time soon"),
        ({"mem": "8"}, "--mem 8"),
        ({"mem": "lots"}, "8G"),
        ({"sbatch": ["exclusive"]}, "--sbatch"),
        ({"sbatch": ["--array=1-9"]}, "--sbatch"),
    ],
)
def test_wrong_options_are_named(make_array, given_, word):
    with pytest.raises(InputError, match=word):
        make_array("slurm", ["x"], **given_)
