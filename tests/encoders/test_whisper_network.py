"""Whisper's encoder against an independent one in NumPy: spectrogram, network, long audio."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.audio import num_frames
from a2fjax.encoders import whisper
from a2fjax.encoders.whisper.chunked import apply_jit
from a2fjax.errors import InputError


@pytest.mark.parametrize("samples", [1, 321, 16000])
def test_parity_with_numpy_any_length(case, samples):
    params, audio = case.random_params(), case.voice(samples)
    expected = case.numpy_encoder(case.SMALL, params, case.numpy_mel(audio, case.SMALL.mels))
    got = apply_jit(case.SMALL, params, audio[None], all_layers=True)
    assert got.shape == (3, 1, num_frames(samples), 16) and got.dtype == jnp.float32
    np.testing.assert_allclose(got[:, 0], expected, atol=2e-5)
    if samples == 321:
        last = apply_jit(case.SMALL, params, audio[None])
        np.testing.assert_allclose(last[0], expected[-1], atol=2e-5)
        # Without the norm of the last layer.
        inner = apply_jit(case.SMALL, params, audio[None], layers=1)
        np.testing.assert_allclose(inner[0], expected[1], atol=2e-5)


def test_pad_encodes_clips_in_30_s_of_silence(case):
    params, audio = case.random_params(), case.voice(12345)
    expected = case.numpy_encoder(case.SMALL, params, case.numpy_mel(audio, case.SMALL.mels, 1500))
    padded = dataclasses.replace(case.SMALL, pad=True)
    got = apply_jit(padded, params, audio[None], all_layers=True)
    np.testing.assert_allclose(got[:, 0], expected[:, : num_frames(12345)], atol=2e-5)
    beyond = np.concatenate([audio, np.ones(4000, np.float32)])
    masked = apply_jit(padded, params, beyond[None], length=jnp.array([12345]), all_layers=True)
    np.testing.assert_allclose(masked[:, :, :39], got, atol=1e-5)


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("seconds", [0.7, 30])
def test_log_mel_is_that_of_whispers_feature_extractor(case, seconds, bins):
    from transformers import WhisperFeatureExtractor

    audio = case.voice(int(seconds * 16000))
    extractor = WhisperFeatureExtractor(feature_size=bins)
    expected = extractor._np_extract_fbank_features(
        np.pad(audio, (0, 480000 - len(audio)))[None], "cpu"
    )
    audio = np.pad(audio, (0, 480000 - len(audio)))
    got = np.asarray(whisper.log_mel(audio[None], bins=bins, reflect_end=True))
    np.testing.assert_allclose(got[0].T, expected[0], atol=1e-4)


def test_a_fixed_peak_makes_the_spectrogram_of_a_crop_a_crop(case):
    audio = case.voice(32000)
    audio[:16000] *= 0.01
    whole = whisper.log_mel(audio[None], peak=0.0)
    crop = whisper.log_mel(audio[None, 6400:16000], peak=0.0)
    np.testing.assert_allclose(crop[:, 2:-2], whole[:, 42:98], atol=1e-5)
    relative_peak = whisper.log_mel(audio[None, 6400:16000])
    assert np.abs(relative_peak[:, 2:-2] - whisper.log_mel(audio[None])[:, 42:98]).max() > 0.05


@pytest.mark.parametrize("loud", [0.0, 0.9])
def test_audio_beyond_a_clips_end_changes_nothing(case, loud):
    params = case.random_params()
    audio = np.stack([case.voice(16000), case.voice(16000, 1)])
    length = np.array([7001, 16000])
    noise = np.random.default_rng(0).normal(size=audio.shape).astype(np.float32)
    batch = np.where(np.arange(16000) < length[:, None], audio, loud * noise)
    got = apply_jit(case.SMALL, params, batch, length=length, all_layers=True)
    for i, n in enumerate(length):
        alone = apply_jit(case.SMALL, params, audio[i : i + 1, :n], all_layers=True)
        np.testing.assert_allclose(got[:, i : i + 1, : num_frames(n)], alone, atol=1e-5)


def test_first_is_the_position_in_the_window(case):
    params, audio = case.random_params(), case.voice(9600)
    expected = [
        case.numpy_encoder(case.SMALL, params, case.numpy_mel(audio, 20), f)[-1] for f in (3, 1470)
    ]
    got = apply_jit(case.SMALL, params, np.stack([audio, audio]), first=np.array([3, 1470]))
    np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("frame", [5, 20, 44])
def test_clicks_show_where_motion_frames_are(case, frame):
    """With symmetric kernels a click's response is centred on its motion frame, within 1 ms."""
    params = case.random_params()
    for name in ("conv1", "conv2"):
        kernel = params[name]["kernel"]
        params[name]["kernel"] = kernel + kernel[::-1]
    params["positions"] = np.zeros_like(params["positions"])
    silence = np.zeros((1, 16000), np.float32)
    click = silence.copy()
    click[0, 320 * frame] = 0.5
    fixed_peak = dataclasses.replace(case.SMALL, peak=1.0)
    states = [apply_jit(fixed_peak, params, a, layers=0)[0] for a in (click, silence)]
    energy = np.square(np.asarray(states[0] - states[1], np.float64)).sum(-1)
    centre = (energy * np.arange(50)).sum() / energy.sum() / 50
    assert energy.sum() > 1e-3
    assert abs(centre - frame / 50) < 1e-3


