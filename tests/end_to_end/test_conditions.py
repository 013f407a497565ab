"""What identity and emotion are for, on a set made here: training, checkpoint, report, no stand-in.

How far somebody opens the mouth follows the width of their head; every mesh has its own topology,
size and tilt. A habit (a pulled down corner of the mouth) follows nothing that a mesh shows.
"""

import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import rig
from a2fjax.animation import emotion as emotion_lib
from a2fjax.animation import formats
from a2fjax.audio import io
from a2fjax.cli import main as cli
from a2fjax.data import records
from a2fjax.evaluation.evaluator import evaluate
from a2fjax.infer.predictor import Predictor, Request
from a2fjax.training import trainer
from data_pipeline.stages import shard_writer as shards_lib

SEEN, UNSEEN = 24, 10
JAW, FROWN = rig.INDEX["jawOpen"], rig.INDEX["mouthFrownLeft"]
SMILE = rig.INDEX["mouthSmileLeft"]


def head(wide, tall, rings, tilt, size):
    """An ellipsoid with a nose, of its own resolution, tilted by degrees about (1, 2, 1)."""
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, rings), np.linspace(0, 2 * np.pi, 2 * rings, False)
    )
    direction = np.stack(
        [np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1
    )
    nose = np.exp(-((direction - [0, -0.1, 1]) ** 2).sum(-1) / 0.05)
    vertices = (direction * (1 + 0.25 * nose)[..., None] * [wide, tall, 1.0]).reshape(-1, 3)
    index = np.arange(theta.size).reshape(theta.shape)
    a, b = index[:, :-1], np.roll(index, -1, 0)[:, :-1]
    c, d = index[:, 1:], np.roll(index, -1, 0)[:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    axis = np.array([1.0, 2.0, 1.0]) / 6**0.5
    cross = np.cross(np.eye(3), axis)
    turn = np.radians(tilt)
    rotation = np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross
    return size * vertices @ rotation.T + [3.0, -40.0, 7.0], faces


def clip(subject, take, split, emotion, amplitude, habit, rng):
    frames = 80
    opening = np.clip(np.cumsum(rng.normal(size=frames)) / 3, -1, 1)
    opening = np.convolve(np.abs(opening), np.ones(5) / 5, "same")
    motion = np.zeros((frames, 72), np.float32)
    motion[:, JAW] = amplitude * opening
    motion[:, FROWN] = habit
    motion[:, SMILE] = 0.1 + 0.5 * (emotion == 1)
    audio = rng.standard_normal(frames * 320) * np.repeat(0.005 + 0.2 * opening, 320)
    return records.Clip(
        id=f"{subject}/{take}",
        subject=subject,
        sentence=f"{subject}-{take}",
        language="en",
        split=split,
        audio=np.clip(audio, -1, 1).astype(np.float32),
        motion=motion,
        channel_mask=np.ones(72, bool),
        frame_mask=np.ones(frames, bool),
        emotion=np.tile(np.eye(5, dtype=np.float32)[emotion], (frames, 1)),
        speech_level=0.1,
        synthetic=True,
    )


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    rng = np.random.default_rng(0)
    clips, people, meshes = [], [], {}
    for k in range(SEEN + UNSEEN):
        name, held_out = f"p{k:02d}", k >= SEEN
        wide, tall = rng.uniform(0.65, 0.95), rng.uniform(1.2, 1.4)
        meshes[name] = head(wide, tall, 20 + k % 5, rng.uniform(-8, 8), rng.uniform(1, 20))
        amplitude, habit = 0.6 + 3.0 * (wide - 0.8), rng.uniform(0.0, 0.2)
        for take in range(3):
            split = "test_subjects" if held_out else ("train", "test_sentences")[take // 2]
            clips.append(clip(name, take, split, take % 2, amplitude, habit, rng))
        people.append(records.Subject(name, f"subjects/{name}.npz", held_out))
    folder = tmp_path_factory.mktemp("set") / "shards"
    folder.mkdir()
    shards_lib.write_shards(
        folder, lambda: iter(clips), len(clips), 1,
        files=1, subjects=people, meshes=meshes, source=lambda statistics: {},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory, compile_once):
    def run(**changes):
        values = {
            "steps": 400,
            "data.shards": shards,
            "data.batch_size": 16,
            "data.window_frames": 48,
            "data.identity_points": 128,
            "data.augment.enabled": False,
            "model.conv_layers": 1,
            "model.conv_width": 24,
            "model.recurrent_width": 16,
            "model.recurrent": "causal",
            "model.dropout": 0.0,
            "model.emotion_dropout": 0.15,
            "optim.learning_rate": 0.01,
            "optim.warmup_steps": 20,
            "optim.ema_decay": 0.95,
            "eval.every_steps": 0,
            "checkpoint.every_steps": 400,
            "checkpoint.keep_best": 0,
            **changes,
        }
        folder = tmp_path_factory.mktemp("run") / "run"
        resolved = config_lib.load(None, {k: str(v) for k, v in values.items()})
        trainer.train(resolved, folder, say=lambda line: None)
        return folder

    return run


@pytest.fixture(scope="module")
def plain(trained):
    return Predictor.load(trained())


@pytest.fixture(scope="module")
def residual(trained):
    return trained(**{"model.identity_residual": True})


@pytest.fixture(scope="module")
def result(plain):
    return evaluate(plain, resamples=500)


@pytest.mark.slow
def test_a_stranger_s_style_is_told_by_the_mesh(result):
    part = result["splits"]["test_subjects"]
    change = part["difference"]["mean_identity"]["rmse_ratio"]
    low, high = change["low"], change["high"]
    assert part["subjects"] == UNSEEN
    assert 0.02 < low < high
    assert part["difference"]["shuffled_identity"]["rmse_ratio"]["low"] > 0.02
    assert "mean identity" in "\n".join(result["headline"])


@pytest.mark.slow
def test_a_residual_beside_the_mesh_harms_no_stranger(result, residual):
    model = Predictor.load(residual)
    assert model.subjects == tuple(f"p{k:02d}" for k in range(SEEN))
    own = evaluate(model, splits=["test_subjects"], resamples=300)["splits"]["test_subjects"]
    plain = result["splits"]["test_subjects"]
    assert own["model"]["rmse_ratio"] < 1.1 * plain["model"]["rmse_ratio"]
    assert own["difference"]["mean_identity"]["rmse_ratio"]["low"] > 0.02
    audio = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    nobody, other = (model(audio, subject=name) for name in (None, "somebody else"))
    np.testing.assert_array_equal(nobody, other)
    named = [model(audio, subject=name)[:, FROWN].mean() for name in model.subjects]
    assert np.ptp(named) > 0.005


@pytest.mark.slow
def test_the_command_finds_the_residual_by_the_subject_s_name(residual, shards, tmp_path):
    wav = tmp_path / "in.wav"
    io.save(wav, np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1)
    model = Predictor.load(residual)
    mesh = records.read_mesh(shards / "subjects/p03.npz")
    found = {}
    for name, value in (("name", "p03"), ("mesh", str(shards / "subjects/p03.npz"))):
        out = tmp_path / f"{name}.npz"
        command = ["infer", residual, "--audio", wav, "--out", out, "--identity", value]
        assert cli.main([str(each) for each in command]) == 0
        found[name] = formats.read(out).motion
    audio = io.load(wav)
    np.testing.assert_allclose(found["name"], model(audio, identity=mesh, subject="p03"), atol=1e-5)
    np.testing.assert_allclose(found["mesh"], model(audio, identity=mesh), atol=1e-5)


@pytest.mark.slow
def test_without_meshes_the_residual_is_all_there_is(trained, tmp_path, capsys):
    run = trained(**{"model.identity": "none", "model.identity_residual": True})
    model = Predictor.load(run)
    assert "identity" not in model.params and len(model.subjects) == SEEN
    splits = evaluate(model, resamples=300)["splits"]
    # By name it knows how the people of the training set speak; of strangers it knows nothing.
    assert splits["test_sentences"]["difference"]["mean_identity"]["rmse_ratio"]["low"] > 0.02
    change = splits["test_subjects"]["difference"]["mean_identity"]["rmse_ratio"]
    assert (change["low"], change["high"]) == (0, 0)
    wav, out = tmp_path / "in.wav", tmp_path / "x.npz"
    io.save(wav, np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.1)
    command = ["infer", run, "--audio", wav, "--out", out, "--identity"]
    assert cli.main([str(each) for each in [*command, "p03"]]) == 0
    assert cli.main([str(each) for each in [*command, "p033"]]) == 2
    assert "knows its training subjects only; did you mean 'p0" in capsys.readouterr().err


def smile(model, emotion, frames=60):
    audio = np.random.default_rng(0).standard_normal(frames * 320).astype(np.float32) * 0.1
    (motion,) = model.batch([Request(audio, None, np.asarray(emotion, np.float32))])
    return motion[:, SMILE]


@pytest.mark.slow
def test_more_happiness_is_more_smile_steadily(plain):
    blends = [np.array([1 - x, x, 0, 0, 0]) for x in np.linspace(0, 1, 11)]
    mean = np.array([smile(plain, blend).mean() for blend in blends])
    steps = np.diff(mean)
    assert mean[-1] - mean[0] > 0.35
    assert (steps > 0).all()
    assert steps.max() < 3 * steps.mean()


@pytest.mark.slow
def test_neutral_and_not_told_are_two_things(plain, result):
    neutral, happy, untold = (smile(plain, e).mean() for e in (*np.eye(5)[:2], np.zeros(5)))
    default = plain(np.random.default_rng(0).standard_normal(60 * 320).astype(np.float32) * 0.1)
    assert default[:, SMILE].mean() == pytest.approx(neutral)
    # Half of the training clips were happy: not knowing, the mean of both is the best guess.
    assert neutral + 0.1 < untold < happy - 0.1
    part = result["splits"]["test_sentences"]
    assert part["difference"]["no_emotion"]["rmse_ratio"]["low"] > 0


@pytest.mark.slow
def test_a_step_between_emotions_is_no_jump_of_the_face(plain, tmp_path):
    keys = '{"times": [0, 0.6], "weights": [{"neutral": 1}, {"happy": 1}], "interpolation": "step"}'
    (tmp_path / "step.json").write_text(keys)
    track = emotion_lib.parse(str(tmp_path / "step.json")).sample(60)
    hard = np.repeat(np.eye(5)[:2], 30, axis=0)
    blended, jumped = smile(plain, track), smile(plain, hard)
    assert blended[-1] - blended[0] > 0.35
    change = np.abs(np.diff(blended)).max()
    assert change < 0.1 and change < 0.6 * np.abs(np.diff(jumped)).max()
