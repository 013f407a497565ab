import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from a2fjax.audio import io, level, mel, num_frames

librosa = pytest.importorskip("librosa", reason="parity needs librosa, of the dev extra")


def reference(audio):
    """Mel power [T, 80] by SciPy and librosa's filters, in float64.

    Equal to librosa.feature.melspectrogram(n_fft=1024, win_length=640, hop_length=320,
    pad_mode="constant") bit for bit, without the half minute in which that is compiled.
    """
    window = np.pad(scipy.signal.get_window("hann", 640), 192)
    spectra = scipy.signal.ShortTimeFFT(window, 320, 16000, phase_shift=None)
    whole = np.pad(np.asarray(audio, np.float64), (0, 1024))
    power = np.abs(spectra.stft(whole, p0=0, p1=num_frames(len(audio)))) ** 2
    return power.T @ librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80).T


def speech_like(samples=16000, room_db=-50.0, seed=0):
    """A gliding voice of falling harmonics in syllables, over a room's noise.

    The room hides what float32 cannot resolve: bins 85 dB below the loudest of their frame.
    """
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    phase = 2 * np.pi * np.cumsum(110 + 30 * np.sin(2 * np.pi * 1.7 * t)) / 16000
    voice = sum(np.sin(h * phase + h) / h for h in range(1, 40))
    audio = voice * np.clip(np.sin(2 * np.pi * 3 * t), 0, None)
    audio = audio / np.sqrt(np.mean(audio**2)) * level.TARGET
    return (audio + rng.normal(size=samples) * level.TARGET * 10 ** (room_db / 20)).astype("f4")


def test_filterbank_is_librosas():
    expected = librosa.filters.mel(sr=16000, n_fft=1024, n_mels=80).T
    np.testing.assert_allclose(mel.filterbank(), expected, atol=1e-8)
    hz = np.linspace(0, 8000, 999)
    np.testing.assert_allclose(mel.mel_to_hz(mel.hz_to_mel(hz)), hz, atol=1e-9)
    np.testing.assert_allclose(mel.hz_to_mel(hz), librosa.hz_to_mel(hz), atol=1e-12)


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 640, 16123])
def test_parity_with_librosa_edges_included(samples):
    audio = speech_like(16123)[:samples]
    got = np.asarray(mel.log_mel(audio[None]))
    assert got.shape == (1, num_frames(samples), 80) and got.dtype == np.float32
    np.testing.assert_allclose(got[0], np.log(reference(audio) + 1e-10), atol=1e-4)


@pytest.mark.parametrize("kind", ["noise", "clicks", "loud start and end"])
def test_parity_with_librosa_on_other_signals(kind):
    audio = np.random.default_rng(0).normal(size=9000) * 1e-4
    if kind == "noise":
        audio *= 2000
    elif kind == "clicks":
        audio[::1111] = 0.9
    else:
        audio[:3] = audio[-3:] = 0.9
    audio = audio.astype(np.float32)
    got = np.asarray(mel.log_mel(audio[None]))[0]
    np.testing.assert_allclose(got, np.log(reference(audio) + 1e-10), atol=1e-4)


def test_parity_with_librosa_on_recordings(shared):
    """The difference is rounding of float32, 90 dB below the loudest bin of a frame."""
    floor = mel.white_noise_power(level.TARGET * 10 ** (-60 / 20))
    errors = []
    for path in sorted((shared / "speech").glob("*/*.flac"))[::16]:
        audio = io.load(path)
        audio = level.normalise(audio, level.speech_level(audio))
        padded = np.pad(audio, (0, -len(audio) % 64000))
        got = np.asarray(mel.log_mel(padded[None], floor=floor.astype(np.float32)))[0]
        expected = np.log(reference(audio) + floor)
        errors.append(np.abs(got[: len(expected)] - expected).ravel())
    errors = np.concatenate(errors)
    assert errors.max() < 2e-4
    assert np.mean(errors > 1e-4) < 1e-4


def test_frame_centres_are_20_ms_apart_within_1_ms():
    """The level of a click over its position in the window peaks at the frame's centre."""
    frame = 5
    places = np.arange(320 * frame - 320, 320 * frame + 320, 4)
    clicks = np.zeros((len(places), 320 * 11), np.float32)
    clicks[np.arange(len(places)), places] = 0.9
    power = np.exp(np.asarray(mel.log_mel(clicks))[:, frame]).sum(axis=-1)
    centre = np.sum(places * power) / power.sum()
    assert abs(centre / 16000 - frame / 50) < 1e-3 / 10
    assert abs(places[np.argmax(power)] - 320 * frame) <= 16


def test_a_frame_depends_on_its_window_only():
    audio = speech_like(16000)[None]
    whole = np.asarray(mel.log_mel(audio))
    t = 20
    inside = slice(320 * t - mel.LOOKBACK, 320 * t + mel.LOOKAHEAD + 1)
    changed = np.full_like(audio, 0.7)
    changed[:, inside] = audio[:, inside]
    np.testing.assert_allclose(np.asarray(mel.log_mel(changed))[:, t], whole[:, t], atol=2e-6)
    for sample in (inside.start, inside.stop - 1):
        changed = audio.copy()
        changed[:, sample] += 300.0  # The window is nearly 0 there.
        assert np.abs(np.asarray(mel.log_mel(changed))[:, t] - whole[:, t]).max() > 1e-4


def test_written_out_zeros_change_nothing():
    audio = speech_like(5000)[None]
    short = np.asarray(mel.log_mel(audio))
    after = np.asarray(mel.log_mel(np.pad(audio, ((0, 0), (0, 3000)))))
    before = np.asarray(mel.log_mel(np.pad(audio, ((0, 0), (640, 0)))))
    np.testing.assert_allclose(after[:, :16], short, atol=1e-5)
    np.testing.assert_allclose(before[:, 2:], short, atol=1e-5)


def test_white_noise_power_is_that_of_white_noise():
    noise = np.random.default_rng(0).normal(size=(8, 64000)).astype(np.float32) * 0.01
    power = np.exp(np.asarray(mel.log_mel(noise)))[:, 1:-1].mean(axis=(0, 1))
    np.testing.assert_allclose(power, mel.white_noise_power(0.01), rtol=0.08)


def test_gradient_agrees_with_finite_differences():
    audio = jnp.asarray(speech_like(960)[None])
    direction = jnp.asarray(np.random.default_rng(2).normal(size=audio.shape), jnp.float32)

    @jax.jit
    def mean(x):
        return mel.log_mel(x, floor=1e-3).mean()

    slope = jnp.vdot(jax.grad(mean)(audio), direction)
    step = 1e-3
    measured = (mean(audio + step * direction) - mean(audio - step * direction)) / (2 * step)
    np.testing.assert_allclose(slope, measured, rtol=0.02)
    assert np.isfinite(jax.grad(mean)(jnp.zeros((1, 640)))).all()


@pytest.mark.parametrize("shape", [(10,), (1, 0), (1, 2, 3)])
def test_wrong_shapes_are_named(shape):
    with pytest.raises(ValueError, match="shape"):
        mel.log_mel(jnp.zeros(shape))
