"""Several samples of a line, inpainting by mask, guidance and steps of a model that samples."""

import dataclasses

import numpy as np
import pytest

from a2fjax import rig, tasks
from a2fjax.animation import formats
from a2fjax.errors import InputError
from a2fjax.infer import inpainting, offline, predictor, recording, sampling


def blocks(audio):
    return [audio[i : i + 16000] for i in range(0, len(audio), 16000)]


def read(path, channels=(), seconds=None):
    return inpainting.from_track(formats.read(path), channels, seconds)


def inpaint_arguments(frames):
    motion = np.zeros((frames, 72), np.float32)
    return {"inpaint_motion": motion, "inpaint_mask": np.ones((frames, 72), bool)}


def whole(model, audio, **keywords):
    stats = recording.RecordingStats(blocks(audio))
    return np.concatenate(list(offline.predict(model, blocks(audio), stats, **keywords)))


def test_a_sample_is_the_same_every_time_and_no_other(diffusion, speech):
    audio = speech(2.0)
    first = diffusion(audio, sample_index=1)
    np.testing.assert_array_equal(first, diffusion(audio, sample_index=1))
    assert np.abs(first - diffusion(audio, sample_index=2)).max() > 0.02


def test_a_sample_does_not_depend_on_what_shares_its_batch(diffusion, speech):
    requests = [
        predictor.Request(speech(1.0, seed=s), speech_level=0.05, sample_index=k)
        for s, k in ((1, 0), (2, 1), (1, 1))
    ]
    together = diffusion.batch(requests)
    for motion, request in zip(together, requests, strict=True):
        np.testing.assert_allclose(motion, diffusion.batch([request])[0], atol=2e-5)


@pytest.mark.parametrize("seconds", [9.0, 10.02])
def test_chunks_of_a_sample_join_without_a_seam(diffusion, speech, seconds):
    audio = speech(seconds)
    stats = recording.RecordingStats(blocks(audio))
    alone = diffusion(audio, speech_level=stats.speech_level, sample_index=2)
    joined = whole(diffusion, audio, sample_index=2, chunk_seconds=2.0, context_seconds=1.5)
    assert joined.shape == alone.shape
    assert np.abs(joined - alone).max() < 5e-3
    # No frame moves faster at a join than it does in one piece.
    speed = [np.abs(np.diff(m, axis=0)).max(1) for m in (joined, alone)]
    assert (speed[0] < speed[1] + 5e-3).all()


def test_without_shared_noise_there_would_be_a_seam(diffusion, speech):
    """The check above can fail: chunks that draw their own noise disagree."""
    audio = speech(9.0)
    other = diffusion(audio[: 4 * 16000], sample_index=2, start=400)
    assert np.abs(other - diffusion(audio[: 4 * 16000], sample_index=2, start=0)).max() > 0.02


def test_what_is_kept_stays_and_the_rest_fits_a_new_sample(diffusion, speech, tmp_path):
    audio = speech(2.0)
    motion = whole(diffusion, audio, sample_index=0)
    path = tmp_path / "sample0.npz"
    formats.write(path, motion)
    given = read(path, ["upper_face"])
    inpainted = whole(diffusion, audio, sample_index=5, inpainting=given)
    upper = np.zeros(72, bool)
    upper[rig.GROUPS["upper_face"]] = True
    np.testing.assert_allclose(inpainted[:, ~upper], motion[:, ~upper], atol=1e-6)
    assert np.abs(inpainted[:, upper] - motion[:, upper]).max() > 0.01

    given = read(path, [], (0.5, 1.0))
    inpainted = whole(diffusion, audio, sample_index=5, inpainting=given)
    outside = np.r_[0:25, 50:100]
    np.testing.assert_allclose(inpainted[outside], motion[outside], atol=1e-6)
    assert np.abs(inpainted[25:50] - motion[25:50]).max() > 0.01


def test_inpainting_of_long_recordings_reach_every_chunk(diffusion, speech, tmp_path):
    audio = speech(7.0)
    motion = whole(diffusion, audio)
    formats.write(tmp_path / "a.npz", motion)
    given = read(tmp_path / "a.npz", ["jawOpen"])
    inpainted = whole(
        diffusion, audio, sample_index=1, inpainting=given, chunk_seconds=1.5, context_seconds=1.0
    )
    others = np.delete(np.arange(72), rig.INDEX["jawOpen"])
    np.testing.assert_allclose(inpainted[:, others], motion[:, others], atol=1e-6)


