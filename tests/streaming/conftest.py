import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import tasks
from a2fjax.infer import predictor


def small_config(**model):
    values = {
        "name": "small stream",
        "audio": {"features": ("mel", "pitch")},
        "model": {
            "kind": "streaming",
            "conv_width": 16,
            "recurrent_width": 16,
            "identity_width": 8,
            **model,
        },
        "data": {"identity_points": 32},
    }
    return config_lib.build(config_lib.Config, values, where="test")


@pytest.fixture(scope="session")
def streaming_model(random_params, compile_once):
    config = small_config()
    return predictor.Predictor(config, tasks.build(config), random_params(config), step=7)


@pytest.fixture(scope="session")
def identity():
    return np.random.default_rng(5).normal(size=(32, 3)).astype(np.float32) / 3**0.5


def speech_like(seconds, seed=0):
    """Bursts of harmonics with pauses, as loud as a recording."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16000)) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(np.pi * t)) / 16000
    voice = sum(np.sin(k * phase + k) / k for k in range(1, 20))
    keys = np.arange(0, seconds + 1, 0.12)
    burst = np.interp(t, keys, rng.random(len(keys)))
    return (0.05 * voice * burst**2 + 0.001 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def speech():
    return speech_like


def push_blocks(stream, audio, sizes):
    """Pushes audio in blocks of these sizes, again from the first after the last."""
    stream.reset()
    out, begin, i = [], 0, 0
    while begin < len(audio):
        stream.push(audio[begin : begin + sizes[i % len(sizes)]])
        begin += sizes[i % len(sizes)]
        if i % 3 == 0:
            out.append(stream.frames())
        i += 1
    return np.concatenate([*out, stream.close()])


@pytest.fixture(scope="session")
def pushed():
    return push_blocks
