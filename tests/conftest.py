import atexit
import dataclasses
import hashlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Set this before NumPy is imported. BLAS threads spin while they wait for a core used by another
# test worker: the points of one mesh took 5.6 s of processor time instead of 0.33 s on two busy
# cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("WANDB_MODE", "offline")
if "A2F_CACHE" not in os.environ:
    # All processes of these tests share one cache, separate from the user's.
    os.environ["A2F_CACHE"] = tempfile.mkdtemp(prefix="a2fjax-tests-")
    atexit.register(shutil.rmtree, os.environ["A2F_CACHE"], ignore_errors=True)

import hypothesis  # noqa: E402
import pytest  # noqa: E402

from a2fjax import progress, signals  # noqa: E402

# Tests compare what commands print, on machines of any speed.
progress.AFTER = 3600.0

# Use the same examples everywhere, at any machine speed, so that results are reproducible.
# HYPOTHESIS_PROFILE=search generates new ones, and twice as many.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


# Folders with the slowest test files, slowest first.
LONG = ("end_to_end", "launch", "models", "training", "plan", "encoders", "infer")


def pytest_collection_modifyitems(items):
    """Runs slow files first, so that workers, which run whole files, finish together."""

    def order(item):
        folders = [name for name in LONG if name in item.path.parts]
        return LONG.index(folders[0]) if folders else len(LONG)

    items.sort(key=order)


HANDLERS = {number: signal.getsignal(number) for number in signals.SCHEDULER_SIGNALS}


@pytest.fixture(autouse=True)
def handlers():
    """Restores signal handlers after commands, which leave signals ignored because they exit."""
    yield
    for number, handler in HANDLERS.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def tell_again():
    """Returns a function of (process) that repeats SIGTERM until it ends, as Slurm does."""

    def send(process):
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.002)

    return send


@pytest.fixture(scope="session")
def checksum():
    """Returns a function of (run, step=last) that digests a run's parameters and averages."""
    import jax
    import numpy as np

    from a2fjax.training import checkpoints

    def digest(run, step=None):
        out = hashlib.sha256()
        for item in ("params", "ema"):
            for leaf in jax.tree.leaves(checkpoints.load_params(run, step, item)[1]):
                out.update(np.asarray(leaf).tobytes())
        return out.hexdigest()

    return digest


@pytest.fixture(scope="session")
def random_params():
    """Returns a function of (config, seed) that gives parameters of a configuration's model."""
    return make_random_params


