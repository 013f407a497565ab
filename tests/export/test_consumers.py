"""The examples that need nothing of a2fjax give what Python gives."""

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from a2fjax import rig
from a2fjax.audio import io
from a2fjax.infer.predictor import Predictor

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
EXAMPLES = Path(__file__).parents[2] / "examples"
LENGTHS = {"animate_numpy.py": 60, "animate.c": 250}


@pytest.fixture(scope="module")
def expected(bundle):
    audio = np.concatenate(list(io.blocks(bundle / "example" / "in.wav", 10.0)))
    return Predictor.load(bundle)(audio)


def check(command, bundle, expected, **given):
    ran = subprocess.run(
        [*map(str, command), str(bundle), str(bundle / "example" / "in.wav")],
        capture_output=True,
        text=True,
        timeout=120,
        **given,
    )
    assert ran.returncode == 0, ran.stderr
    rows = list(csv.reader(ran.stdout.splitlines()))
    assert rows[0] == ["time", *rig.CHANNELS]
    values = np.array(rows[1:], float)
    np.testing.assert_allclose(values[:, 0], np.arange(len(expected)) / 50, atol=1e-6)
    np.testing.assert_allclose(values[:, 1:], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "most"), LENGTHS.items())
def test_examples_are_short(name, most):
    assert len((EXAMPLES / name).read_text().splitlines()) <= most


def test_numpy_and_onnx_runtime(bundle, expected):
    code = (
        "import runpy, sys\n"
        "for name in ('a2fjax', 'jax', 'flax', 'onnx', 'scipy', 'soundfile'):\n"
        "    sys.modules[name] = None\n"
        "path = sys.argv.pop(1)\n"
        "runpy.run_path(path, run_name='__main__')\n"
    )
    check([sys.executable, "-c", code, EXAMPLES / "animate_numpy.py"], bundle, expected)


def test_node(bundle, expected, tmp_path):
    modules = os.environ.get("ORT_NODE_MODULES")
    if modules is None or shutil.which("node") is None:
        pytest.skip("needs node, and ORT_NODE_MODULES: a node_modules folder with onnxruntime-node")
    # Node looks for modules beside the script.
    (tmp_path / "node_modules").symlink_to(Path(modules).resolve())
    script = shutil.copy(EXAMPLES / "animate.mjs", tmp_path)
    check(["node", script], bundle, expected)


def test_c(bundle, expected, tmp_path):
    include, compiler = os.environ.get("ORT_INCLUDE"), shutil.which("cc")
    if include is None or compiler is None:
        pytest.skip("needs cc, and ORT_INCLUDE: the folder of onnxruntime_c_api.h")
    import onnxruntime

    capi = Path(onnxruntime.__file__).parent / "capi"
    (library,) = capi.glob("libonnxruntime.so.*")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(library)
    flags = [f"-I{include}", f"-L{tmp_path}", f"-Wl,-rpath,{tmp_path}", "-lonnxruntime", "-lm"]
    program = tmp_path / "animate"
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(
        [compiler, *strict, "-o", program, EXAMPLES / "animate.c", *flags], check=True, timeout=60
    )
    check([program], bundle, expected)
