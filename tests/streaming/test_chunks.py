"""A diffusion model streams in chunks: sliding windows, one program, noise by frame number."""

import logging

import jax
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import tasks
from a2fjax.audio import HOP, level, running_level
from a2fjax.errors import InputError
from a2fjax.infer import live
from a2fjax.infer.predictor import Predictor
from a2fjax.streaming import chunks
from a2fjax.streaming.chunks import Chunking

HAPPY = np.array([0.2, 0.8, 0, 0, 0], np.float32)
SMALL = Chunking(chunk=4, lookahead=6, context=54, fade=2)


@pytest.fixture(scope="module")
def diffusion(random_params, compile_once):
    values = {
        "name": "small diffusion",
        "model": {
            "kind": "diffusion",
            "conv_width": 16,
            "recurrent_width": 12,
            "identity_width": 8,
            "emotion_dropout": 0.1,
            "unet": {"widths": (8, 12), "heads": 2, "window": 8},
            "sample": {"steps": 2},
        },
        "data": {"identity_points": 32},
    }
    config = config_lib.build(config_lib.Config, values, where="test")
    params = random_params(config)
    # What a trained U-Net adds to draft and noise is of their size, not many times larger.
    params["params"]["unet"]["output"]["kernel"] *= 0.2
    return Predictor(config, tasks.build(config), params, step=7)


@pytest.fixture(scope="module")
def stream(diffusion, identity):
    return live.open_stream(diffusion, identity=identity, emotion=HAPPY, chunking=SMALL)


def test_blocks_do_not_matter(stream, speech, pushed):
    audio = speech(1.9)[:29_111]
    whole = pushed(stream, audio, [len(audio)])
    assert whole.shape == (91, 72) and np.ptp(whole[:, :52], axis=0).max() > 0.01
    rng = np.random.default_rng(0)
    for _ in range(12):
        sizes = rng.integers(1, int(10 ** rng.uniform(2, 4.5)), 12)
        np.testing.assert_array_equal(pushed(stream, audio, sizes), whole)


def test_a_chunk_is_what_the_model_makes_of_its_window(stream, diffusion, identity, speech, pushed):
    """A window predicted on its own: level so far, noise of its frames, faded with the one before.

    The predictor pads to 64 frames, the length of the stream's window.
    """
    audio = 0.3 * speech(1.6)
    found = pushed(stream, audio, [999])
    gains = np.asarray(running_level.gains(audio[None]))[0]

    def window(heard):
        first = max(0, heard - SMALL.window)
        motion = diffusion(
            audio[first * HOP : heard * HOP],
            identity=identity,
            emotion=HAPPY,
            speech_level=level.TARGET / float(gains[heard - 1]),
            start=first,
        )
        return motion[heard - 10 - first :]

    for heard in (16, 64, 76):  # Windows that begin with the stream, and one that slid.
        begin = heard - 10
        fresh, old = window(heard), window(heard - 4)[4:]
        rising = np.array([[0.25], [0.75]])
        expected = fresh[:4].copy()
        expected[:2] = rising * fresh[:2] + (1 - rising) * old[:2]
        np.testing.assert_allclose(found[begin : begin + 4], expected, atol=2e-5)


def test_pushing_compiles_nothing(stream, speech, pushed, caplog):
    audio = speech(1.6)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(np.float32(len(audio)))
        assert "ompil" in caplog.text  # The log would show it.
        caplog.clear()
        pushed(stream, audio, [700])
        assert "ompil" not in caplog.text


def test_a_saved_stream_goes_on_elsewhere(stream, diffusion, identity, speech, pushed, tmp_path):
    audio = speech(1.2)
    whole = pushed(stream, audio, [700])
    stream.reset()
    stream.push(audio[:9001])
    before = stream.frames()
    stream.save(tmp_path / "stream.npz")
    other = live.open_stream(diffusion, identity=identity, emotion=HAPPY, chunking=SMALL)
    other.load(tmp_path / "stream.npz")
    other.push(audio[9001:])
    np.testing.assert_array_equal(np.concatenate([before, other.close()]), whole)
    np.testing.assert_array_equal(pushed(other, audio, [1234]), whole)


