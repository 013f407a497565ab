import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import configuration as config_lib
from a2fjax.configuration import CheckpointConfig, Resolved
from a2fjax.export import writer
from a2fjax.export.description import Rights
from a2fjax.export.graphs import model
from a2fjax.models import conditioning
from a2fjax.models import params as params_lib
from a2fjax.training import state
from a2fjax.training.checkpoint_writer import CheckpointWriter

SMALL = {
    "name": "small",
    "model": {"conv_layers": 2, "conv_width": 12, "recurrent_width": 10, "identity_width": 6},
    "data": {"identity_points": 48},
}


def write_run(folder, random_params, **changes):
    """Writes a run of random weights at step 7."""
    values = {**SMALL, **changes}
    config = config_lib.build(config_lib.Config, values, where="test")
    folder.mkdir()
    (folder / "config.json").write_text(Resolved(config, {}).to_json())
    params, frozen = params_lib.split(random_params(config))
    rng = np.random.default_rng(3)
    if config.model.identity_residual:
        frozen["constants"]["subjects"] = conditioning.encode_names(["anna", "bo"])
        table = rng.normal(size=(2, config.model.identity_width)).astype(np.float32)
        params["params"]["backbone"]["identity_residual"]["table"] = table
    # Of three people and two emotions; every identity counts.
    frozen["constants"] |= {"emotion_share": np.float32([0.7, 0.3, 0, 0, 0])}
    frozen["constants"]["identity_projection"] = np.float32(
        rng.normal(size=frozen["constants"]["identity_projection"].shape)
    )
    made = state.TrainState(jnp.asarray(7), params, frozen, {"count": jnp.zeros(())}, None)
    with CheckpointWriter(folder, CheckpointConfig()) as writer:
        writer.save(7, made, {"data": "x"}, {"eval/loss": 0.25})
        writer.wait()
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory, random_params):
    """A bidirectional run that reads mel and meshes."""
    return write_run(tmp_path_factory.mktemp("export") / "run", random_params)


@pytest.fixture(scope="session")
def subjects_run(tmp_path_factory, random_params):
    """A causal run that knows two training subjects and no meshes."""
    return write_run(
        tmp_path_factory.mktemp("export") / "subjects",
        random_params,
        model={
            **SMALL["model"],
            "recurrent": "causal",
            "identity": "none",
            "identity_residual": True,
        },
    )


@pytest.fixture(scope="session")
def pitch_run(tmp_path_factory, random_params):
    """A causal run that reads mel, pitch and meshes with normals."""
    return write_run(
        tmp_path_factory.mktemp("export") / "pitch",
        random_params,
        audio={"features": ("mel", "pitch")},
        model={**SMALL["model"], "recurrent": "causal", "identity_normals": True},
    )


SPOKEN = ("fsdd/0_george_0.flac", "fsdd/1_jackson_0.flac", "ljspeech/*")
RIGHTS = Rights("apache-2.0", ("Demo corpus",), ("en", "fr"))


@pytest.fixture(scope="session")
def recordings(request):
    """Files of real speech where they are at hand; otherwise none, which means synthetic ones."""
    try:
        speech = request.getfixturevalue("shared") / "speech"
    except pytest.skip.Exception:
        return ()
    found = [sorted(speech.glob(pattern)) for pattern in SPOKEN]
    endings = (".wav", ".flac")
    return tuple(next(p for p in f if p.suffix in endings) for f in found if f)


@pytest.fixture(scope="session", autouse=True)
def short_clips():
    """Compares graphs on shorter clips than a user's export, so that less is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_SECONDS", (0.011, 0.5, 2.0))
        yield


@pytest.fixture(scope="session")
def bundle(run, recordings, compile_once, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    return writer.export(run, out, ["onnx", "stablehlo"], audio=recordings, rights=RIGHTS)


@pytest.fixture(scope="session")
def streaming_run(tmp_path_factory, random_params):
    """A run for live audio that reads mel, pitch and meshes."""
    return write_run(
        tmp_path_factory.mktemp("export") / "streaming",
        random_params,
        audio={"features": ("mel", "pitch")},
        model={**SMALL["model"], "kind": "streaming"},
    )


@pytest.fixture(scope="session")
def streaming_bundle(streaming_run, compile_once, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "streaming"
    return writer.export(streaming_run, out, ["onnx"], lookaheads_ms=[0])


@pytest.fixture(scope="session")
def diffusion_run(tmp_path_factory, random_params):
    """A diffusion run that reads mel and meshes."""
    return write_run(
        tmp_path_factory.mktemp("export") / "diffusion",
        random_params,
        model={
            **SMALL["model"],
            "kind": "diffusion",
            "unet": {"widths": (8, 12), "heads": 2, "window": 8},
            "sample": {"steps": 3},
        },
    )


@pytest.fixture(scope="session")
def diffusion_bundle(diffusion_run, compile_once, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "diffusion"
    return writer.export(diffusion_run, out, ["onnx"])
