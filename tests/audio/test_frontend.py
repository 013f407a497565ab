import jax
import numpy as np
import pytest

from a2fjax.audio import io, level
from a2fjax.audio.frontend import Frontend
from a2fjax.configuration import AudioConfig
from a2fjax.errors import InputError

BOTH = Frontend(AudioConfig(features=("mel", "pitch")))
features_of = jax.jit(BOTH.features)


def voice(samples=16000, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    phase = 2 * np.pi * np.cumsum(130 + 20 * np.sin(2 * np.pi * 1.7 * t)) / 16000
    audio = sum(np.sin(h * phase) / h for h in range(1, 30)) * 0.07
    return (audio + rng.normal(size=samples) * 1e-3).astype(np.float32)


@pytest.mark.parametrize(
    ("names", "width"), [(("mel",), 80), (("pitch",), 3), (("pitch", "mel"), 83)]
)
def test_features_are_concatenated_in_order(names, width):
    frontend = Frontend(AudioConfig(features=names))
    audio = np.stack([voice(), voice(seed=1)])
    got = np.asarray(jax.jit(frontend.features)(audio))
    assert got.shape == (2, 50, width) and frontend.width == width and got.dtype == np.float32
    whole = np.asarray(features_of(audio))
    parts = {"mel": whole[..., :80], "pitch": whole[..., 80:]}
    np.testing.assert_allclose(got, np.concatenate([parts[n] for n in names], -1), atol=1e-4)


def test_lookahead_is_the_largest_of_the_features():
    assert Frontend(AudioConfig(features=("mel",))).lookahead_samples == 319
    assert BOTH.lookahead_samples == 1119
    assert BOTH.lookback_samples == 1759
    audio = voice()[None]
    t = 20
    inside = slice(320 * t - BOTH.lookback_samples, 320 * t + BOTH.lookahead_samples + 1)
    changed = np.random.default_rng(0).normal(size=audio.shape).astype(np.float32)
    changed[:, inside] = audio[:, inside]
    got = np.asarray(features_of(np.concatenate([audio, changed])))[:, t]
    np.testing.assert_allclose(got[0], got[1], atol=1e-3)


def test_silence_and_quiet_rooms_are_alike_and_unlike_speech():
    rng = np.random.default_rng(0)
    room = np.convolve(rng.normal(size=16199), np.exp(-np.arange(200) / 20.0), "valid")
    room *= level.TARGET * 10 ** (-63 / 20) / room.std()
    noise = rng.normal(size=16000) * level.TARGET * 10 ** (-60 / 20)
    quantised = np.round(rng.uniform(-1, 1, size=16000)) / 32768
    batch = np.stack([np.zeros(16000), noise, room, quantised, voice()]).astype(np.float32)
    features = np.concatenate([features_of(row[None]) for row in batch])
    silence, speech = features[0], features[-1]
    for quiet in features[1:-1]:
        assert np.sqrt(np.mean((quiet - silence)[:, :80] ** 2)) < 0.25
        assert np.sqrt(np.mean((quiet - silence)[:, 80:] ** 2)) < 0.25
    assert np.sqrt(np.mean((speech - silence)[:, :80] ** 2)) > 1.0
    assert np.abs(silence - silence[25]).max() < 1e-4


def test_a_muted_recording_stays_silent_through_level_normalisation():
    noise = np.random.default_rng(0).normal(size=16000) * 1e-4
    quiet = level.normalise(noise, level.speech_level(noise))
    features = np.asarray(features_of(np.stack([quiet, np.zeros_like(quiet)])))
    assert np.abs(features[0].mean(axis=0) - features[1].mean(axis=0)).max() < 0.3


def test_the_floor_moves_with_its_setting():
    noise = np.random.default_rng(0).normal(size=(1, 16000)).astype(np.float32)
    noise *= level.TARGET * 10 ** (-60 / 20)
    rise = []
    for decibel in (-40.0, -60.0, -80.0):
        frontend = Frontend(AudioConfig(mel_floor_db=decibel))
        got = np.asarray(jax.jit(frontend.features)(noise)).mean()
        rise.append(got - np.asarray(jax.jit(frontend.features)(np.zeros_like(noise))).mean())
    assert 0 <= rise[0] < 0.02 < rise[1] < 0.25 < rise[2]


def test_unvoiced_log_f0_is_zero_and_an_octave_is_two():
    octave = []
    for hz in (100.0, 200.0):
        t = np.arange(16000) / 16000
        audio = sum(np.sin(2 * np.pi * h * hz * t) / h for h in range(1, 20)) * 0.1
        octave.append(np.asarray(features_of(audio[None].astype(np.float32)))[0, 25, 80])
    assert octave[1] - octave[0] == pytest.approx(2.0, abs=0.01)
    assert np.asarray(features_of(np.zeros((1, 16000), np.float32)))[0, 0, 80] == 0.0


def test_padding_with_zeros_changes_nothing():
    audio = voice(10100)[None]
    short = np.asarray(features_of(audio))
    padded = np.asarray(features_of(np.pad(audio, ((0, 0), (0, 5900)))))
    np.testing.assert_allclose(padded[:, :32], short, atol=1e-3)


def scaled(audio):
    features = BOTH.features(audio)
    return features.mean(), features


def test_runs_inside_jit_and_has_a_finite_gradient():
    audio = voice(6400)[None]
    both = np.concatenate([audio, np.zeros_like(audio)])
    gradient, features = jax.jit(jax.grad(scaled, has_aux=True))(both)
    np.testing.assert_allclose(features[0], features_of(audio)[0], atol=1e-3)
    assert np.isfinite(gradient).all() and np.abs(gradient[0]).max() > 0
    assert hash(BOTH) == hash(Frontend(AudioConfig(features=("mel", "pitch"))))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (AudioConfig(features=("mle",)), "'mel'"),
        (AudioConfig(features=()), "empty"),
        (AudioConfig(features=("mel", "mel")), "twice"),
        (AudioConfig(mel_floor_db=3.0), "mel_floor_db"),
    ],
)
def test_bad_settings_are_named(config, words):
    with pytest.raises(InputError, match=words):
        Frontend(config)


def test_real_speech_is_roughly_standardised(shared):
    out = []
    for path in sorted((shared / "speech").glob("*/*.flac"))[5::24]:
        audio = io.load(path)[:64000]
        normal = level.normalise(audio, level.speech_level(audio))
        frames = -(-len(normal) // 320)
        padded = np.pad(normal, (0, 64000 - len(normal)))
        out.append(np.asarray(features_of(padded[None]))[0, :frames])
    features = np.concatenate(out)
    groups = {"mel": features[:, :80], "f0": features[:, 80], "voicing": features[:, 81],
              "energy": features[:, 82]}  # fmt: skip
    for name, group in groups.items():
        assert abs(group.mean()) < 1.0, name
        assert 0.6 < group.std() < 1.4, name
