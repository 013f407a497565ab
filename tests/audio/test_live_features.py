"""Live signals: frame by frame as at once, from the past alone, at the level so far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.audio import level, pitch, running_level
from a2fjax.audio.frontend import Frontend
from a2fjax.audio.live_features import LATE, LiveFeatures
from a2fjax.configuration import AudioConfig

LIVE = LiveFeatures(Frontend(AudioConfig(features=("mel", "pitch"))))


def voice(seconds, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(np.pi * t)) / 16000
    sound = sum(np.sin(k * phase + k) / k for k in range(1, 20))
    keys = np.arange(0, seconds + 1, 0.12)
    burst = np.interp(t, keys, rng.random(len(keys)))
    return (0.05 * sound * burst**2 + 1e-4 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="module")
def at_once():
    return jax.jit(LIVE.features)


def test_frame_by_frame_is_at_once(at_once):
    audio = np.stack([voice(1.0), 0.1 * voice(1.0, 1)])
    state = {name: jnp.zeros((2, *shape)) for name, shape in LIVE.state_shapes.items()}
    advance, out = jax.jit(LIVE.advance), []
    for t in range(50):
        state, signals = advance(state, audio[:, 320 * t : 320 * (t + 1)])
        out.append(np.asarray(signals))
    np.testing.assert_allclose(np.stack(out, 1), at_once(audio), atol=1e-5)


def test_a_frame_hears_nothing_after_it(at_once):
    audio = voice(1.0)
    changed = audio.copy()
    changed[320 * 30 :] = 0.4
    a, b = np.asarray(at_once(np.stack([audio, changed])))
    np.testing.assert_array_equal(a[:30], b[:30])
    assert (a[30] != b[30]).any()


def test_pitch_is_the_ordinary_one_and_late(at_once):
    assert LATE == {"mel": 0, "pitch": 3}
    audio = voice(1.0)[None]
    gain = np.asarray(running_level.gains(jnp.asarray(audio)))[0, -1]
    ordinary = np.asarray(LIVE.frontend.scaled_pitch(pitch.track(jnp.asarray(audio * gain))))
    live = np.asarray(at_once(audio))[..., 80:]
    # At the end the level has settled.
    np.testing.assert_allclose(live[0, 40:, 0], ordinary[0, 37:-3, 0], atol=1e-3)


@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_the_running_level_is_that_of_what_was_heard(scale):
    audio = scale * voice(6.0)
    found = np.asarray(jax.jit(running_level.gains)(audio[None]))[0]
    for seconds in (2, 4, 6):
        heard = level.speech_level(audio[: seconds * 16_000])
        db = 20 * np.log10(found[seconds * 50 - 1] * heard / level.TARGET)
        assert abs(db) < 2.0, (seconds, db)


def test_silence_and_noise_are_not_amplified():
    quiet = np.random.default_rng(0).normal(size=(1, 32_000)).astype(np.float32) * 1e-3
    gains = np.asarray(jax.jit(running_level.gains)(np.concatenate([quiet, 0 * quiet])))
    np.testing.assert_allclose(gains, 1.0, atol=1e-6)
