"""The examples that need nothing of a2fjax give what Python gives."""

import csv
import json
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
pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
LENGTHS = {"animate_numpy.py": 60, "stream_numpy.py": 70, "animate.c": 250, "stream.c": 250}


def predicted(bundle):
    audio = np.concatenate(list(io.blocks(bundle / "example" / "in.wav", 10.0)))
    return Predictor.load(bundle)(audio)


@pytest.fixture(scope="module")
def expected(bundle):
    return predicted(bundle)


@pytest.fixture(scope="module")
def streamed(streaming_bundle):
    return predicted(streaming_bundle)


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


def in_numpy(name, bundle, expected):
    code = (
        "import runpy, sys\n"
        "for name in ('a2fjax', 'jax', 'flax', 'onnx', 'scipy', 'soundfile'):\n"
        "    sys.modules[name] = None\n"
        "path = sys.argv.pop(1)\n"
        "runpy.run_path(path, run_name='__main__')\n"
    )
    check([sys.executable, "-c", code, EXAMPLES / name], bundle, expected)


def test_numpy_and_onnx_runtime(bundle, expected):
    in_numpy("animate_numpy.py", bundle, expected)


def test_numpy_and_onnx_runtime_stream(streaming_bundle, streamed):
    in_numpy("stream_numpy.py", streaming_bundle, streamed)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    modules = os.environ.get("ORT_NODE_MODULES")
    if modules is None or shutil.which("node") is None:
        pytest.skip("needs node, and ORT_NODE_MODULES: a node_modules folder with onnxruntime-node")
    folder = tmp_path_factory.mktemp("node")
    # Node looks for modules beside the script.
    (folder / "node_modules").symlink_to(Path(modules).resolve())
    return shutil.copy(EXAMPLES / "animate.mjs", folder)


def test_node(bundle, expected, script):
    check(["node", script], bundle, expected)


def test_node_streams(streaming_bundle, streamed, script):
    check(["node", script], streaming_bundle, streamed)


NODE = """
import * as ort from "onnxruntime-node";
import { readFile } from "node:fs/promises";
import { open, readWav } from "./animate.mjs";
const [bundle] = process.argv.slice(2);
const model = await open(bundle, { ort: ort.default ?? ort, fetchBytes: (f) => readFile(f) });
const samples = readWav(await readFile(`${bundle}/example/in.wav`));
const stream = model.stream();
const play = async () => {
  const pushes = [];
  for (let at = 0; at < samples.length; at += 777) {
    pushes.push(stream.push(samples.subarray(at, at + 777)));
  }
  await Promise.all(pushes);
  return stream.frames().map((row) => [...row]);
};
const first = await play();
await stream.push(samples.subarray(0, 123));
await stream.reset();
const second = await play();
const same = JSON.stringify(first) === JSON.stringify(second);
console.log(JSON.stringify({ same, rows: first.length, left: stream.frames().length }));
"""


def test_node_starts_anew_and_pushes_keep_their_order(streaming_bundle, script):
    program = Path(script).with_name("twice.mjs")
    program.write_text(NODE)
    ran = subprocess.run(
        ["node", program, streaming_bundle], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == {"same": True, "rows": 95, "left": 0}


def compiled(name, folder):
    include, compiler = os.environ.get("ORT_INCLUDE"), shutil.which("cc")
    if include is None or compiler is None:
        pytest.skip("needs cc, and ORT_INCLUDE: the folder of onnxruntime_c_api.h")
    import onnxruntime

    capi = Path(onnxruntime.__file__).parent / "capi"
    (library,) = capi.glob("libonnxruntime.so.*")
    for link in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / link).symlink_to(library)
    flags = [f"-I{include}", f"-L{folder}", f"-Wl,-rpath,{folder}", "-lonnxruntime", "-lm"]
    program = folder / Path(name).stem
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    command = [compiler, *strict, "-o", program, EXAMPLES / name, *flags]
    subprocess.run(command, check=True, timeout=60)
    return program


def test_c(bundle, expected, tmp_path):
    check([compiled("animate.c", tmp_path)], bundle, expected)


def test_c_streams(streaming_bundle, streamed, tmp_path):
    check([compiled("stream.c", tmp_path)], streaming_bundle, streamed)
