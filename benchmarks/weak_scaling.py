"""Weak scaling: measured on virtual devices of this machine and predicted for H100s.

    python benchmarks/weak_scaling.py [--batch 4] [--devices 1,2,4,8] [--repeats 3] [--steps 10]
        [--h100 8,64,256] [--experiment experiments/diffusion_v3_0.py:demo] [--json OUT]

Every device count runs in a separate process with the same batch per device, on random data in
device memory without loading. N virtual devices share this machine's few cores, so N times the work
takes about N times as long at best; the reported value is

    share = N x (time per step on 1 device) / (time per step on N devices)

which is 1 if splitting the batch over devices costs nothing (and above 1 if one device leaves cores
idle). It measures the scaling of the program itself, not of links between machines.

Predictions are those of `a2fjax inspect EXPERIMENT --devices h100:N --batch-per-device B`, with its
default assumptions; they need its packages. "replicate" keeps one copy per device, "host" one copy
split over the eight devices of a host.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from a2fjax import configuration as config_lib  # noqa: E402
from a2fjax.errors import InputError  # noqa: E402
from a2fjax.plan import report, topologies  # noqa: E402
from a2fjax.plan.predict import Speeds  # noqa: E402
from a2fjax.view.text import table  # noqa: E402

PREDICTED = (
    ("demo", "experiments/diffusion_v3_0.py:demo", 16),
    ("base", "experiments/diffusion_v3_0.py", 64),
    ("large", "experiments/diffusion_v3_0.py:large", 64),
)


def load(experiment: str, **changes: Any) -> config_lib.Resolved:
    values = [f"--config.{key.replace('__', '.')}={value}" for key, value in changes.items()]
    return config_lib.load(experiment, config_lib.parse_overrides(values))


def child(experiment: str, devices: int, batch: int, steps: int) -> None:
    """Prints the seconds of each step."""
    import jax

    jax.config.update("jax_num_cpu_devices", devices)
    import numpy as np

    from a2fjax import tasks
    from a2fjax.plan import compile_stats
    from a2fjax.training import compiled_steps

    config = load(experiment, data__batch_size=batch * devices).config
    task = tasks.build(config)
    spec = compile_stats.batch_spec(config, task)
    mesh = compiled_steps.build_mesh(config, task, spec)
    made = compiled_steps.CompiledSteps(config, task, spec, mesh)
    step = made.lower().compile()
    rng = np.random.default_rng(0)

    def draw(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        if shape.dtype == np.bool_:
            return np.ones(shape.shape, bool)
        if np.issubdtype(shape.dtype, np.integer):
            return np.zeros(shape.shape, shape.dtype)
        return 0.1 * rng.standard_normal(shape.shape).astype(shape.dtype)

    length = np.full(spec.length.shape, config.data.window_frames, np.int32)
    values = jax.tree.map(draw, spec).replace(length=length)
    data = jax.device_put(values, made.batch_sharding)
    stop_flags = jax.device_put(np.zeros(made.stop_flags.shape, np.int32), made.batch_sharding)
    with jax.set_mesh(mesh):
        state = made.initialise(task.pretrained)
    times = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        state, metrics, _ = step(state, data, stop_flags)
        jax.block_until_ready((state, metrics))
        times.append(time.perf_counter() - began)
    print(json.dumps(times[2:]))


def measured(args: argparse.Namespace, cache: str) -> list[dict[str, float]]:
    counts = [int(n) for n in args.devices.split(",")]
    times: dict[int, list[float]] = {n: [] for n in counts}
    loads = []
    for _ in range(args.repeats):
        # Alternate, so that other work on the machine affects all of them equally.
        for devices in counts:
            topology = topologies.Topology("cpu", devices)
            loads.append(os.getloadavg()[0])
            command = [sys.executable, __file__, "--child", str(devices)]
            command += ["--experiment", args.experiment, "--batch", str(args.batch)]
            command += ["--steps", str(args.steps)]
            environment = {
                **topologies.environment(topology),
                # Compile once, not per repeat.
                "JAX_COMPILATION_CACHE_DIR": cache,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            }
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            times[devices].append(statistics.median(json.loads(done.stdout.splitlines()[-1])))
    middle = {n: statistics.median(found) for n, found in times.items()}
    least = {n: min(found) for n, found in times.items()}
    print(f"load of the machine before each run: {min(loads):.1f} to {max(loads):.1f}")
    return [
        {
            "devices": n,
            "step_s": middle[n],
            "least_s": least[n],
            "steps_per_s": 1 / middle[n],
            "share": n / counts[0] * middle[counts[0]] / middle[n],
        }
        for n in counts
    ]


def predicted(args: argparse.Namespace) -> list[dict[str, Any]]:
    out = []
    for name, experiment, batch in PREDICTED:
        for preset in ("replicate", "host"):
            for count in filter(None, args.h100.split(",")):
                resolved = load(experiment, sharding__preset=preset)
                (topology,) = topologies.parse(f"h100:{count}")
                found = topologies.look(resolved, topology, batch_per_device=batch)
                out.append({"name": name, "preset": preset, **report.whole(found, Speeds())})
                print(f"{name} {preset} {topology.name}: compiled", file=sys.stderr, flush=True)
    return out


def rows_of(found: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    rows = []
    for each in found:
        guess = each["predicted"]
        sent = sum(row["wire"] for row in each["collectives"]) / 1e6
        rows.append(
            (
                f"{each['name']} {each['preset']}",
                each["topology"],
                f"{each['batch_size'] // each['devices']}",
                f"{each['room']['bytes'] / 1e9:.2f} GB",
                f"{sent:.1f} MB",
                f"{guess['step_overlapped'] * 1e3:.1f} - {guess['step'] * 1e3:.1f} ms",
                f"{guess['efficiency']:.1%} - {guess['efficiency_overlapped']:.1%}",
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiment", default=PREDICTED[0][1])
    parser.add_argument("--batch", type=int, default=4, help="of each device")
    parser.add_argument("--devices", default="1,2,4,8")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--h100", default="8,64,256", help='"" predicts nothing')
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.experiment, args.child, args.batch, args.steps)
        return
    with tempfile.TemporaryDirectory() as cache:
        ran = measured(args, cache)
    rows = [
        (
            "measured, pretended CPUs",
            f"cpu:{row['devices']:.0f}",
            str(args.batch),
            "",
            "",
            f"{row['step_s'] * 1e3:.0f} ms",
            f"{row['share']:.1%}",
        )
        for row in ran
    ]
    guessed: list[dict[str, Any]] = []
    try:
        guessed = predicted(args)
    except InputError as error:
        print(error)
    header = ("", "devices", "batch each", "memory", "sent a step", "step", "efficiency")
    cores = os.cpu_count()
    print(f"{args.experiment}; measured devices share {cores} cores, see --help; medians")
    print("\n".join(table([*rows, *rows_of(guessed)], header)))
    if args.json:
        args.json.write_text(json.dumps({"measured": ran, "predicted": guessed}, indent=1))


if __name__ == "__main__":
    main()
