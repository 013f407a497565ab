"""What a prediction is given is compared with the training, and said where it is unlike it."""

import logging

import numpy as np
import pytest

from a2fjax import mesh_descriptor, rig
from a2fjax.audio import level, sound_descriptor
from a2fjax.data.identity import surface
from a2fjax.infer.training_conditions import TrainingConditions
from a2fjax.models import familiarity


def egg(seed=0):
    rng = np.random.default_rng(seed)
    points = np.random.default_rng(1).normal(size=(500, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    points[:, 2] += rng.uniform(0.2, 0.4) * np.exp(-20 * (points[:, :2] ** 2).sum(1))
    return points * [rng.uniform(0.7, 0.8), rng.uniform(1.2, 1.3), 1.0], None


def statistics(rows, groups, prefix, least=1e-6):
    deviation, bounds = familiarity.spread(rows, groups, least)
    values = {"mean": rows.mean(0), "deviation": deviation, "bounds": bounds}
    return {f"{prefix}_{name}": value for name, value in values.items()}


def said(caplog):
    return [record.getMessage() for record in caplog.records]


def test_meshes(caplog):
    none = np.zeros((0, 3), np.int32)
    rows = np.stack([surface.describe(egg(seed)[0], none) for seed in range(10)])
    conditions = TrainingConditions(statistics(rows, mesh_descriptor.GROUPS, "identity"))
    with caplog.at_level(logging.WARNING, "a2fjax"):
        vertices, _ = conditions.like_training(egg(20), "a.obj")
        np.testing.assert_allclose(vertices, egg(20)[0], atol=1e-6)
        assert said(caplog) == []
        turned = egg(20)[0][:, [0, 2, 1]] * [1, -1, 1]
        vertices, _ = conditions.like_training((turned, None), "b.obj")
        np.testing.assert_allclose(vertices, egg(20)[0], atol=1e-5)
        conditions.like_training((turned * [1, 9, 1], None), "c.obj")
    first, second = said(caplog)
    assert first.startswith("warning: b.obj: is turned by 90 degrees")
    assert second.startswith("warning: c.obj: ") and "is ignored: mean identity" in second
    assert second.endswith("give an .obj, .ply or .npz file with faces")


def test_emotions(caplog):
    conditions = TrainingConditions({"emotion_share": np.array([0.5, 0.5, 0, 0, 0], np.float32)})
    emotion = np.zeros((4, 5), np.float32)
    emotion[:, 1] = 1
    assert conditions.known_emotion(emotion) is emotion
    emotion[2:] = [0, 0, 0.8, 0, 0]
    found = conditions.known_emotion(emotion)
    np.testing.assert_allclose(found[2:], [[0.4, 0.4, 0, 0, 0]] * 2)
    np.testing.assert_array_equal(found[:2], emotion[:2])
    assert "emotion angry: not in the training data" in said(caplog)[0]
    zero = np.zeros((4, rig.NUM_EMOTIONS), np.float32)
    assert conditions.known_emotion(zero) is zero


def test_sound(speech, caplog):
    def described(audio):
        return sound_descriptor.band_levels(audio), level.speech_level(audio)

    rows = np.stack([sound_descriptor.describe(*described(speech(4.0, s))) for s in range(12)])
    conditions = TrainingConditions(statistics(rows, sound_descriptor.GROUPS, "sound", 3.0))
    for gain in (1.0, 0.3):
        assert conditions.sound_distance(*described(gain * speech(8.0, 50))) < 1
    noise = 0.1 * np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    conditions.check_sound(*described(noise), "a.wav")
    assert said(caplog)[0].startswith("warning: a.wav: sounds unlike the training data")
    assert conditions.sound_distance(*described(np.zeros(16_000, np.float32))) == 0


def test_a_model_without_statistics_accepts_everything(caplog):
    conditions = TrainingConditions({})
    vertices, faces = conditions.like_training(egg(), "a")
    assert len(vertices) == 500 and len(faces) == 0
    emotion = np.eye(5, dtype=np.float32)
    assert conditions.known_emotion(emotion) is emotion
    assert conditions.sound_distance(np.zeros((50, 20)), 0.1) == 0 and not said(caplog)


@pytest.mark.parametrize("samples", [100, 1000])
def test_short_sound_has_no_description(samples):
    assert sound_descriptor.describe(sound_descriptor.band_levels(np.ones(samples)), 0.1) is None
