import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("WANDB_MODE", "offline")

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# The same examples everywhere, at any speed of the machine: a change is judged by what it changes.
# HYPOTHESIS_PROFILE=search looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def random_params():
    """Parameters of a configuration's model, as a function of (config, seed)."""
    return make_random_params


def make_random_params(config, seed=0):
    """Weights large enough that audio, identity and emotion all show in the motion."""
    import jax
    import numpy as np

    from a2fjax import tasks
    from a2fjax.infer import predictor

    task = tasks.build(config, None)
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
def shared() -> Path:
    """Recordings and captures beside the checkout; tests that need them skip where they are not."""
    root = Path(__file__).resolve().parents[1]
    path = Path(os.environ.get("A2FJAX_SHARED_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}; set A2FJAX_SHARED_DATA")
    return path


@pytest.fixture(scope="session")
def compile_once(tmp_path_factory):
    """From here on, a program that was compiled before is not compiled again."""
    import jax

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
