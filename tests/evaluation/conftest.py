"""A small set of shards, and stand-ins for models whose right answers are known."""

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.configuration import Config, DataConfig
from a2fjax.data import records
from a2fjax.infer.training_conditions import TrainingConditions
from data_pipeline.stages import shard_writer as shards_lib

PEOPLE = {"p0": False, "p1": False, "p2": False, "u0": True, "u1": True}


def make_clip(subject, take, split, emotion, rng):
    frames = int(rng.integers(110, 170))
    t = np.arange(frames) / 50
    phase = 2 * np.pi * (rng.uniform(3, 6) * t + 0.4 * np.sin(3 * t + rng.uniform(0, 6)))
    opening = rng.uniform(0.3, 0.6) * np.clip(0.5 - 0.6 * np.cos(phase), 0, None)
    motion = np.zeros((frames, 72), np.float32)
    motion[:, rig.INDEX["jawOpen"]] = opening
    motion[:, rig.INDEX["mouthSmileLeft"]] = 0.1 * rig.EMOTIONS.index(emotion) + 0.1 * opening
    motion[:, rig.INDEX["eyeBlinkLeft"]] = rng.random(frames) < 0.02
    audio = rng.standard_normal(frames * 320).astype(np.float32)
    audio *= np.repeat(0.02 + 0.2 * opening, 320).astype(np.float32)
    emotions = np.zeros((frames, 5), np.float32)
    emotions[:, rig.EMOTIONS.index(emotion)] = 1
    return records.Clip(
        id=f"{subject}/{take}",
        subject=subject,
        sentence=f"s{take}",
        language="en",
        split=split,
        audio=np.clip(audio, -1, 1),
        motion=motion,
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(frames, bool),
        emotion=emotions,
        speech_level=0.1,
        synthetic=True,
    )


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    clips, meshes = [], {}
    for subject, held_out in PEOPLE.items():
        for take, emotion in enumerate(("neutral", "happy", "angry", "sad")):
            split = "test_subjects" if held_out else ("train", "test_sentences")[take % 2]
            clips.append(make_clip(subject, take, split, emotion, rng))
        meshes[subject] = (rng.standard_normal((40, 3)), np.zeros((0, 3)))
    people = [records.Subject(s, f"subjects/{s}.npz", h) for s, h in PEOPLE.items()]
    make_set(folder, clips, people, meshes)
    return folder, clips


def make_set(folder, clips, people, meshes):
    shards_lib.write_shards(
        folder,
        lambda: iter(clips),
        len(clips),
        1,
        files=1,
        subjects=people,
        meshes=meshes,
        source=lambda statistics: {},
    )


class StandIn:
    """Knows the truth by its audio; `change` makes a prediction of (truth, request)."""

    def __init__(self, shards, change):
        folder, clips = shards
        # As stored: 16 bits, so that the very same samples come back.
        self.truth = {self.key(records.decode(records.encode(c)).audio): c.motion for c in clips}
        self.change = change
        self.config = Config(data=DataConfig(shards=(str(folder),)))
        self.step, self.fingerprint, self.subjects = 7, "stand-in@7", ()
        self.training = TrainingConditions({})

    @staticmethod
    def key(audio):
        return len(audio), float(np.round(np.abs(audio).sum(), -2))

    def points(self, mesh, name="identity"):
        return mesh[0][:8] / np.abs(mesh[0]).max()

    def batch(self, requests):
        return [self.change(self.find(r.audio), r) for r in requests]

    def find(self, audio):
        # Noise changes the sum; the length is then nearly enough to know the clip by.
        near = [k for k in self.truth if k[0] == len(audio)]
        best = min(near, key=lambda k: abs(k[1] - self.key(audio)[1]))
        return self.truth[best]


@pytest.fixture(scope="session")
def stand_in():
    """Returns a class of models that know the truth: (shards, change of (truth, request))."""
    return StandIn


@pytest.fixture(scope="session")
def write_clip():
    """Returns a function of (subject, take, split, emotion, rng) that makes a clip."""
    return make_clip


@pytest.fixture(scope="session")
def write_set():
    """Returns a function of (folder, clips, people, meshes) that writes shards."""
    return make_set


@pytest.fixture(scope="session")
def people():
    """Returns whether each subject of `shards` is held out, by name."""
    return PEOPLE