def test_a_click_changes_most_the_frame_at_its_time(case):
    """Attention spreads a click over all frames; its own frame changes most."""
    params = case.random_params()
    noise = 1e-3 * np.random.default_rng(0).normal(size=(1, 32000)).astype(np.float32)
    fixed_peak = dataclasses.replace(case.SMALL, peak=1.0)
    for frame in (10, 50, 83):
        click = noise.copy()
        click[0, 320 * frame] += 0.5
        change = apply_jit(fixed_peak, params, click) - apply_jit(fixed_peak, params, noise)
        assert int(jnp.square(change[0]).sum(-1).argmax()) == frame


def test_bad_lengths_and_layers(case):
    params = case.random_params()
    with pytest.raises(ValueError, match=r"\[batch, 1 to 480000\]"):
        case.SMALL.apply(params, np.zeros((1, 480001)))
    with pytest.raises(ValueError, match="audio has shape"):
        case.SMALL.apply(params, np.zeros((1, 0)))
    with pytest.raises(InputError, match="layers=3: expected 0 to 2"):
        case.SMALL.apply(params, np.zeros((1, 320)), layers=3)


def test_bfloat16_and_remat(case):
    params, audio = case.random_params(), case.voice(16000)[None]
    full = apply_jit(case.SMALL, params, audio)
    half = apply_jit(case.SMALL, params, audio, dtype=jnp.bfloat16)
    assert half.dtype == jnp.float32
    error = float(jnp.sqrt(jnp.mean((half - full) ** 2) / jnp.mean(full**2)))
    assert 1e-4 < error < 0.03

    def loss(params, remat):
        return jnp.sum(case.SMALL.apply(params, audio[:, :3200], layers=1, remat=remat) ** 3)

    @jax.jit
    def both(params):
        return [jax.grad(loss)(params, remat) for remat in (False, True)]

    plain, again = both(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), plain, again)
    text = str(jax.make_jaxpr(lambda p: jax.grad(loss)(p, True))(params))
    assert "remat" in text or "checkpoint" in text


def test_fewer_layers_cost_less(case):
    params, audio = case.random_params(), case.voice(16000)[None]

    def flops(layers):
        run = jax.jit(lambda p: case.SMALL.apply(p, audio, layers=layers))
        return run.lower(params).cost_analysis()["flops"]

    assert flops(0) < flops(1) < flops(2)


def test_long_audio_is_encoded_in_windows_that_overlap(case):
    params, audio = case.random_params(), case.voice(16000 * 5)[None]
    whole = whisper.encode_chunked(case.SMALL, params, audio)
    np.testing.assert_allclose(whole, apply_jit(case.SMALL, params, audio), atol=1e-5)
    got = whisper.encode_chunked(case.SMALL, params, audio[:, :-100], window_s=2.0, overlap_s=0.8)
    audio[:, -100:] = 0  # Silence follows.
    assert got.shape == whole.shape
    parts = [
        whisper.encode_chunked(case.SMALL, params, audio[:, s : s + 32000])
        for s in (0, 19200, 38400, 48000)
    ]
    # Outside the middle fifth of a second of the overlaps, it is one window's or the other's.
    np.testing.assert_array_equal(got[:, :74], parts[0][:, :74])
    np.testing.assert_array_equal(got[:, 90:130], parts[1][:, 30:70])
    np.testing.assert_array_equal(got[:, 200:], parts[3][:, 50:])
    # Cross-faded: between the two that overlap.
    low, high = (f(parts[0][:, 75:85], parts[1][:, 15:25]) for f in (np.minimum, np.maximum))
    assert (got[:, 75:85] >= low - 1e-5).all() and (got[:, 75:85] <= high + 1e-5).all()
    states = whisper.encode_chunked(
        case.SMALL, params, audio, window_s=2.0, overlap_s=0.8, all_layers=True
    )
    assert states.shape == (3, 1, 250, 16)
    np.testing.assert_allclose(states[-1], got, atol=1e-5)


def test_impossible_windows_are_refused(case):
    params, audio = case.random_params(), case.voice(16000)[None]
    with pytest.raises(InputError, match="window_s=31: expected above 0 to 30 s"):
        whisper.encode_chunked(case.SMALL, params, audio, window_s=31)
    with pytest.raises(InputError, match="overlap_s=1: expected 0 to below half of 2 s"):
        whisper.encode_chunked(case.SMALL, params, audio, window_s=2, overlap_s=1)
