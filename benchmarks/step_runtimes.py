r"""Cost of one step of a bundle for live audio in each runtime, and how many speakers it serves.

    python benchmarks/step_runtimes.py BUNDLE [--runtimes jax,onnx,node] [--frames 1500]
        [--speakers 32,64,96,128] [--json FILE]

Each runtime starts in a process of its own that is bound to one core and streams the same voice.
"cold" is the time from the start of the process to the first frame, imports and compiling included;
"memory" its largest resident size; "parity" the largest difference from JAX, of a weight. Speakers
share batched calls on two cores; a call may take a frame's 20 ms. Beside the time that passes is
that of the processor, which other programs disturb less. `node` needs ORT_NODE_MODULES, a
node_modules folder with onnxruntime-node.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

HOP = 320
WARM_UP = 100
RUNTIMES = ("jax", "stablehlo", "onnx", "onnx_int8", "node")
FILES = {
    "jax": "model.safetensors",
    "stablehlo": "stablehlo/step.stablehlo",
    "onnx": "onnx/step.onnx",
    "onnx_int8": "onnx/step_int8.onnx",
    "node": "onnx/step.onnx",
}
Call = Callable[[np.ndarray], np.ndarray]
NODE = """
import * as ort from "onnxruntime-node";
import { readFile, writeFile } from "node:fs/promises";
import { open } from "./animate.mjs";
const [bundle, input, output, began] = process.argv.slice(2);
const model = await open(bundle, { ort: ort.default ?? ort, fetchBytes: (f) => readFile(f) });
const bytes = await readFile(input);
const samples = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
const stream = model.stream();
stream.early = 0;
const times = [];
const computed = [];
const rows = [];
let cold = 0;
for (let at = 0; at < samples.length; at += 320) {
  const start = process.hrtime.bigint();
  const used = process.cpuUsage();
  await stream.push(samples.subarray(at, at + 320));
  times.push(Number(process.hrtime.bigint() - start) / 1e6);
  const { user, system } = process.cpuUsage(used);
  computed.push((user + system) / 1000);
  cold ||= Date.now() / 1000 - Number(began);
  rows.push(...stream.frames());
}
await writeFile(output, Buffer.concat(rows.map((r) => Buffer.from(r.buffer, r.byteOffset, 288))));
const memory = process.resourceUsage().maxRSS / 1024;
console.log(JSON.stringify({ times, computed, cold, memory }));
"""


def _onnx(path: Path, speakers: int, cores: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(str(path), options)
    dtypes = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(bool)": bool}
    inputs = {
        tensor.name: np.zeros((speakers, *tensor.shape[1:]), dtypes[tensor.type])
        for tensor in session.get_inputs()
    }
    inputs["emotion"][:, 0] = 1.0
    inputs["active"][:] = True
    state = [name for name in inputs if name.startswith("in.")]

    def call(audio: np.ndarray) -> np.ndarray:
        motion, *new = session.run(None, {**inputs, "audio": audio})
        inputs.update(zip(state, new, strict=True))
        return np.asarray(motion)

    return call


def _jax(bundle: Path, speakers: int) -> Call:
    from a2fjax.infer import live
    from a2fjax.infer.predictor import Predictor

    predictor = Predictor.load(bundle)
    step = predictor.compiled_step(size=speakers)
    who = np.tile(live.embed_identity(predictor, step, None, None), (speakers, 1))
    emotion = np.tile(np.eye(5, dtype=np.float32)[:1], (speakers, 1))
    state = step.start()

    def call(audio: np.ndarray) -> np.ndarray:
        nonlocal state
        motion, state = step(audio, state, who, emotion)
        return motion

    return call


def _stablehlo(bundle: Path, speakers: int) -> Call:
    import jax
    from jax import export

    exported = export.deserialize(bytearray((bundle / FILES["stablehlo"]).read_bytes()))
    tensors = json.loads((bundle / "a2fjax.json").read_text())["graphs"][FILES["stablehlo"]]
    inputs: dict[str, Any] = {
        t["name"]: np.zeros((speakers, *t["shape"][1:]), t["dtype"]) for t in tensors["inputs"]
    }
    inputs["emotion"][:, 0] = 1.0
    inputs["active"][:] = True
    state = [name for name in inputs if name.startswith("in.")]
    compiled = jax.jit(exported.call).lower(*inputs.values()).compile()

    def call(audio: np.ndarray) -> np.ndarray:
        motion, *new = compiled(*{**inputs, "audio": audio}.values())
        inputs.update(zip(state, new, strict=True))
        return np.asarray(motion)

    return call


def _open(runtime: str, bundle: Path, speakers: int, cores: int) -> Call:
    if runtime == "jax":
        return _jax(bundle, speakers)
    if runtime == "stablehlo":
        return _stablehlo(bundle, speakers)
    return _onnx(bundle / FILES[runtime], speakers, cores)


def child(runtime: str, bundle: Path, work: Path, began: float, speakers: int) -> dict[str, Any]:
    """Streams the voice for a number of speakers; 1 on one core, more on two."""
    cores = min(speakers, 2)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])
    call = _open(runtime, bundle, speakers, cores)
    audio = np.fromfile(work / "audio.f32", np.float32).reshape(-1, 1, HOP)
    times, computed, rows, cold = [], [], [], 0.0
    for block in audio:
        given = np.repeat(block, speakers, axis=0)
        start, used = time.perf_counter(), time.process_time()
        motion = call(given)
        times.append(1000 * (time.perf_counter() - start))
        computed.append(1000 * (time.process_time() - used))
        cold = cold or time.time() - began
        rows.append(motion[0, 0])
    np.stack(rows).tofile(work / f"{runtime}.f32")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"times": times, "computed": computed, "cold": cold, "memory": memory}


def _run(runtime: str, bundle: Path, work: Path, speakers: int = 1) -> dict[str, Any]:
    began = str(time.time())
    if runtime == "node":
        shutil.copy(Path(__file__).parents[1] / "examples" / "animate.mjs", work)
        (work / "node_modules").symlink_to(Path(os.environ["ORT_NODE_MODULES"]).resolve())
        (work / "bench.mjs").write_text(NODE)
        core = sorted(os.sched_getaffinity(0))[-1]
        files = [work / "audio.f32", work / "node.f32"]
        command: list[Any] = ["taskset", "-c", core, "node", work / "bench.mjs", bundle, *files]
    else:
        command = [sys.executable, __file__, bundle, "--child", runtime, "--work", work]
        command += ["--speakers", speakers, "--began"]
    command.append(began)
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise RuntimeError(f"{runtime}: {ran.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runtimes", default=",".join(RUNTIMES))
    parser.add_argument("--frames", type=int, default=1500)
    parser.add_argument("--speakers", default="32,64,96,128")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        found = child(args.child, args.bundle, args.work, args.began, int(args.speakers))
        print(json.dumps(found))
        return 0
    from a2fjax import files, rig
    from a2fjax.export.example import voice

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        voice(args.frames / 50).tofile(work / "audio.f32")
        heads = ("parity", "p50 ms", "p95 ms", "cpu p50", "cpu p95")
        print(" " * 12 + f"{heads[0]:>9}{'MB':>8}" + "".join(f"{h:>9}" for h in heads[1:]), end="")
        print(f"{'cold s':>8}{'MB RAM':>8}")
        for name in args.runtimes.split(","):
            if not (args.bundle / FILES[name]).is_file():
                print(f"{name:12} not in the bundle")
                continue
            if name == "node" and "ORT_NODE_MODULES" not in os.environ:
                print(f"{name:12} left out: no ORT_NODE_MODULES")
                continue
            found = _run(name, args.bundle, work)
            wall = np.percentile(found.pop("times")[WARM_UP:], [50, 95])
            cpu = np.percentile(found.pop("computed")[WARM_UP:], [50, 95])
            size = (args.bundle / FILES[name]).stat().st_size / 1e6
            own, first = (np.fromfile(work / f"{n}.f32", np.float32) for n in (name, "jax"))
            wrong = np.abs((own - first).reshape(-1, rig.NUM_CHANNELS) / rig.SCALE).max()
            results[name] = {"parity": float(wrong), "mb": size, **found}
            results[name] |= {"wall_ms": wall.tolist(), "cpu_ms": cpu.tolist()}
            times = "".join(f"{value:9.3f}" for value in (*wall, *cpu))
            print(f"{name:12}{wrong:9.1e}{size:8.1f}{times}{found['cold']:8.2f}", end="")
            print(f"{found['memory']:8.0f}", flush=True)
        for name in ("jax", "onnx"):
            for speakers in map(int, args.speakers.split(",")):
                if name not in results:
                    continue
                found = _run(name, args.bundle, work, speakers)
                p50, p99 = np.percentile(found["times"][WARM_UP:], [50, 99])
                cpu = float(np.percentile(found["computed"][WARM_UP:], 50))
                results[f"{name} x {speakers}"] = {"p50": p50, "p99": p99, "cpu": cpu}
                print(
                    f"{name} x {speakers} speakers: p50 {p50:.2f}, p99 {p99:.2f} ms a call", end=""
                )
                print(f", {cpu:.2f} ms of processor time", flush=True)
    if args.json:
        files.write_text(args.json, json.dumps(results, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
