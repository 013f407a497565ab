import jax
import numpy as np
import pytest

from a2fjax import config as config_lib
from a2fjax import tasks
from a2fjax.infer import predictor


def small_config():
    values = {
        "name": "small",
        "model": {"conv_width": 16, "recurrent_width": 16, "identity_width": 8},
        "data": {"identity_points": 32},
    }
    return config_lib.build(config_lib.Config, values, where="test")


def random_params(task, config, seed=0):
    """Weights large enough that audio, identity and emotion all show in the motion."""
    batch = predictor.batch_shapes(config, 1, 64)
    shapes = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = "/".join(str(k.key) for k in path)
        if name == "constants/motion_mean":
            return np.full(72, 0.4, np.float32)
        if name == "constants/motion_std":
            return np.full(72, 0.1, np.float32)
        if leaf.ndim < 2:
            return np.full(leaf.shape, float(name.endswith("scale")), np.float32)
        scale = 0.3 if "modulation" in name else (leaf.size // leaf.shape[-1]) ** -0.5
        return (rng.standard_normal(leaf.shape) * scale).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="session")
def model():
    config = small_config()
    task = tasks.build(config, None)
    return predictor.Predictor(config, task, random_params(task, config), step=7)


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
