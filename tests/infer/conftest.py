import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax import tasks
from a2fjax.infer import predictor


def small_config():
    values = {
        "name": "small",
        "model": {"conv_width": 16, "recurrent_width": 16, "identity_width": 8},
        "data": {"identity_points": 32},
    }
    return config_lib.build(config_lib.Config, values, where="test")


@pytest.fixture(scope="session")
def model(random_params):
    config = small_config()
    return predictor.Predictor(config, tasks.build(config), random_params(config), step=7)


def diffusion_config(**changes):
    values = {
        "name": "small diffusion",
        "model": {
            "kind": "diffusion",
            "conv_width": 16,
            "recurrent_width": 12,
            "identity_width": 8,
            "emotion_dropout": 0.1,
            "unet": {"widths": (8, 12), "heads": 2, "window": 8},
            "sample": {"steps": 3},
            **changes,
        },
        "data": {"identity_points": 32},
    }
    return config_lib.build(config_lib.Config, values, where="test")


@pytest.fixture(scope="session")
def diffusion(random_params, compile_once):
    config = diffusion_config()
    params = random_params(config)
    # What a trained U-Net adds to draft and noise is of their size, not many times larger.
    params["params"]["unet"]["output"]["kernel"] *= 0.2
    return predictor.Predictor(config, tasks.build(config), params, step=7)


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
