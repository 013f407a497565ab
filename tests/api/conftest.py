import dataclasses

import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import rig
from a2fjax.audio import num_frames
from a2fjax.infer import predictor
from a2fjax.infer.training_conditions import TrainingConditions


class StandIn:
    """A predictor whose motion shows what it was given; keeps its calls."""

    stride, most_frames, step, fingerprint, streams = 1, None, 20, "stand-in@20", False
    subjects = ()
    training = TrainingConditions({})

    def __init__(self, sample):
        self.sample, self.calls = dict(sample or {}), []

    def points(self, mesh, name="identity"):
        return np.asarray(mesh[0])

    def __call__(self, audio, **given):
        self.calls.append({"audio": audio, **given})
        motion = np.full((num_frames(len(audio)), 72), 0.2, np.float32)
        motion[:, rig.INDEX["jawOpen"]] += 0.1 * given["sample_index"]
        if given.get("inpaint_mask") is not None:
            motion = np.where(given["inpaint_mask"], given["inpaint_motion"], motion)
        return motion


@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """A run folder without weights, whose predictor is a stand-in: (overrides) -> folder."""
    monkeypatch.setattr(
        predictor.Predictor,
        "load",
        classmethod(lambda cls, run, step=None, *, sample=None, lookahead_ms=None: StandIn(sample)),
    )

    def make(**overrides):
        folder = tmp_path / "run"
        folder.mkdir()
        resolved = config_lib.load(None, {k.replace("__", "."): v for k, v in overrides.items()})
        (folder / "config.json").write_text(resolved.to_json())
        return folder

    return make


@pytest.fixture
def diffusion_run(make_run):
    return make_run(model__kind="diffusion", model__emotion_dropout="0.1")


@pytest.fixture
def audio():
    """One and a half seconds of noise with its rate."""
    return 0.1 * np.random.default_rng(0).standard_normal(72_000), 48_000


def replace(motion, **changes):
    return dataclasses.replace(motion, **changes)
