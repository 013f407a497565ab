"""Diffusion runs as graphs: one step, the conditions, and a loop that needs nothing of a2fjax."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from a2fjax import rig
from a2fjax.api.model import load
from a2fjax.errors import InputError
from a2fjax.export import writer
from a2fjax.export.graphs.denoise import DenoiseGraph
from a2fjax.export.source import Source
from a2fjax.models.diffusion import START_INDEX, frame_noise
from a2fjax.streaming.chunks import Chunking

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[2] / "examples" / "denoise_numpy.py"


def sampled(bundle, *more):
    """Runs the example without a2fjax and what it needs."""
    code = (
        "import runpy, sys\n"
        "for name in ('a2fjax', 'jax', 'flax', 'onnx', 'scipy', 'soundfile'):\n"
        "    sys.modules[name] = None\n"
        "path = sys.argv.pop(1)\n"
        "runpy.run_path(path, run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, EXAMPLE, bundle, bundle / "example" / "in.wav", *more]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)


def test_both_graphs_are_written_and_agree(diffusion_bundle):
    reports = json.loads((diffusion_bundle / "parity.json").read_text())
    assert set(reports) == {f"onnx/{n}.onnx" for n in ("conditions", "denoise", "identity")}
    assert all(report["largest"] < 3e-5 for report in reports.values())


def test_the_loop_of_the_example_is_infer(diffusion_bundle, tmp_path):
    motion = load(diffusion_bundle).predict(diffusion_bundle / "example" / "in.wav").curves
    visits, frames = 3, -(-len(motion) // 2) * 2
    zero = np.zeros(1, np.int32)
    noise = [
        np.asarray(frame_noise(jax.random.key(0), zero, zero, frames, index))[0]
        for index in (START_INDEX, *range(visits))
    ]
    np.save(tmp_path / "noise.npy", np.stack(noise))
    ran = sampled(diffusion_bundle, tmp_path / "noise.npy")
    assert ran.returncode == 0, ran.stderr
    rows = list(csv.reader(ran.stdout.splitlines()))
    assert rows[0] == ["time", *rig.CHANNELS]
    found = np.array(rows[1:], float)[:, 1:]
    assert np.abs((found - motion) / rig.SCALE).max() < 1e-4
    assert np.ptp(found[:, :52], axis=0).max() > 0.05
    # Without that noise it is another sample.
    other = np.array(list(csv.reader(sampled(diffusion_bundle).stdout.splitlines()))[1:], float)
    assert np.abs(other[:, 1:] - motion).max() > 0.05


def test_the_function_of_the_step_is_the_product(diffusion_run):
    source, graph = Source(diffusion_run), DenoiseGraph()
    rng = np.random.default_rng(0)
    case = next(graph.cases(source, [0.1 * rng.normal(size=61_000).astype(np.float32)]))
    inputs = [case.inputs[tensor.name] for tensor in graph.inputs(source)]
    (clean,) = jax.jit(graph.function(source))(*inputs)
    wrong = np.abs(np.asarray(clean) - case.expected["clean"])[case.valid]
    assert wrong.max() < 1e-4


def test_the_example_is_short_and_refuses_guidance(diffusion_bundle, tmp_path):
    import shutil

    assert len(EXAMPLE.read_text().splitlines()) <= 80
    copy = tmp_path / "guided"
    shutil.copytree(diffusion_bundle, copy)
    manifest = json.loads((copy / "a2fjax.json").read_text())
    manifest["graphs"]["onnx/denoise.onnx"]["sampler"]["guided"] = ["emotion"]
    (copy / "a2fjax.json").write_text(json.dumps(manifest))
    ran = sampled(copy)
    assert ran.returncode == 1 and "guidance of ['emotion']" in ran.stderr


def test_a_bundle_streams_in_chunks(diffusion_bundle):
    chunking = Chunking(chunk=8, lookahead=8, context=16, fade=4)
    model = load(diffusion_bundle)
    stream = model.stream(emotion="happy=0.5", chunking=chunking, sample_steps=1, sample_seed=3)
    noise = np.random.default_rng(0).normal(size=9000)
    assert stream.push(0.1 * noise) == 8 * (9000 // 2560) - 8
    motion = stream.close()
    assert motion.shape == (29, 72) and np.isfinite(motion).all()
    with pytest.raises(InputError, match="hop=2: a diffusion model makes chunks"):
        model.stream(hop=2)


def test_other_models_have_no_denoise(run, tmp_path):
    with pytest.raises(InputError, match="--graph denoise: model.kind='regression' removes no"):
        writer.export(run, tmp_path / "bundle", ["onnx"], graphs=["denoise"])