def make_random_params(config, seed=0):
    """Returns weights large enough that audio, identity and emotion all affect the motion."""
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
        if name in ("constants/identity_deviation", "constants/identity_bounds"):
            return np.full(leaf.shape, 1e9, np.float32)  # Every face counts in full.
        if leaf.ndim < 2 or not leaf.size:
            return np.full(leaf.shape, float(name.endswith("scale")), np.float32)
        scale = 0.3 if "film" in name else (leaf.size // leaf.shape[-1]) ** -0.5
        return (rng.standard_normal(leaf.shape) * scale).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Returns the folder of recordings and captures beside the checkout; skips if it is absent."""
    root = Path(__file__).resolve().parents[1]
    path = Path(os.environ.get("A2FJAX_SHARED_DATA", root.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no recordings at {path}; set A2FJAX_SHARED_DATA")
    return path


@pytest.fixture(scope="session")
def compile_once(tmp_path_factory):
    """Enables a compilation cache, so that no program is compiled twice."""
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


def hub_tensors(params):
    """Converts Whisper's parameters to the hub's names and layout."""
    import numpy as np

    out = {"embed_positions.weight": params["positions"]}
    for name in ("conv1", "conv2"):
        out[f"{name}.weight"] = params[name]["kernel"].transpose(2, 1, 0)
        out[f"{name}.bias"] = params[name]["bias"]
    norms = {"layer_norm": params["final_norm"]}
    for i in range(sum(k.startswith("layers_") for k in params)):
        layer = params[f"layers_{i}"]
        at = f"layers.{i}."
        for j, part in enumerate("qkv"):
            linear = {k: np.split(v, 3, axis=-1)[j] for k, v in layer["qkv"].items()}
            out[f"{at}self_attn.{part}_proj.weight"] = linear["kernel"].T
            if part != "k":
                out[f"{at}self_attn.{part}_proj.bias"] = linear["bias"]
        for part, name in (("out", "self_attn.out_proj"), ("up", "fc1"), ("down", "fc2")):
            out[f"{at}{name}.weight"] = layer[part]["kernel"].T
            out[f"{at}{name}.bias"] = layer[part]["bias"]
        norms[f"{at}self_attn_layer_norm"] = layer["attention_norm"]
        norms[f"{at}final_layer_norm"] = layer["mlp_norm"]
    for name, norm in norms.items():
        out[f"{name}.weight"], out[f"{name}.bias"] = norm["scale"], norm["bias"]
    return {k: np.ascontiguousarray(v) for k, v in out.items()}


@pytest.fixture(scope="session")
def hub():
    """Returns the function that converts Whisper's parameters to the hub's names and layout."""
    return hub_tensors


def random_weights(shapes, seed=0):
    """Returns random weights, none at a value that would hide its omission."""
    import jax
    import numpy as np

    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        last = path[-1].key
        value = rng.normal(size=leaf.shape)
        if last in ("scale", "g"):
            value = 1 + 0.2 * value
        elif last in ("bias", "masked_spec_embed"):
            value = 0.1 * value
        elif last == "positions":
            from a2fjax.encoders import whisper

            value = whisper.sinusoids(*leaf.shape)
        else:
            value = value / np.sqrt(np.prod(leaf.shape[:-1]))
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="session")
def tiny_encoders(tmp_path_factory):
    """Returns features of small random encoders on disk, by name; copy one before changing it.

    Each has three layers; "wav2vec2" and "hubert" have the base architecture, "large" and
    "hubert-large" the large one, and "whisper" processes 30 s at once.
    """
    import jax
    import numpy as np
    from safetensors.numpy import save_file

    from a2fjax.encoders import wav2vec2, whisper

    root = tmp_path_factory.mktemp("encoders")
    sizes = dict(
        # Two convolutions with the receptive field and hop of the published seven compile quickly.
        conv_dim=(12, 12), conv_kernel=(40, 10), conv_stride=(40, 8), hidden_size=16,
        num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=4,
    )  # fmt: skip
    out = {}
    for name, base, kind in (
        ("wav2vec2", wav2vec2.BASE, "wav2vec2"),
        ("large", wav2vec2.LARGE, "wav2vec2"),
        ("hubert", wav2vec2.BASE, "hubert"),
        ("hubert-large", wav2vec2.LARGE, "hubert"),
    ):
        layout = dataclasses.replace(base, **sizes, model_type=kind)
        shapes = jax.eval_shape(wav2vec2.Wav2Vec2Encoder(layout).init, jax.random.key(0))
        wav2vec2.save(root / name, layout, random_weights(shapes))
        out[name] = f"{kind}:{root / name}"
    encoder = whisper.WhisperEncoder(width=16, layers=3, heads=2, hidden=24, mels=20)
    params = random_weights(jax.eval_shape(encoder.init, jax.random.key(0)))
    for i in range(encoder.layers):  # Whisper's keys have no bias.
        params[f"layers_{i}"]["qkv"]["bias"][16:32] = 0
    (root / "whisper").mkdir()
    tensors = {k: np.asarray(v, np.float32) for k, v in hub_tensors(params).items()}
    save_file(tensors, root / "whisper" / "model.safetensors")
    (root / "whisper" / "config.json").write_text(
        json.dumps({"model_type": "whisper", "encoder_attention_heads": 2})
    )
    out["whisper"] = f"whisper:{root / 'whisper'}"
    return out
