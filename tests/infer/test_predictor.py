import jax
import numpy as np
import pytest

from a2fjax import rig, tasks
from a2fjax.audio import level, num_frames
from a2fjax.data.identity import points as identity
from a2fjax.errors import InputError
from a2fjax.infer import predictor
from a2fjax.infer.predictor import Request


def face(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((60, 3)).astype(np.float32) * [1, 1.5, 0.8], None


def test_buckets_are_few_and_close():
    sizes = [predictor.padded_length(n) for n in range(1, 5000)]
    assert all(size >= n for n, size in enumerate(sizes, 1))
    assert all(size <= 1.5 * n + 1 for n, size in enumerate(sizes, 1) if n > 64)
    assert len(set(sizes)) <= 14


@pytest.mark.parametrize("samples", [2, 319, 320, 321, 20480, 20481])
def test_every_length_gives_the_frames_that_cover_it(model, speech, samples):
    motion = model(speech(2.0)[:samples])
    assert motion.shape == (num_frames(samples), 72) and motion.dtype == np.float32
    assert (motion >= rig.MIN).all() and (motion <= rig.MAX).all()


def test_padding_and_company_change_nothing(model, speech):
    """The batch is compared with each clip at its exact length, run without any padding."""
    clips = [speech(s, seed=i) for i, s in enumerate([1.3, 1.31, 0.4, 1.29])]
    meshes = [None, face(1), face(2), None]
    emotions = [None, np.eye(5)[1], np.eye(5)[2], None]
    requests = [Request(*each) for each in zip(clips, meshes, emotions, strict=True)]
    together = model.batch(requests)
    for request, found in zip(requests, together, strict=True):
        frames = num_frames(len(request.audio))
        (alone,) = model._run([request], frames)
        assert found.shape == alone.shape == (frames, 72)
        assert np.abs(found - alone).max() < 2e-5


def test_the_batch_a_model_gets_is_the_contract(model, speech):
    seen = []

    given = model.task.model

    class Task:
        model = given

        def predict(self, params, batch):
            seen.append(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch))
            return batch.motion

    spy = predictor.Predictor(model.config, Task(), {})
    spy.batch([Request(speech(1.0)), Request(speech(0.9)), Request(speech(1.1))])
    wanted = predictor.batch_shapes(model.config, 4, 64)
    assert seen == [wanted]


def test_identity_and_emotion_reach_the_model(model, speech):
    audio = speech(1.0)
    plain = model(audio)
    assert np.abs(model(audio, identity=face()) - plain).mean() > 1e-3
    assert np.abs(model(audio, emotion=np.eye(5)[2]) - plain).mean() > 1e-2
    assert np.array_equal(model(audio, emotion=np.eye(5)[0]), plain)
    track = np.tile(np.eye(5)[2], (50, 1))
    assert np.array_equal(model(audio, emotion=track), model(audio, emotion=np.eye(5)[2]))


def test_points_may_be_sampled_before(model, speech):
    vertices, faces = face()
    points = identity.sample_points(vertices, faces, 32)
    assert np.array_equal(model.points((vertices, faces)), points)
    audio = speech(0.5)
    assert np.array_equal(model(audio, identity=points), model(audio, identity=(vertices, faces)))


def test_how_loud_a_recording_is_does_not_matter(model, speech):
    audio = speech(2.0)
    assert np.abs(model(audio * 0.3) - model(audio)).max() < 1e-3
    given = model(audio * 0.3, speech_level=level.speech_level(audio * 0.3))
    assert np.array_equal(given, model(audio * 0.3))
    assert np.abs(model(audio, speech_level=1.0) - model(audio)).max() > 1e-2


def test_wrong_clips(model, speech):
    audio = speech(1.0)
    for wrong, message in (
        (Request(np.zeros(0)), "shape"),
        (Request(np.zeros((10, 2))), "shape"),
        (Request(np.array([0.1, np.nan])), "not finite"),
        (Request(audio, emotion=np.zeros(4)), "emotion has shape"),
        (Request(audio, emotion=np.zeros((49, 5))), "emotion has shape"),
        (Request(audio, emotion=np.array([0.5, 0.7, 0, 0, 0])), "sum to at most 1"),
        (Request(audio, emotion=np.array([1.0, -0.2, 0, 0, 0])), "at least 0"),
        (Request(audio, emotion=np.full(5, np.nan)), "emotion weights from nan"),
        (Request(audio, identity=(np.zeros((0, 3)), None)), "vertices"),
    ):
        with pytest.raises(InputError, match=message):
            model.batch([wrong])
    assert model.batch([]) == []


def test_not_a_run_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        predictor.Predictor.load(tmp_path / "none")
    with pytest.raises(InputError, match="is not a run folder"):
        predictor.Predictor.load(tmp_path)


def test_the_task_is_that_of_the_configuration(model):
    assert isinstance(model.task, type(tasks.build(model.config, None)))
    assert model.fingerprint.endswith("@7")
