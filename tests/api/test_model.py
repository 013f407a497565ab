"""Arguments of `predict` reach the predictor, and mistakes are one line."""

import numpy as np
import pytest

import a2fjax as a2f
from a2fjax import rig
from a2fjax.audio import io
from a2fjax.data import records

VERTICES = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)


def calls(model):
    (stand_in,) = model._predictors.values()
    return stand_in.calls


def test_paths_and_samples_give_the_same(make_run, audio, tmp_path):
    model = a2f.load(make_run())
    assert "newest step" in repr(model)
    samples, rate = audio
    io.save(tmp_path / "a.wav", samples.astype(np.float32), rate)
    one, other = model.predict(audio), model.predict(tmp_path / "a.wav")
    assert len(one) == len(other) == 75 and one.fps == 50
    assert one.title == "audio  ·  run step 20" and other.metadata["audio"] == "a.wav"
    first, second = (call["audio"] for call in calls(model))
    assert len(first) == 24_000 and np.abs(first - second)[100:-100].max() < 1e-3
    assert model.step == 20 and "step 20" in repr(model)
    stereo = np.stack([samples, -samples], 1)
    model.predict((stereo, rate))
    np.testing.assert_allclose(calls(model)[-1]["audio"], first, atol=1e-6)


@pytest.mark.parametrize(
    "emotion, expected",
    [
        (None, [1, 0, 0, 0, 0]),
        ("happy=0.7", [0.3, 0.7, 0, 0, 0]),
        ({"happy": 0.5, "sad": 0.5}, [0, 0.5, 0, 0.5, 0]),
        ([0, 0, 1, 0, 0], [0, 0, 1, 0, 0]),
        (np.tile(np.eye(5)[3], (75, 1)), [0, 0, 0, 1, 0]),
    ],
)
def test_emotions_in_every_form(make_run, audio, emotion, expected):
    model = a2f.load(make_run())
    motion = model.predict(audio, emotion=emotion)
    given = calls(model)[0]["emotion"]
    np.testing.assert_allclose(given, np.tile(expected, (75, 1)), atol=1e-6)
    np.testing.assert_array_equal(motion.emotion, given)


def test_weights_of_each_frame_stay_as_they_are(make_run, audio):
    weights = np.random.default_rng(0).dirichlet(np.ones(5), 75)
    model = a2f.load(make_run())
    model.predict(audio, emotion=weights)
    np.testing.assert_allclose(calls(model)[0]["emotion"], weights, atol=1e-5)


def test_identities_in_every_form(make_run, audio, tmp_path):
    shards = tmp_path / "shards"
    records.write_mesh(shards / "anna.npz", VERTICES, np.zeros((0, 3)))
    subjects = [records.Subject("anna", "anna.npz", False)]
    records.write_manifest(shards, records.Manifest(subjects, [], [True] * 72, {}, True, {}))
    np.save(tmp_path / "mesh.npy", VERTICES)
    model = a2f.load(make_run())
    for identity in (tmp_path / "mesh.npy", VERTICES, (VERTICES, None), "anna"):
        model.predict(audio, identity=identity, shards=[shards])
        np.testing.assert_allclose(calls(model)[-1]["identity"], VERTICES)
    model.predict(audio)
    assert calls(model)[-1]["identity"] is None


def test_samples_and_sampling_settings(diffusion_run, audio):
    model = a2f.load(diffusion_run)
    assert model.is_sampled
    motions = model.predict(
        audio, samples=3, sampler="ddim", sample_steps=4, sample_seed=9, guidance={"audio": 1.5}
    )
    np.testing.assert_allclose([m["jawOpen"][0] for m in motions], [0.2, 0.3, 0.4], rtol=1e-5)
    (stand_in,) = model._predictors.values()
    assert stand_in.sample == {"sampler": "ddim", "steps": 4, "seed": 9, "audio": 1.5}
    assert motions[2].metadata["sample"] == "2" and motions[2].title.endswith("sample 2")
    assert isinstance(model.predict(audio), a2f.Motion)


