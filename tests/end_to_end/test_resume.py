"""The command line, the real model and real shards: killed anywhere, a run ends the same.

The undisturbed run compiles for itself; the disturbed ones share a compilation of their own.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax.training import checkpoints, tracking

ROOT = Path(__file__).resolve().parents[2]


def start(setup, run, *options, cache=True, limit=None):
    """Starts `a2fjax train`; `limit` bounds the size of files it may write, in bytes."""
    command = [
        *(sys.executable, "-m", "a2fjax.cli.main", "train", "--workdir", str(run)),
        *("--config", str(setup / "experiment.py")),
        *(f"--config.data.shards={setup / 'shards'}", *options),
    ]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(setup / "compiled")
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    else:
        environment["A2F_CACHE"] = "off"

    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if limit:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    return process


def finish(process, code=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    return out, err


def wait_for(process, condition):
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.0005)


def written(run):
    path = run / "metrics.jsonl"
    return path.stat().st_mtime if path.exists() else 0.0


def lines(run):
    return len((run / "metrics.jsonl").read_bytes().splitlines())


def result(run):
    """What must be equal: all numbers but the clock's, and every byte of the last state."""
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        found.append({k: v for k, v in values.items() if not k.startswith(tracking.MEASURED)})
    weights = {}
    for item in checkpoints.ITEMS:
        step, params, meta = checkpoints.load_params(run, item=item)
        leaves = jax.tree_util.tree_leaves_with_path(params)
        weights[item] = {jax.tree_util.keystr(p): x.tobytes() for p, x in leaves}
    return found, weights, step, meta["metrics"]


@pytest.fixture(scope="module")
def undisturbed(setup):
    run = setup / "undisturbed"
    out, err = finish(start(setup, run, cache=False))
    assert "compiled in" in out and "step 40/40" in out and "finished" in out
    assert err == ""
    expected = result(run)
    assert [x["step"] for x in expected[0] if "train/loss" in x] == list(range(1, 41))
    assert [x["step"] for x in expected[0] if "eval/loss" in x] == [10, 20, 30, 40]
    assert expected[2] == 40
    return expected


@pytest.mark.slow
def test_killed_in_steps_and_in_saves_the_run_ends_the_same(setup, undisturbed):
    run = setup / "killed"
    folder = run / "checkpoints"
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    torn = 0
    for attempt in range(8):
        process = start(setup, run)
        if attempt % 2:  # While a state is being written, the second or later of this start.
            before = set(checkpoints.steps_in(folder))
            wait_for(process, lambda b=before: set(checkpoints.steps_in(folder)) - b)
            wait_for(process, lambda: any(folder.glob("*-tmp*")))
            time.sleep(rng.uniform(0, 0.02))
        else:  # Some steps after the state it continued from.
            began = time.time()
            wait_for(process, lambda t=began: written(run) > t)
            target = lines(run) + int(rng.integers(1, 7))
            wait_for(process, lambda n=target: lines(run) >= n)
            time.sleep(rng.uniform(0, 0.01))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        torn += any(folder.glob("*-tmp*"))
        if attempt and torn:
            break
    assert torn, "no kill hit a save"
    out, err = finish(start(setup, run))
    assert "continuing after step" in out and err == ""
    assert result(run) == undisturbed
    assert not any(folder.glob("*-tmp*"))


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_continues_the_same(setup, undisturbed, tell_again):
    run = setup / "stopped"
    process = start(setup, run)
    wait_for(process, lambda: written(run) and lines(run) >= 7)
    tell_again(process)
    out, err = finish(process, code=75)
    (line,) = err.strip().splitlines()
    step = checkpoints.steps(run)[-1]
    assert line.startswith("a2fjax train: stopped: SIGTERM") and f"saved after step {step} " in line
    assert 7 <= step < 40
    finish(start(setup, run))
    assert result(run) == undisturbed


@pytest.mark.slow
def test_without_room_for_a_checkpoint_it_fails_in_one_line(setup):
    run = setup / "full"
    # Its largest tensor is 190 kB; how many files a state has depends on the time that it takes.
    wide = "--config.model.recurrent_width=128"
    out, err = finish(start(setup, run, wide, cache=False, limit=100_000), code=1)
    (line,) = err.strip().splitlines()
    assert "checkpoint 5 of" in line and "none is complete" in line and "File too large" in line
    assert checkpoints.steps(run) == []