def test_emotion_and_identity_matter(stream, speech, pushed):
    audio = speech(0.6)
    happy = pushed(stream, audio, [320])
    stream.emotion = lambda frame: HAPPY if frame < 12 else np.eye(5, dtype=np.float32)[3]
    changed = pushed(stream, audio, [320])
    stream.emotion = HAPPY
    np.testing.assert_array_equal(changed[:8], happy[:8])
    assert np.abs(changed[16:] - happy[16:]).max() > 1e-3


def test_the_counter_never_ends(stream, speech):
    """Half a year of frames later, the window still holds what was heard last."""
    step, audio = stream._step, speech(1.6).reshape(1, -1)
    identity, emotion = np.zeros((1, 8), np.float32), HAPPY[None]
    state = step.start()
    state["frames"] = state["frames"] + np.int32(chunks._WRAP - 2 * step.step.hop)
    for i in range(16):
        block = audio[:, 1280 * i : 1280 * (i + 1)]
        motion, state = step(block, state, identity, emotion)
        assert np.isfinite(motion).all() and np.ptp(motion) > 0
    assert int(state["frames"][0]) == chunks._WRAP // 2 + 14 * step.step.hop


@pytest.mark.slow
def test_rows_start_stop_and_reset_on_their_own(diffusion, stream, speech):
    step = diffusion.compiled_chunks(size=2, chunking=SMALL)
    emotion = np.stack([HAPPY, HAPPY])
    identity = np.zeros((2, 8), np.float32)
    audio = np.stack([speech(1.0, 1), speech(1.0, 2)])[:, : 12 * 1280].reshape(2, 12, 1280)

    def play(row, calls):
        state, out = step.start(), []
        for i in calls:
            active, reset = np.arange(2) == row, np.zeros(2, bool)
            motion, state = step(audio[:, i], state, identity, emotion, active, reset)
            out.append(motion[row])
        return np.concatenate(out)

    state, out = step.start(), []
    for i in range(12):
        active = np.array([True, i % 3 != 1])
        before = {name: np.asarray(x) for name, x in state.items()}
        reset = np.array([i == 6, False])
        motion, state = step(audio[:, i], state, identity, emotion, active, reset)
        out.append(motion)
        if not active[1]:
            assert not motion[1].any()
            for name, x in state.items():
                np.testing.assert_array_equal(np.asarray(x)[1], before[name][1])
    np.testing.assert_array_equal(np.concatenate([m[0] for m in out[:6]]), play(0, range(6)))
    np.testing.assert_array_equal(np.concatenate([m[0] for m in out[6:]]), play(0, range(6, 12)))
    heard = [i for i in range(12) if i % 3 != 1]
    np.testing.assert_array_equal(np.concatenate([out[i][1] for i in heard]), play(1, heard))
    # Rows draw different noise.
    same = np.repeat(audio[:1], 2, axis=0)
    state = step.start()
    for i in range(6):
        motion, state = step(same[:, i], state, identity, emotion)
    assert np.abs(motion[0] - motion[1]).max() > 1e-3


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"chunk": 0}, "at least 1 frame"),
        ({"lookahead": -1}, "no negative number"),
        ({"fade": 20}, "fade=20"),
        ({"lookahead": 2, "fade": 3}, "at most lookahead=2"),
        ({"chunk": 7}, "multiples of 2"),
        ({"context": 3}, "multiples of 2"),
    ],
)
def test_chunkings_that_do_not_fit_are_refused(diffusion, changes, says):
    with pytest.raises(InputError, match=says):
        live.open_stream(diffusion, chunking=Chunking(**changes))


def test_options_of_the_other_family_are_refused(diffusion, streaming_model):
    with pytest.raises(InputError, match="hop=2: a diffusion model makes chunks"):
        live.open_stream(diffusion, hop=2)
    with pytest.raises(InputError, match="chunking: .*makes no chunks"):
        live.open_stream(streaming_model, chunking=SMALL)
