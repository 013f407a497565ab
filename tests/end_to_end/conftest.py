"""One small experiment, its shards, and a run trained on them by the command line."""

import types
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.data import records
from data_pipeline.stages import shard_writer as shards_lib

EXPERIMENT = """
def get_config(variant=""):
    return {
        "name": "resume",
        "steps": 40,
        "data": {"batch_size": 4, "window_frames": 32, "identity_points": 32},
        "model": {
            "conv_layers": 1, "conv_width": 8, "recurrent_width": 8, "identity_width": 4,
            "emotion_width": 4, "condition_dropout": 0.2,
        },
        "optim": {"warmup_steps": 5},
        "checkpoint": {"every_steps": 5},
        "eval": {"every_steps": 10, "batches": 2},
        "log": {"every_steps": 1},
    }
"""
SPLITS = ["train"] * 6 + ["val"] * 2 + ["test_sentences"] * 2


def clip(number, split):
    """A hum whose loudness opens the jaw; even and odd numbers are two people."""
    rng = np.random.default_rng(number)
    samples = 24000 + 1000 * number
    frames = records.num_frames(samples)
    time_s = np.arange(samples) / 16000
    open_jaw = np.clip(np.sin(2 * np.pi * (1.0 + 0.1 * number) * time_s), 0, None)
    audio = 0.2 * open_jaw * np.sin(2 * np.pi * 140 * time_s) + 0.002 * rng.normal(size=samples)
    motion = np.zeros((frames, rig.NUM_CHANNELS), np.float32)
    motion[:, rig.INDEX["jawOpen"]] = 0.6 * open_jaw[::320]
    motion[:, rig.INDEX["mouthSmileLeft"]] = 0.1 * (number % 3)
    emotion = np.zeros((frames, rig.NUM_EMOTIONS), np.float32)
    emotion[:, number % rig.NUM_EMOTIONS] = 1
    return records.Clip(
        id=f"s{number % 2}/{number}",
        subject=f"s{number % 2}",
        sentence=f"{split} {number}",
        language="en",
        split=split,
        audio=audio.astype(np.float32),
        motion=motion,
        channel_mask=np.ones(rig.NUM_CHANNELS, bool),
        frame_mask=np.ones(frames, bool),
        emotion=emotion,
        speech_level=0.1,
        synthetic=True,
    )


def write_experiment(root: Path) -> Path:
    """Writes ROOT/experiment.py and ROOT/shards: ten clips of two people in two files."""
    (root / "shards").mkdir()
    clips = [clip(n, split) for n, split in enumerate(SPLITS)]
    rng = np.random.default_rng(0)
    meshes = {
        f"s{k}": (rng.normal(size=(50, 3)) * [1, 1.2 + 0.2 * k, 0.8], np.zeros((0, 3)))
        for k in range(2)
    }
    shards_lib.write_shards(
        root / "shards",
        lambda: iter(clips),
        len(clips),
        1,
        files=2,
        subjects=[records.Subject(s, f"subjects/{s}.npz", False) for s in meshes],
        meshes=meshes,
        source=lambda statistics: {},
    )
    (root / "experiment.py").write_text(EXPERIMENT)
    return root


def train_arguments(root: Path, run: Path, *changes: str) -> list[str]:
    """Returns the arguments of `a2fjax` for three steps, without evaluation."""
    return [
        "train",
        f"--config={root / 'experiment.py'}",
        f"--workdir={run}",
        f"--config.data.shards={root / 'shards'}",
        *("--config.steps=3", "--config.optim.warmup_steps=1", "--config.eval.every_steps=0"),
        *("--config.checkpoint.every_steps=2", "--config.checkpoint.keep_best=0"),
        *changes,
    ]


@pytest.fixture(scope="session")
def setup(tmp_path_factory):
    """A folder with experiment.py and shards."""
    return write_experiment(tmp_path_factory.mktemp("setup"))


@pytest.fixture(scope="session")
def trained(setup, compile_once):
    """A run of three steps with its shards: `.root`, `.shards`, `.run`, `.arguments(run, ...)`."""
    from a2fjax.cli import main

    assert main.main(train_arguments(setup, setup / "run")) == 0
    return types.SimpleNamespace(
        root=setup,
        shards=setup / "shards",
        run=setup / "run",
        arguments=lambda run, *changes: train_arguments(setup, run, *changes),
    )
