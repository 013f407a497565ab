"""Slurm's scripts, without Slurm: what bash makes of them."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2fjax.errors import InputError
from launch import schedulers
from launch.jobs import array_spec
from launch.schedulers.slurm import array

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


def run(script: str, folder: Path, part: int, **environment) -> subprocess.CompletedProcess:
    path = folder / "script.sh"
    path.write_text(script, encoding="utf-8")
    env = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": str(part), **environment}
    return subprocess.run(["bash", path], env=env, capture_output=True, cwd=folder, timeout=30)


def words(done: subprocess.CompletedProcess) -> list[str]:
    """What the command was given, after the script's own first line."""
    return done.stdout.split(b"\n", 1)[1].decode().split("\0")[:-1]


def test_every_part_is_worked_on_once_and_words_arrive_as_they_are(make_record, tmp_path):
    base = tmp_path / "my $(touch hacked) öut's"
    array_spec.folder(base).mkdir(parents=True)
    record = make_record("slurm", [*PRINT, *NASTY], 5)
    script = array.parts_script(record, base)
    assert "#SBATCH --array=1-5" in script.splitlines()
    seen = []
    for part in range(1, 6):
        done = run(script, tmp_path, part)
        assert done.returncode == 0, done.stderr
        *given_, flag, share = words(done)
        assert given_ == NASTY and flag == "--part"
        seen.append(share)
        assert array_spec.exit_state(base, part) == array_spec.DONE
    assert seen == [f"{i}/5" for i in range(1, 6)]
    last = run(array.finish_script(record, base), tmp_path, 0)
    assert words(last) == [*NASTY, "--finish"]
    assert array_spec.exit_state(base, array_spec.FINISH) == array_spec.DONE
    assert not list(tmp_path.rglob("hacked")) and not Path("/hacked").exists()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)))
def test_any_word_arrives(make_record_once, given_):
    record, folder = make_record_once(given_)
    done = run(array.parts_script(record, folder), folder, 2)
    assert words(done) == [*given_, "--part", "2/4"]


@pytest.fixture(scope="module")
def make_record_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    array_spec.folder(folder).mkdir()

    def make(given_):
        spec = array_spec.Spec(
            name="x", command=(*PRINT, *given_), finish=(), parts=4, directory=str(folder)
        )
        options = schedulers.get("slurm").options({}, spec)
        record = array_spec.Record(
            backend="slurm",
            out=str(folder),
            spec=spec,
            options=options,
            attempt=1,
            parts=(1, 2, 3, 4),
            jobs={},
            submitted="",
        )
        return record, folder

    return make


def test_directives_come_before_any_command_and_hold_no_word_of_the_user(make_record, tmp_path):
    record = make_record("slurm", ["x", *NASTY], partition="main", time="1-00", mem="8G", cpus=3)
    lines = array.parts_script(record, tmp_path).splitlines()
    start = lines.index("set -euo pipefail")
    assert {n for n, line in enumerate(lines) if line.startswith("#SBATCH")} - set(
        range(1, start)
    ) == {lines.index("#SBATCH --partition=x'")}  # the one inside a quoted word: after a command
    wanted = {"--partition=main", "--time=1-00", "--mem=8192M", "--cpus-per-task=3", "--requeue"}
    assert wanted <= {line.removeprefix("#SBATCH ") for line in lines[1:start]}


@pytest.mark.parametrize(
    ("code", "state"),
    [(0, "done"), (1, "failed"), (2, "bad input"), (75, "stopped"), (137, "failed")],
)
def test_the_exit_code_is_kept_and_handed_on(make_record, tmp_path, code, state):
    array_spec.folder(tmp_path).mkdir()
    record = make_record("slurm", ["/bin/sh", "-c", f"exit {code}"])
    done = run(array.parts_script(record, tmp_path), tmp_path, 3)
    assert done.returncode == code
    assert array_spec.exit_state(tmp_path, 3) == state
    assert [p.name for p in array_spec.folder(tmp_path).glob(".part*")] == []


def test_a_short_time_limit_gets_no_notice(make_record, tmp_path):
    def script(time):
        return array.parts_script(make_record("slurm", ["x"], time=time), tmp_path)

    for time in (None, "10", "00:10:00", "1-0", "0-0:10", "2-0:0:0", "11:00"):
        assert "--signal=TERM@" in script(time), time
    for time in ("9", "9:59", "0:09:59", "0-0:9"):
        assert "--signal" not in script(time), time


def test_only_some_parts(make_record, tmp_path):
    import dataclasses

    record = dataclasses.replace(make_record("slurm", ["x"], 20), parts=(1, 2, 3, 7, 9, 10))
    assert "--array=1-3,7,9-10" in array.parts_script(record, tmp_path)


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
def test_wrong_options_are_named(make_record, given_, word):
    with pytest.raises(InputError, match=word):
        make_record("slurm", ["x"], **given_)
