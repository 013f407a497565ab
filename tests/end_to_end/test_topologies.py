"""The real model, real shards and the command line: any processes and devices, the same run."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from a2fjax.training import checkpoints

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def train(setup, run, processes, devices, *changes):
    """Trains to the end in so many processes of so many devices each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "a2fjax.cli.main", "train", "--workdir", str(run)),
        *("--config", str(setup / "experiment.py"), f"--config.data.shards={setup / 'shards'}"),
        *(
            "--config.data.batch_size=8",
            "--config.steps=20",
            "--config.eval.every_steps=0",
            "--config.checkpoint.keep_latest=9",
            *changes,
        ),
    ]
    started = []
    for number in range(processes):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "A2F_COORDINATOR": f"127.0.0.1:{port}",
            "A2F_NUM_PROCESSES": str(processes),
            "A2F_PROCESS_ID": str(number),
            "A2F_SECRET": f"{port:064d}",
            "A2F_LOCAL_DEVICES": str(devices),
        }
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    try:
        output = [process.communicate(timeout=300)[0].decode() for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    assert [process.returncode for process in started] == [0] * processes, output


def losses(run):
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    return np.array([x["train/loss"] for x in lines if "train/loss" in x])


@pytest.fixture(scope="module")
def undisturbed(setup, tmp_path_factory):
    run = tmp_path_factory.mktemp("topologies") / "run"
    train(setup, run, 1, 4, "--config.data.workers=2")
    return run


def without_later_states(run, step, other):
    """Copies a run as it was after a step."""
    shutil.copytree(run, other)
    for later in checkpoints.steps(other):
        if later > step:
            shutil.rmtree(other / "checkpoints" / str(later))
    assert checkpoints.steps(other)[-1] == step
    return other


def test_losses_do_not_depend_on_the_machines_nor_on_where_a_run_resumes(
    setup, undisturbed, tmp_path
):
    cut = without_later_states(undisturbed, 5, tmp_path / "cut over two processes")
    train(setup, cut, 2, 2, "--config.sharding.fsdp=2", "--config.sharding.min_mib=1e-4")
    expected = losses(undisturbed)
    assert len(expected) == len(losses(cut)) == 20
    np.testing.assert_allclose(losses(cut), expected, rtol=0, atol=1e-6)
    # What two processes wrote in pieces, one device reads whole.
    one = without_later_states(cut, 15, tmp_path / "one device")
    train(setup, one, 1, 1)
    np.testing.assert_allclose(losses(one), expected, rtol=0, atol=1e-6)