@pytest.mark.parametrize(
    "channels, seconds, says",
    [
        ([], None, "nothing to predict anew"),
        (["jawOpenn"], None, "jawOpen"),
        ([], (50.0, 60.0), "curves from 0 to 1 s"),
    ],
)
def test_inpainting_of_nothing_are_refused(tmp_path, channels, seconds, says):
    formats.write(tmp_path / "a.npz", np.zeros((50, 72), np.float32))
    with pytest.raises(InputError, match=says):
        read(tmp_path / "a.npz", channels, seconds)


def test_channels_that_a_file_lacks_are_predicted(tmp_path):
    path = tmp_path / "a.channels.csv"
    path.write_text("time,jawOpen\n0,0.5\n0.02,0.5\n0.04,0.5\n")
    given = read(path, ["browInnerUp"])
    assert given.inpaint_mask[:, rig.INDEX["jawOpen"]].all() and given.inpaint_mask.sum() == len(
        given.inpaint_mask
    )


def test_only_a_diffusion_model_inpaints(model, speech):
    audio = speech(1.0)
    given = {
        "inpaint_motion": np.zeros((50, 72), np.float32),
        "inpaint_mask": np.ones((50, 72), bool),
    }
    with pytest.raises(InputError, match="only a diffusion model"):
        model(audio, **given)
    with pytest.raises(InputError, match="gives one motion"):
        sampling.with_sampling(model.config, {"steps": 4})


def test_shapes_of_inpainting_are_checked(diffusion, speech):
    with pytest.raises(InputError, match="belong together"):
        diffusion(speech(1.0), inpaint_mask=np.ones((50, 72), bool))
    wrong = {
        "inpaint_motion": np.zeros((49, 72), np.float32),
        "inpaint_mask": np.ones((49, 72), bool),
    }
    with pytest.raises(InputError, match="expected"):
        diffusion(speech(1.0), **wrong)


def sampled(diffusion, **values):
    config = sampling.with_sampling(diffusion.config, values)
    return predictor.Predictor(config, tasks.build(config), diffusion.params)


@pytest.mark.slow
def test_steps_sampler_seed_and_guidance_can_be_chosen_afterwards(diffusion, speech):
    audio = speech(1.0)
    plain = diffusion(audio)
    np.testing.assert_array_equal(sampled(diffusion, steps=3)(audio), plain)
    for values in ({"steps": 5}, {"sampler": "ddpm"}, {"seed": 4}, {"audio": 2.0}):
        assert np.abs(sampled(diffusion, **values)(audio) - plain).max() > 1e-4, values


def test_no_guidance_by_audio_hears_nothing(diffusion, speech):
    audio_dropped = sampled(diffusion, audio=0.0)
    one, other = (audio_dropped(speech(1.0, seed=s), speech_level=0.05) for s in (1, 2))
    np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize(
    "values, says",
    [
        ({"identity": 2.0}, "condition_dropout"),
        ({"sampler": "consistency"}, "not distilled"),
        ({"sampler": "dmp"}, "dpm"),
        ({"steps": 0}, "above 0"),
        ({"step": 4}, "steps"),
    ],
)
def test_what_a_model_cannot_do_is_named(diffusion, values, says):
    with pytest.raises(InputError, match=says):
        sampling.with_sampling(diffusion.config, values)


def test_a_student_keeps_to_what_it_was_taught(diffusion):
    own = diffusion.config.model
    sample = dataclasses.replace(own.sample, sampler="consistency", steps=2)
    model = dataclasses.replace(own, distill_steps=4, sample=sample)
    student = dataclasses.replace(diffusion.config, model=model)
    assert sampling.with_sampling(student, {"steps": 4}).model.sample.steps == 4
    for values, says in (
        ({"steps": 3}, "takes 1 or 2 or 4"),
        ({"sampler": "dpm"}, "expected consistency"),
        ({"emotion": 2.0}, "its teacher was given"),
    ):
        with pytest.raises(InputError, match=says):
            sampling.with_sampling(student, values)


def test_strengths_are_read_as_written():
    assert sampling.parse_guidance("audio=1.5, emotion=2") == {"audio": 1.5, "emotion": 2.0}
    assert sampling.parse_guidance(None) == {}
    for text in ("audo=1", "audio", "audio=-1", "audio=nan"):
        with pytest.raises(InputError, match="guidance"):
            sampling.parse_guidance(text)
