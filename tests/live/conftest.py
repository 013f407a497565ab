import jax
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax.models import params as params_lib
from a2fjax.training import checkpoint_writer
from a2fjax.training.state import TrainState

OVERRIDES = {
    "name": "small stream",
    "audio.features": "mel",
    "model.kind": "streaming",
    "model.conv_width": "16",
    "model.recurrent_width": "16",
    "model.identity_width": "8",
    "data.identity_points": "32",
}


def speech_like(seconds, seed=0, rate=16000):
    """Bursts of harmonics with pauses, as loud as a recording."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(np.pi * t)) / rate
    voice = sum(np.sin(k * phase + k) / k for k in range(1, 20))
    keys = np.arange(0, seconds + 1, 0.12)
    burst = np.interp(t, keys, rng.random(len(keys)))
    return (0.05 * voice * burst**2 + 0.001 * rng.standard_normal(len(t))).astype(np.float32)


@pytest.fixture(scope="session")
def speech():
    return speech_like


@pytest.fixture(scope="session")
def run(tmp_path_factory, random_params, compile_once):
    """A run folder of a small model that streams."""
    resolved = config_lib.load(None, OVERRIDES)
    run = tmp_path_factory.mktemp("live") / "run"
    run.mkdir()
    (run / "config.json").write_text(resolved.to_json())
    with checkpoint_writer.CheckpointWriter(run, resolved.config.checkpoint) as saver:
        trained, frozen = params_lib.split(random_params(resolved.config, 1))
        trained, frozen = jax.tree.map(jax.numpy.asarray, (trained, frozen))
        opt_state = {"mu": jax.numpy.zeros(3)}
        saver.save(10, TrainState(np.int32(10), trained, frozen, opt_state, None), {}, {})
        saver.wait()
    return run


@pytest.fixture(scope="session")
def model(run):
    import a2fjax

    return a2fjax.load(run)


@pytest.fixture(scope="session")
def streams(model):
    """Returns a function that opens a stream of the model; it compiles once."""

    def open_stream(**options):
        return model.stream(**options)

    return open_stream
