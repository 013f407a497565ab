"""Timing of wav2vec 2.0: centred on motion frames within 1 ms; long audio in windows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax.audio import num_frames
from a2fjax.encoders import wav2vec2
from a2fjax.encoders.wav2vec2 import chunked, network


def test_normalise_is_the_hubs(tiny):
    from transformers import Wav2Vec2FeatureExtractor

    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    audio = [tiny.noise(1, 5000)[0] * 0.01 + 0.3, tiny.noise(1, 3000, 2)[0] * 5 - 1]
    expected = extractor(audio, sampling_rate=16000, padding=True, return_tensors="np")
    padded = np.stack([audio[0], np.pad(audio[1], (0, 2000), constant_values=0.7)])
    got = wav2vec2.normalise(jnp.asarray(padded), jnp.array([5000, 3000]))
    np.testing.assert_allclose(got, expected["input_values"], atol=1e-4)
    alone = extractor(audio[0], sampling_rate=16000, return_tensors="np")["input_values"]
    np.testing.assert_allclose(wav2vec2.normalise(jnp.asarray(audio[0][None])), alone, atol=1e-4)
    assert np.isfinite(wav2vec2.normalise(jnp.zeros((1, 100)))).all()


def symmetric(tiny, layout):
    """Returns parameters with symmetric filters and frames that depend on themselves only."""
    params = jax.tree.map(np.array, tiny.random_params(layout))
    for layer in params["feature_extractor"]["conv_layers"].values():
        layer["conv"]["kernel"] += layer["conv"]["kernel"][::-1]
    params["encoder"]["pos_conv_embed"]["conv"]["g"] *= 0
    return params


@pytest.mark.parametrize("name", ["base", "large"])
def test_clicks_are_centred_on_motion_frames_within_1_ms(tiny, name):
    """With symmetric filters, the response of a frame is symmetric about its centre."""
    layout = dataclasses.replace(tiny.LAYOUTS[name], **tiny.SEVEN, do_normalize=False)
    encoder, params = wav2vec2.Wav2Vec2Encoder(layout, layers=0), symmetric(tiny, layout)
    frame = 5
    positions = np.arange(320 * frame - 560, 320 * frame + 561, 8)
    clicks = np.zeros((len(positions) + 1, 3600), np.float32)
    clicks[np.arange(len(positions)), positions] = 0.5
    # Far louder ones, too far away to be heard, keep the group norm's statistics in place.
    clicks[:, [100, 3100]] = 20.0

    def centre(features):
        """Returns how much each click changes the frame, and the first and last that do."""
        change = np.sqrt(np.sum((features - features[-1]) ** 2, -1))[:-1]
        change = np.where(change > 0.2 * change.max(), change, 0.0)
        return change, positions[change > 0][[0, -1]]

    got = np.asarray(tiny.motion_features(encoder, params, clicks).features)[:, frame]
    change, (first, last) = centre(got)
    assert abs(np.sum(positions * change) / change.sum() / 16000 - frame / 50) < 5e-4
    assert 320 * frame - 200 <= first < last < 320 * frame + 200

    separate = np.asarray(tiny.run(encoder, params, clicks).features)
    change, _ = centre(separate[:, frame - 1])
    centre_sample = np.sum(positions * change) / change.sum()
    assert abs(centre_sample - (320 * (frame - 1) + 199.5)) < 8


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 399, 400, 640, 7999, 8000, 8001])
def test_every_motion_frame_has_features(tiny, samples):
    encoder, params = wav2vec2.Wav2Vec2Encoder(tiny.BASE, layers=1), tiny.random_params(tiny.BASE)
    audio = tiny.noise(1, samples)
    got = jax.eval_shape(lambda a: encoder.motion_features(params, a).features, audio)
    assert got.shape == (1, num_frames(samples), 32)
    # Frames of a longer clip are those of the network on a window around each centre.
    values, _ = encoder.align_to_motion(jnp.asarray(audio))
    assert tiny.BASE.frames(values.shape[1]) == num_frames(samples)
    normalised = np.asarray(wav2vec2.normalise(jnp.asarray(audio)))[0]
    copied = min(samples, values.shape[1] - 200)
    np.testing.assert_array_equal(values[0, 200 : 200 + copied], normalised[:copied])
    assert not np.asarray(values[0, :200]).any() and not np.asarray(values[0, 200 + copied :]).any()


def test_lengths_are_those_of_the_convolutions(tiny):
    assert wav2vec2.BASE.hop == 320 and wav2vec2.BASE.receptive == 400
    layout = dataclasses.replace(tiny.BASE, **tiny.SEVEN)
    params = tiny.random_params(layout)
    for samples in (400, 719, 720, 16000, 160001):
        frames = (samples - 400) // 320 + 1
        assert wav2vec2.BASE.frames(samples) == frames
        assert wav2vec2.BASE.samples(frames) <= samples < wav2vec2.BASE.samples(frames + 1)
        shape = jax.eval_shape(
            lambda a: wav2vec2.Wav2Vec2Encoder(layout).apply(params, a).features,
            jax.ShapeDtypeStruct((1, samples), jnp.float32),
        )
        assert shape.shape == (1, frames, 32)
    for shape in [(400,), (1, 399), (1, 1, 400)]:
        with pytest.raises(ValueError, match="shape"):
            wav2vec2.Wav2Vec2Encoder(tiny.BASE).apply(
                tiny.random_params(tiny.BASE), jnp.zeros(shape)
            )


def test_windows_cover_everything_once():
    assert chunked.window_starts(90, 100, 20) == [0] and chunked.window_starts(100, 100, 20) == [0]
    assert chunked.window_starts(101, 100, 20) == [0, 1]
    assert chunked.window_starts(260, 100, 20) == [0, 80, 160]
    assert chunked.window_starts(300, 100, 20) == [0, 80, 160, 200]
    with pytest.raises(ValueError, match="under half"):
        chunked.window_starts(300, 100, 50)


LONG = dict(window=1.6, overlap=0.64)


def swelling(tiny, samples):
    """Returns audio with loud and quiet parts, so statistics of windows differ."""
    return tiny.noise(2, samples) * (0.2 + np.arange(samples) / samples).astype(np.float32) + 0.1


@pytest.mark.parametrize("name", ["base", "large"])
def test_below_attention_nothing_depends_on_windows(tiny, name):
    encoder, params = (
        wav2vec2.Wav2Vec2Encoder(tiny.LAYOUTS[name]),
        tiny.random_params(tiny.LAYOUTS[name]),
    )
    audio = swelling(tiny, 64123)
    whole = np.asarray(tiny.motion_features(encoder, params, audio, layers=0).features)
    joined = chunked.encode_chunked(encoder, params, audio, layers=0, **LONG)
    assert joined.shape == whole.shape == (2, 201, 32)
    np.testing.assert_allclose(joined, whole, atol=2e-5)
    separate = chunked.encode_chunked(encoder, params, audio, layers=0, own_statistics=True, **LONG)
    assert (np.abs(separate - whole).max() > 1e-2) == (name == "base")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "large"])
def test_long_audio_in_windows(tiny, name):
    encoder = wav2vec2.Wav2Vec2Encoder(tiny.LAYOUTS[name])
    params = jax.tree.map(np.array, tiny.random_params(tiny.LAYOUTS[name]))
    # Even attention, as random starts have it: sharp random attention is to any place at all.
    for layer in params["encoder"]["layers"].values():
        layer["attention"]["q_proj"]["kernel"] *= 0.1
    audio = swelling(tiny, 64123)
    whole = tiny.motion_features(encoder, params, audio, all_layers=True)
    at_once = chunked.encode_chunked(encoder, params, audio)
    np.testing.assert_allclose(at_once, whole.features, atol=1e-5)
    joined = chunked.encode_chunked(encoder, params, audio, all_layers=True, **LONG)
    assert joined.shape == (3, 2, 201, 32)
    errors = [
        chunked.join_error(np.asarray(one), other)["max"]
        for one, other in zip(whole.hidden_states, joined, strict=True)
    ]
    assert errors[0] < 1e-4 < errors[1] and errors[2] < 0.5


def test_join_error_is_relative_to_the_variation_over_time(tiny):
    whole = tiny.noise(1, 400).reshape(1, 100, 4) + 50
    error = chunked.join_error(whole, whole + 0.1 * whole.std())
    assert error["rms"] == pytest.approx(0.1, rel=0.1) and error["max"] == pytest.approx(
        error["p99"]
    )
    assert chunked.join_error(whole, whole) == {"rms": 0.0, "p99": 0.0, "max": 0.0}


def test_statistics_of_blocks_are_those_of_the_whole(tiny):
    params, audio = tiny.random_params(tiny.BASE), tiny.noise(2, 20001) + np.linspace(-3, 3, 20001)
    audio = audio.astype(np.float32)
    got = chunked.accumulate_statistics(tiny.BASE, params, audio, 700)
    expected = network.channel_statistics(
        network.first_convolution(tiny.BASE, params, jnp.asarray(audio))
    )
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-5)
    np.testing.assert_allclose(got.variance, expected.variance, rtol=1e-4)
    assert chunked.accumulate_statistics(tiny.LAYOUTS["large"], params, audio, 700) is None
