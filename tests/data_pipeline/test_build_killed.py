"""A build that is killed anywhere, or cut into parts, ends in the same shards."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.execution import process_pool

ROOT = Path(__file__).resolve().parents[2]


def command(captures, out, *more, test="line 2"):
    base = [sys.executable, "-m", "data_pipeline.build", str(captures), f"--out={out}"]
    return [*base, f"--config.test_sentences={test}", *more]


def run(captures, out, *more):
    done = subprocess.run(command(captures, out, *more), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(out):
    files = sorted(p for p in out.rglob("*") if p.is_file() and ".build" not in p.parts)
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def captures(tmp_path_factory, head, make_actor):
    folder = tmp_path_factory.mktemp("captures")
    for seed, name in enumerate(("ann", "bob", "cat")):
        make_actor(folder / name, head, offset=0.03 * seed, seed=seed, shots=4, fps=59.94)
    return folder


@pytest.fixture(scope="module")
def undisturbed(captures, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "set"
    start = time.monotonic()
    run(captures, out, "--workers=2")
    spent = time.monotonic() - start
    files = contents(out)
    assert {"manifest.json", "quality.json", "quality.html"} <= set(files)
    return files, spent


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow
def test_told_to_stop_it_ends_at_once_and_goes_on_later(
    tmp_path, head, make_actor, tell_again, workers
):
    make_actor(tmp_path / "ann", head, shots=3, slate=False)
    out = tmp_path / "set"
    process = subprocess.Popen(
        command(tmp_path / "ann", out, f"--workers={workers}", test="line 1"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # There is a digest as soon as a take is worked on.
    wait_for(lambda: list((out / ".build/digests").glob("[0-9a-f]*")), process)
    told = time.monotonic()
    tell_again(process)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 75, error
    assert error == "data_pipeline.build: stopped: SIGTERM; run it again to go on\n"
    assert time.monotonic() - told < process_pool.GRACE + 15  # a compilation is not interrupted
    wait_for(lambda: not group(process.pid))
    again = command(tmp_path / "ann", out, "--workers=0", test="line 1")
    subprocess.run(again, cwd=ROOT, check=True, capture_output=True)
    assert {"manifest.json", "quality.json", "quality.html"} <= set(contents(out))
    assert not [p for p in out.rglob("*") if "partial" in p.name]


def wait_for(condition, process=None, seconds=60):
    last = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < last and (process is None or process.poll() is None)
        time.sleep(0.02)


def group(number):
    """Returns whether a process group has anyone left."""
    try:
        os.killpg(number, 0)
        return True
    except ProcessLookupError:
        return False


@pytest.mark.slow
def test_kills_at_random_times_change_nothing(captures, undisturbed, tmp_path):
    expected, spent = undisturbed
    out = tmp_path / "set"
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    killed = 0
    while killed < 5:
        process = subprocess.Popen(
            command(captures, out, "--workers=2"),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=rng.uniform(0.1, spent))
        except subprocess.TimeoutExpired:
            # The whole group at once, as a machine that goes down.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            continue
        assert process.returncode == 0
        # It was done before its time came: another kill needs something to do.
        shutil.rmtree(out / ".build" / ("clips" if killed % 2 else "takes"))
        (out / ".build" / "state.json").unlink()
    run(captures, out, "--workers=1")
    assert contents(out) == expected
    assert not [p for p in out.rglob("*") if "partial" in p.name]


@pytest.mark.slow
def test_parts_side_by_side_make_the_same_set(captures, undisturbed, tmp_path):
    out = tmp_path / "set"
    refused = subprocess.run(
        command(captures, out, "--finish"), cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 2 and "15 of 15 takes are not solved yet" in refused.stderr
    parts = [
        subprocess.Popen(
            command(captures, out, f"--part={i}/3", "--workers=1"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in (1, 2)
    ]
    assert all(p.wait() == 0 for p in parts)
    for p in parts:
        p.stdout.close()
    refused = subprocess.run(
        command(captures, out, "--finish"), cwd=ROOT, capture_output=True, text=True
    )
    assert refused.returncode == 2 and "of 15 takes are not solved yet, first" in refused.stderr
    run(captures, out, "--part=3/3", "--workers=1")
    assert "15 of 15 takes are done already" in run(captures, out, "--finish")
    assert contents(out) == undisturbed[0]
