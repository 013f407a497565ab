"""A stream gives what the recording gives, however its audio comes in."""

import numpy as np
import pytest

from a2fjax import tasks
from a2fjax.errors import InputError
from a2fjax.infer import live, lookahead, offline
from a2fjax.infer.predictor import Predictor
from a2fjax.infer.recording import RecordingStats

HAPPY = np.array([0.2, 0.8, 0, 0, 0], np.float32)


@pytest.fixture(scope="module")
def stream(streaming_model, identity):
    return live.open_stream(streaming_model, identity=identity, emotion=HAPPY)


def test_blocks_do_not_matter(stream, speech, pushed):
    audio = speech(0.9)[3000:9111]
    whole = pushed(stream, audio, [len(audio)])
    assert whole.shape == (20, 72) and np.ptp(whole[:, :52], axis=0).max() > 0.01
    rng = np.random.default_rng(0)
    for _ in range(200):
        most = int(10 ** rng.uniform(1.5, 5))
        sizes = rng.integers(1, most, 12)
        np.testing.assert_array_equal(pushed(stream, audio, sizes), whole)
    few = audio[:1000]
    np.testing.assert_array_equal(pushed(stream, few, [1]), pushed(stream, few, [1000]))


@pytest.mark.parametrize(
    "lookahead_ms",
    [pytest.param(0, marks=pytest.mark.slow), 100, pytest.param(320, marks=pytest.mark.slow)],
)
def test_frame_by_frame_is_the_network_at_once(
    streaming_model, identity, speech, lookahead_ms, pushed
):
    config = lookahead.with_lookahead(streaming_model.config, lookahead_ms)
    model = Predictor(config, tasks.build(config), streaming_model.params)
    audio = 0.2 * speech(2.0)[:31_000]
    track = np.linspace(0, 1, 97)[:, None] * HAPPY
    at_once = model(audio, identity=identity, emotion=track)
    stream = live.open_stream(model, identity=identity, emotion=lambda frame: track[frame])
    found = pushed(stream, audio, [1600])
    assert found.shape == at_once.shape == (97, 72)
    np.testing.assert_allclose(found, at_once, atol=1e-5)
    assert stream.delay_seconds == pytest.approx(lookahead_ms / 1000 + 0.02)


def test_a_recording_is_what_a_stream_gives(stream, streaming_model, identity, speech, pushed):
    from a2fjax.animation.emotion import EmotionTrack

    audio = speech(1.5)
    blocks = [audio[:16_000], audio[16_000:]]
    track = EmotionTrack(np.zeros(1), HAPPY[None])
    parts = offline.predict(
        streaming_model, blocks, RecordingStats(blocks), identity=identity, emotion=track
    )
    np.testing.assert_array_equal(np.concatenate(list(parts)), pushed(stream, audio, [441]))


def test_a_frame_leaves_after_its_delay_and_hears_no_more(stream, speech, pushed):
    audio = speech(1.0)
    whole = pushed(stream, audio, [len(audio)])
    stream.reset()
    frames = round(stream.delay_seconds * 50)
    assert stream.push(audio[: 320 * frames - 1]) == 0 and stream.push(audio[:1]) == 1
    # With other audio from frame t + L + 1 on, frame t stays the same; one frame earlier it moves.
    for cut, same in ((20 + frames, True), (20 + frames - 1, False)):
        changed = audio.copy()
        changed[320 * cut :] = 0.3
        found = pushed(stream, changed, [1000])
        np.testing.assert_array_equal(found[:20], whole[:20])
        assert (found[20] == whole[20]).all() == same


def test_reset_forgets_everything(stream, speech, pushed):
    audio = speech(1.0)
    first = pushed(stream, audio, [700])
    stream.reset()
    stream.push(np.ones(5000, np.float32))
    np.testing.assert_array_equal(pushed(stream, audio, [700]), first)
    with pytest.raises(InputError, match="closed; reset"):
        stream.push(audio)


