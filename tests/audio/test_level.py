import numpy as np
import pytest

from a2fjax.audio import io, level


def speech_like(seconds=6.0, rms=0.05, pause_db=-40.0, seed=0):
    """Noise of 0.4 s syllables and 0.2 s pauses: loud parts have the RMS given."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 16000)
    loud = (np.arange(n) % 9600) < 6400
    return rng.normal(size=n) * rms * np.where(loud, 1.0, 10 ** (pause_db / 20))


def test_level_is_that_of_the_loud_parts_whatever_the_share_of_pauses():
    audio = speech_like()
    measured = level.speech_level(audio)
    assert measured == pytest.approx(0.05, rel=0.1)
    pause = np.random.default_rng(1).normal(size=60 * 16000) * 5e-5
    assert level.speech_level(np.concatenate([audio, pause])) == pytest.approx(measured, rel=0.02)
    assert level.speech_level(np.concatenate([audio, 0 * pause])) == pytest.approx(
        measured, rel=0.02
    )


@pytest.mark.parametrize("gain", [0.15, 0.5, 3.0])
def test_level_follows_gain_and_normalising_removes_it(gain):
    audio = speech_like().astype(np.float32)
    one = level.normalise(audio, level.speech_level(audio))
    other = level.normalise(audio * gain, level.speech_level(audio * gain))
    assert other.dtype == np.float32
    np.testing.assert_allclose(other, one, rtol=2e-3, atol=1e-5)
    assert level.speech_level(one) == pytest.approx(level.TARGET, rel=1e-3)


def test_offset_and_a_knock_do_not_count():
    audio = speech_like()
    measured = level.speech_level(audio)
    assert level.speech_level(audio + 0.3) == pytest.approx(measured, rel=0.02)
    audio[20000:20800] = 1.0 * np.sign(audio[20000:20800])
    assert level.speech_level(audio) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("rms", [0.0, 1e-6, 1e-4, 1e-3, 1e-2])
def test_silence_and_steady_noise_are_not_amplified(rms):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=5 * 16000) * rms
    hum = np.convolve(noise, np.exp(-np.arange(200) / 40.0), "same") * 0.2
    for audio in (noise, hum, np.concatenate([np.zeros(8000), noise])):
        gain = level.TARGET / level.speech_level(audio)
        assert gain <= 1.0 + 1e-9
        assert np.abs(level.normalise(audio, level.speech_level(audio))).max() <= 6 * rms + 1e-12


def test_very_quiet_speech_is_amplified_by_at_most_30_db():
    audio = speech_like(rms=4e-4, pause_db=-20.0)
    assert level.speech_level(audio) == pytest.approx(level.FLOOR)
    assert level.FLOOR == pytest.approx(level.TARGET * 10 ** (-30 / 20))


def test_frame_levels_of_blocks_are_those_of_the_whole():
    audio = speech_like(seconds=3.01)
    parts = [level.frame_levels(audio[i : i + 16000]) for i in range(0, len(audio), 16000)]
    np.testing.assert_allclose(np.concatenate(parts)[:150], level.frame_levels(audio))
    whole = level.speech_level_of_frames(level.frame_levels(audio))
    assert whole == level.speech_level(audio)


@pytest.mark.parametrize("samples", [0, 1, 2, 319, 320, 321])
def test_short_audio_has_a_level(samples):
    measured = level.speech_level(np.full(samples, 0.1))
    assert np.isfinite(measured) and measured >= level.FLOOR
    with pytest.raises(ValueError, match="shape"):
        level.speech_level(np.zeros((2, samples)))


def test_real_speech_reaches_the_target(shared):
    path = shared / "speech" / "ljspeech" / "LJ001-0001.flac"
    audio = io.load(path)
    measured = level.speech_level(audio)
    assert 0.03 < measured < 0.3
    quiet = level.speech_level(audio * 0.05)
    assert quiet == pytest.approx(measured * 0.05, rel=1e-3)
