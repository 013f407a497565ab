"""Small encoders, random weights, and independent NumPy implementations."""

import dataclasses
import functools
import types

import jax
import numpy as np
import pytest
from scipy.special import erf

from a2fjax.audio import num_frames
from a2fjax.configuration import EncoderConfig
from a2fjax.encoders import storage, wav2vec2, whisper

# Two convolutions with the receptive field and hop of the published seven: quick to compile.
TINY = wav2vec2.Wav2Vec2Config(
    conv_dim=(12, 12),
    conv_kernel=(40, 10),
    conv_stride=(40, 8),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
SEVEN = dict(
    conv_dim=(12,) * 7, conv_kernel=wav2vec2.BASE.conv_kernel, conv_stride=wav2vec2.BASE.conv_stride
)
LAYOUTS = {
    "base": TINY,
    "large": dataclasses.replace(
        TINY, conv_bias=True, feat_extract_norm="layer", do_stable_layer_norm=True
    ),
    # A mixture that is neither: odd taps, another activation, no norm before the projection.
    "odd": dataclasses.replace(
        TINY,
        model_type="hubert",
        conv_bias=True,
        num_conv_pos_embeddings=7,
        hidden_act="quick_gelu",
        feat_proj_layer_norm=False,
        layer_norm_eps=1e-3,
    ),
}
PLAIN = dict(
    hidden_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    layerdrop=0.0,
    mask_time_prob=0.0,
)


# Nothing here runs long enough to benefit from optimisation.
compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(
    compiled, static_argnames=("encoder", "layers", "all_layers", "count_padding", "train")
)
def run(encoder, params, audio, **options):
    return encoder.apply(params, audio, **options)


@functools.partial(compiled, static_argnames=("encoder", "layers", "all_layers"))
def motion_features(encoder, params, audio, **options):
    return encoder.motion_features(params, audio, **options)


@functools.cache
def random_params(layout, seed=0):
    """Returns random parameters, none at a value that would hide a missing one."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(wav2vec2.Wav2Vec2Encoder(layout).init, jax.random.key(0))

    def draw(path, leaf):
        value = rng.normal(size=leaf.shape)
        last = path[-1].key
        if last in ("scale", "g"):
            value = 1 + 0.2 * value
        elif last in ("bias", "masked_spec_embed"):
            value = 0.1 * value
        else:
            value = value / np.sqrt(np.prod(leaf.shape[:-1]))
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def noise(batch, samples, seed=1):
    return np.random.default_rng(seed).normal(size=(batch, samples)).astype(np.float32)


@pytest.fixture(scope="session")
def tiny():
    """Architectures by name (base, large, and odd, which is neither), and functions of them."""
    return types.SimpleNamespace(
        BASE=TINY,
        LAYOUTS=LAYOUTS,
        SEVEN=SEVEN,
        PLAIN=PLAIN,
        compiled=compiled,
        run=run,
        motion_features=motion_features,
        random_params=random_params,
        noise=noise,
    )


@pytest.fixture
def load(tiny_encoders):
    """Returns a function of (name, **settings) that loads one of the tiny encoders."""

    def load(name, **settings):
        return storage.load(tiny_encoders[name], EncoderConfig(**settings))

    return load


# ---- Whisper ----

SMALL_WHISPER = whisper.WhisperEncoder(width=16, layers=2, heads=2, hidden=24, mels=20)


def whisper_params(encoder=SMALL_WHISPER, seed=0):
    """Returns weights large enough that every part changes the output."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(encoder.init, jax.random.key(0))

    def fill(path, leaf):
        name = path[-1].key
        if name == "positions":
            return whisper.sinusoids(*leaf.shape)
        fan = np.prod(leaf.shape[:-1]) if name == "kernel" else 25.0
        values = rng.normal(size=leaf.shape) / np.sqrt(fan) + (name == "scale")
        return values.astype(np.float32)

    params = jax.tree_util.tree_map_with_path(fill, shapes)
    for i in range(encoder.layers):  # Whisper's keys have no bias.
        params[f"layers_{i}"]["qkv"]["bias"][encoder.width : 2 * encoder.width] = 0
    return params


def voice(samples, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    wave = sum(np.sin(2 * np.pi * 140 * h * t + h) / h for h in range(1, 30))
    wave *= 0.1 * np.clip(np.sin(2 * np.pi * 2.3 * t), 0, None)
    return (wave + 0.003 * rng.normal(size=samples)).astype(np.float32)


def numpy_mel(audio, bins, frames=None):
    from transformers.audio_utils import mel_filter_bank

    frames = frames or num_frames(len(audio))
    audio = np.concatenate([audio, np.zeros(frames * 320 - len(audio))]).astype(np.float64)
    wave = np.concatenate([audio[200:0:-1], audio, np.zeros(40)])
    if frames == 1500:
        wave[-40:] = audio[-2:-42:-1]
    hann = np.hanning(401)[:400]
    power = [np.abs(np.fft.rfft(wave[160 * j :][:400] * hann)) ** 2 for j in range(2 * frames)]
    filters = mel_filter_bank(201, bins, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    log = np.log10(np.maximum(np.array(power) @ filters, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


def numpy_encoder(encoder, params, spectra, first=0):
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

    def gelu(x):
        return x * (1 + erf(x / np.sqrt(2))) / 2

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]
        )

    def conv(x, p, stride):
        x = np.pad(x, ((1, 1), (0, 0)))
        taps = [x[k : k + len(x) - 2] @ p["kernel"][k] for k in range(3)]
        return (sum(taps) + p["bias"])[::stride]

    def linear(x, p):
        return x @ p["kernel"] + p["bias"]

    x = gelu(conv(gelu(conv(spectra, params["conv1"], 1)), params["conv2"], 2))
    x = x + params["positions"][first : first + len(x)]
    states = [x]
    for i in range(encoder.layers):
        p = params[f"layers_{i}"]
        q, k, v = np.split(linear(norm(x, p["attention_norm"]), p["qkv"]), 3, axis=1)
        heads = []
        for part in np.split(np.arange(encoder.width), encoder.heads):
            scores = q[:, part] @ k[:, part].T / np.sqrt(len(part))
            scores = np.exp(scores - scores.max(1, keepdims=True))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
        x = x + linear(np.concatenate(heads, axis=1), p["out"])
        x = x + linear(gelu(linear(norm(x, p["mlp_norm"]), p["up"])), p["down"])
        states.append(x)
    states[-1] = norm(x, params["final_norm"])
    return np.array(states)


def same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0})), a, b)


@pytest.fixture(scope="session")
def case():
    """A small Whisper encoder with random weights, and an independent one in float64."""
    return types.SimpleNamespace(
        SMALL=SMALL_WHISPER,
        random_params=whisper_params,
        voice=voice,
        numpy_mel=numpy_mel,
        numpy_encoder=numpy_encoder,
        same=same,
    )