def test_a_saved_stream_goes_on_elsewhere(
    stream, streaming_model, identity, speech, tmp_path, pushed
):
    audio = speech(1.2)
    whole = pushed(stream, audio, [700])
    stream.reset()
    stream.push(audio[:9001])
    before = stream.frames()[:-3]
    stream.push(audio[9001:9500])
    stream.save(tmp_path / "stream.npz")
    other = live.open_stream(streaming_model, identity=identity, emotion=HAPPY)
    other.load(tmp_path / "stream.npz")
    other.push(audio[9500:])
    rest = other.close()
    np.testing.assert_array_equal(rest, whole[len(before) + 3 :])
    assert other.samples == len(audio) and other.next_frame == len(whole)


def test_wrong_states_are_refused_and_change_nothing(stream, streaming_model, speech, tmp_path):
    stream.reset()
    stream.push(speech(0.5))
    data = stream.to_bytes()
    config = lookahead.with_lookahead(streaming_model.config, 40)
    other = live.open_stream(Predictor(config, tasks.build(config), streaming_model.params))
    for given, says in (
        (data[:-200], "damaged"),
        (b"", "damaged"),
        (data.replace(b'"schema": 1', b'"schema": 9'), "damaged|schema 9"),
    ):
        with pytest.raises(InputError, match=says):
            stream.restore(given)
    with pytest.raises(InputError, match="model is .* this stream's is"):
        other.restore(data)
    assert other.samples == 0 and stream.to_bytes() == data


@pytest.mark.parametrize(
    "audio, says",
    [
        (np.zeros(320, np.int16), "type int16.*divide 16-bit"),
        (np.zeros((320, 2)), r"shape \(320, 2\), expected \[samples\]"),
        (np.zeros(0), "1 to 960000 samples"),
        (np.broadcast_to(np.float32(0), 8 * 3600 * 16_000), "a2fjax infer"),
        (np.array([0.0, np.nan]), "sample 1 of the block is not finite"),
    ],
)
def test_wrong_audio_is_one_line_and_not_heard(stream, audio, says):
    stream.reset()
    with pytest.raises(InputError, match=says) as error:
        stream.push(audio)
    assert "\n" not in str(error.value) and stream.samples == 0


def test_what_cannot_stream_says_what_to_train(streaming_model, random_params):
    from a2fjax import configuration

    config = configuration.build(configuration.Config, {}, where="test")
    other = Predictor(config, tasks.build(config), {})
    with pytest.raises(InputError, match="'regression' hears the whole clip.*:streaming"):
        live.open_stream(other)
    with pytest.raises(InputError, match="rate 48000: a stream hears 16000 Hz"):
        live.open_stream(streaming_model, rate=48_000)
    with pytest.raises(InputError, match="lookahead_ms=120: .* nearest is 100"):
        lookahead.with_lookahead(streaming_model.config, 120)
    with pytest.raises(InputError, match="no look-ahead to choose"):
        lookahead.with_lookahead(config, 100)
    with pytest.raises(InputError, match="expected 5 weights"):
        live.open_stream(streaming_model, emotion=np.array([2.0, 0, 0, 0, 0]))


@pytest.mark.slow
def test_ten_minutes_neither_drift_nor_grow(streaming_model, identity, speech):
    """The same ten seconds over and over give the same motion, from a state of one size."""
    stream = live.open_stream(streaming_model, identity=identity, hop=25)
    audio = speech(10.0)
    early, size = None, len(stream.to_bytes())
    for i in range(60):
        stream.push(audio)
        motion = stream.frames()
        assert np.isfinite(motion).all() and len(motion) == (495 if i == 0 else 500)
        assert abs(len(stream.to_bytes()) - size) < 1000
        if i == 12:
            early = motion
    assert stream.samples == 60 * 160_000 and stream.next_frame == 60 * 500 - 5
    np.testing.assert_allclose(motion, early, atol=0.02)