@pytest.mark.parametrize("as_file", [False, True])
def test_inpainting_keeps_the_rest_of_a_motion(diffusion_run, audio, tmp_path, as_file):
    model = a2f.load(diffusion_run)
    given = a2f.Motion(np.full((75, 72), 0.7))
    before = given.save(tmp_path / "a.npz") if as_file else given
    motion = model.predict(audio, inpaint=before, inpaint_channels=["jaw"], inpaint_range=(0.5, 1))
    predicted = np.zeros((75, 72), bool)
    predicted[25:50, rig.GROUPS["jaw"]] = True
    assert (motion.curves[predicted] < 0.5).all()
    np.testing.assert_allclose(motion.curves[~predicted], given.curves[~predicted])


def test_adjustments_follow_the_model(make_run, audio):
    model = a2f.load(make_run())
    motion = model.predict(audio, gain={"jawOpen": 2}, offset=["mouthClose=0.1"], smooth_ms=20)
    np.testing.assert_allclose(motion["jawOpen"], 0.4, rtol=1e-5)
    np.testing.assert_allclose(motion["mouthClose"], 0.3, rtol=1e-5)


def test_files_are_written_as_the_motion_comes(diffusion_run, audio, tmp_path):
    pytest.importorskip("matplotlib")
    model = a2f.load(diffusion_run)
    done = []
    written = model.predict_to_files(
        audio,
        [tmp_path / "x.csv", tmp_path / "x.channels.csv"],
        fps="59.94",
        figure=tmp_path / "x.svg",
        samples=2,
        progress=lambda frames, total: done.append((frames, total)),
    )
    names = ["x.sample0.channels.csv", "x.sample0.csv", "x.sample0.svg"]
    names.append("x.sample0.tongue_eyes.channels.csv")
    names += [name.replace("0", "1") for name in names]
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_file()) == names
    assert written.frames == 90 and written.seconds == 1.5 and len(written.outputs) == 6
    assert done == [(75, 75)] * 2
    assert a2f.Motion.read(tmp_path / names[4])["jawOpen"].mean() == pytest.approx(0.3, abs=1e-5)


CASES = {
    "no such file": (("none.wav",), {}, "none.wav: no such file"),
    "no pair": ((np.zeros(10),), {}, r"expected a path or a pair \(samples, rate\)"),
    "integers": (((np.zeros(99, np.int16), 16_000),), {}, "divide 16-bit samples by 32768"),
    "rate": (((np.zeros(99), 0),), {}, "audio rate 0"),
    "not finite": (((np.full(99, np.nan), 16_000),), {}, "sample at 0.0000 s is not a finite"),
    "emotion": (None, {"emotion": "hapy"}, "did you mean 'happy'"),
    "emotion shape": (None, {"emotion": [1, 0]}, r"emotion has shape \(2,\)"),
    "emotion sum": (None, {"emotion": [1, 1, 0, 0, 0]}, "sum to at most 1"),
    "unspecified": (None, {"emotion": "none"}, "model.emotion_dropout=0"),
    "mesh": (None, {"identity": np.zeros((2, 3))}, "has 2 vertices"),
    "samples": (None, {"samples": 2}, "samples: .* no diffusion run"),
    "no samples": (None, {"samples": 0}, "samples=0: expected at least 1"),
    "steps": (None, {"sample_steps": 2}, "steps: .* no diffusion run"),
    "guidance": (None, {"guidance": "voice=1"}, "unknown condition"),
    "inpaint": (None, {"inpaint_range": (0, 1)}, "give the motion as inpaint"),
    "gain": (None, {"gain": {"jawOpn": 1}}, "did you mean 'jawOpen'"),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_name_what_is_wrong(make_run, audio, case):
    arguments, keywords, message = CASES[case]
    model = a2f.load(make_run())
    with pytest.raises(a2f.InputError, match=message):
        model.predict(*(arguments or (audio,)), **keywords)


def test_a_model_without_identity_refuses_one(make_run, audio):
    model = a2f.load(make_run(model__identity="none"))
    with pytest.raises(a2f.InputError, match="model.identity='none'; give no identity"):
        model.predict(audio, identity=VERTICES)
