"""Configurations from Python, and a task of one's own that outlives the process that trained it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.data import records
from data_pipeline.stages import shard_writer

SMALL = {
    "model.identity": "none",
    "model.conv_layers": 1,
    "model.conv_width": 8,
    "model.recurrent_width": 8,
    "data.batch_size": 2,
    "data.window_frames": 64,
    "optim.warmup_steps": 1,
    "eval.every_steps": 0,
    "checkpoint.keep_best": 0,
    "steps": 2,
}
TASK = """
from a2fjax.tasks.regression import RegressionTask


class Doubled(RegressionTask):
    def loss(self, variables, batch, key, *, step, train):
        total, terms = super().loss(variables, batch, key, step=step, train=train)
        return 2 * total, terms

    def total(self, terms):
        return 2 * super().total(terms)
"""


def test_overrides_are_python_values(tmp_path):
    resolved = a2f.config(
        None, {"data.shards": [tmp_path / "a", "b"], "remat": "dots", "optim.ema_decay": 0.5}
    )
    assert resolved.config.data.shards == (str(tmp_path / "a"), "b")
    assert resolved.config.optim.ema_decay == 0.5
    with pytest.raises(a2f.InputError, match="did you mean 'steps'"):
        a2f.config(None, {"stepz": 1})


def test_a_task_must_be_importable(shards, tmp_path):
    class Local:
        pass

    config = a2f.config(None, {**SMALL, "data.shards": shards})
    with pytest.raises(a2f.InputError, match="at the top of an importable module"):
        a2f.train(config, tmp_path / "run", task=Local)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    clips = [
        records.Clip(
            id=f"s/{k}", subject="s", sentence=str(k), language="en", split="train",
            audio=0.1 * rng.standard_normal(100 * 320).astype(np.float32),
            motion=rng.random((100, 72)).astype(np.float32), channel_mask=np.ones(72, bool),
            frame_mask=np.ones(100, bool), speech_level=0.1, synthetic=True,
            emotion=np.tile(np.eye(5, dtype=np.float32)[0], (100, 1)),
        )
        for k in range(4)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("shards")
    shard_writer.write_shards(
        folder, lambda: iter(clips), len(clips), 1, files=1,
        subjects=[records.Subject("s", None, False)], meshes={}, source=lambda statistics: {},
    )  # fmt: skip
    return folder


@pytest.mark.slow
def test_a_task_of_ones_own_survives_reload_and_init_from(shards, tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text(TASK)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_tasks

    config = a2f.config(None, {**SMALL, "data.shards": shards})
    lines = []
    run = a2f.train(config, tmp_path / "run", task=my_tasks.Doubled, say=lines.append)
    assert json.loads((run.path / "config.json").read_text())["config"]["task"] == (
        "my_tasks:Doubled"
    )
    assert any("finished" in line for line in lines)
    (logged,) = run.metrics()
    assert run.to_pandas().loc[2, "train/loss"] == logged["train/loss"]
    terms = sum(logged[f"train/loss/{name}"] for name in ("position", "velocity"))
    assert logged["train/loss"] > 1.5 * terms
    model = run.load()
    assert type(model.predictor().task).__name__ == "Doubled"
    motion = model.predict((np.zeros(16_000) + 1e-3, 16_000))
    assert motion.curves.shape == (50, rig.NUM_CHANNELS)
    # A process that knows nothing but the run folder rebuilds it, and continues from it.
    code = "import sys, a2fjax as a2f\nprint(type(a2f.load(sys.argv[1]).predictor().task).__name__)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True,
        env=environment, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "Doubled"
    start = a2f.config(None, {**SMALL, "data.shards": shards, "init_from": run.path})
    other = a2f.train(start, tmp_path / "other", task="my_tasks:Doubled", say=lines.append)
    assert type(other.load().predictor().task).__name__ == "Doubled"
