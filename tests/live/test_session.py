"""A session adds audio, idle motion and interruptions to a stream, and nothing else."""

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.live.idle import IdleMotion
from a2fjax.live.one_euro import OneEuro
from a2fjax.live.session import Session, rest_pose

MOUTH = np.concatenate([rig.GROUPS["jaw_mouth"], rig.GROUPS["tongue"]])


def pushed(session, samples, size=237):
    out = []
    for begin in range(0, len(samples), size):
        out += session.push(samples[begin : begin + size])
    return out


def motion(frames):
    return np.stack([frame.motion for frame in frames])


def test_plain_frames_are_the_streams_and_carry_their_audio(streams, speech):
    samples = speech(1.01)
    plain = streams()
    plain.push(samples)
    expected = plain.close()
    session = Session(streams())
    frames = pushed(session, samples)
    assert len(frames) == len(samples) // 320 - 5  # The look-ahead of 100 ms waits.
    frames += session.flush()
    np.testing.assert_array_equal(motion(frames), expected)
    audio = np.concatenate([frame.audio for frame in frames])
    np.testing.assert_array_equal(audio[: len(samples)], samples)
    assert not audio[len(samples) :].any()
    assert [frame.number for frame in frames] == list(range(51))
    assert session.delay_seconds == pytest.approx(0.12)


def test_an_interrupted_mouth_is_at_rest_within_200_ms_and_shows_nothing_stale(streams, speech):
    session = Session(streams())
    before = pushed(session, speech(1.0))
    rest = rest_pose(streams())
    moved = np.abs(before[-1].motion - rest)[MOUTH].max()
    session.interrupt()
    after = session.push(np.zeros(3200, np.float32))
    assert len(after) == 10, "a frame leaves with each hop of audio"
    assert moved > 1e-3
    silent = motion(Session(streams()).push(np.zeros(3200, np.float32)))
    np.testing.assert_array_equal(motion(after)[8:], silent[3:5])
    step = np.abs(np.diff(motion([before[-1], *after]), axis=0))[:, MOUTH].max()
    assert step < moved / 2, "no jump"
    assert not any(frame.audio.any() for frame in after), "no stale audio"
    # What is said next is shown as if nothing had been before.
    fresh = Session(streams())
    fresh.push(np.zeros(3200, np.float32))
    samples = speech(0.6, seed=3)
    again = pushed(session, samples)
    np.testing.assert_array_equal(motion(again), motion(pushed(fresh, samples)))
    assert [f.number for f in before + after + again] == list(range(45 + 10 + len(again)))


def test_an_emotion_changes_within_300_ms_and_not_at_once(streams, speech):
    samples = speech(2.0)
    calm, changed = Session(streams()), Session(streams())
    happy = rig.emotion_vector({"happy": 1.0})
    other = Session(streams(emotion="happy"))
    first = pushed(changed, samples[:16000])
    changed.set_emotion(happy)
    frames = motion(first + pushed(changed, samples[16000:]))
    plain, all_happy = motion(pushed(calm, samples)), motion(pushed(other, samples))
    np.testing.assert_array_equal(frames[: len(first)], plain[: len(first)])
    early = np.abs(frames[len(first)] - plain[len(first)]).max()
    late = np.abs(frames[-20:] - plain[-20:]).max()
    assert 0 < early < late
    np.testing.assert_allclose(frames[-15:], all_happy[-15:], atol=0.02)
    with pytest.raises(InputError, match="emotion"):
        changed.set_emotion(np.array([2.0, 0, 0, 0, 0]))


def test_an_identity_changes_on_the_way(streams, speech):
    mesh = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    samples = speech(1.5)
    plain, session = Session(streams()), Session(streams())
    first = pushed(session, samples[:12000])
    session.set_identity(lambda: streams(identity=mesh))
    frames = motion(first + pushed(session, samples[12000:]))
    expected = motion(pushed(plain, samples))
    np.testing.assert_array_equal(frames[: len(first)], expected[: len(first)])
    assert np.abs(frames[len(first) :] - expected[len(first) :]).max() > 1e-3


def test_flush_starts_an_utterance_anew(streams, speech):
    samples = speech(0.5)
    session = Session(streams())
    first = pushed(session, samples) + session.flush()
    second = pushed(session, samples) + session.flush()
    np.testing.assert_array_equal(motion(first), motion(second))
    assert session.flush() == []
    assert second[0].number == len(first)


def test_idle_motion_and_smoothing_are_layers_over_the_same_mouth(streams, speech):
    samples = speech(1.0)
    plain = motion(pushed(Session(streams()), samples))
    make = lambda: Session(streams(), idle=IdleMotion(seed=4))  # noqa: E731
    idle, again = pushed(make(), samples), pushed(make(), samples, 320)
    np.testing.assert_array_equal(motion(idle), motion(again))
    np.testing.assert_array_equal(motion(idle)[:, MOUTH], plain[:, MOUTH])
    assert any(frame.head.any() for frame in idle)
    smooth = Session(streams(), smoothing=OneEuro(4.0, beta=0.0))
    smoothed = motion(pushed(smooth, samples))
    assert np.diff(smoothed, axis=0).std() < 0.7 * np.diff(plain, axis=0).std()
    assert smooth.delay_seconds == pytest.approx(0.12 + 1 / (8 * np.pi))
