"""Cost of the checksums of checkpoints: saving and loading with and without them.

    python benchmarks/checksums.py [--megabytes 300] [--tensors 60] [--rounds 7] [--json FILE]

Writes a state whose tensors have the given size in total (no optimiser state, no average), restores
it on the devices as a resumed run does, and loads it to host memory as inference does. Both ways
alternate in one process, so that other work on the machine affects them equally. Times are CPU
seconds of the process (all threads) and wall seconds; each is the median of the rounds, a ratio the
median of the rounds' ratios. A save counts until the files are written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from a2fjax import files
from a2fjax.configuration import CheckpointConfig, Config, Resolved
from a2fjax.training import checkpoints, checksums, state
from a2fjax.training.checkpoint_writer import CheckpointWriter


def clock(call: Callable[[], object]) -> np.ndarray:
    """Returns the CPU seconds and the wall seconds of a call."""
    began = time.process_time(), time.perf_counter()
    call()
    return np.array([time.process_time() - began[0], time.perf_counter() - began[1]])


@contextlib.contextmanager
def without_checksums() -> Any:
    """Lets checkpoints be written and read without checksums."""
    with (
        mock.patch.object(checksums, "of_tree", lambda tree: {}),
        mock.patch.object(checksums, "differing", lambda tree, saved: []),
    ):
        yield


def measure(made: state.TrainState, rounds: int) -> dict[str, dict[str, np.ndarray]]:
    """Returns {operation: {"with", "without": [rounds, 2]}}: CPU and wall seconds."""
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), made
    )
    ways = {"with": contextlib.nullcontext, "without": without_checksums}
    times: dict[str, dict[str, list[np.ndarray]]] = {}
    with contextlib.ExitStack() as stack:
        runs, writers = {}, {}
        for way in ways:
            run = runs[way] = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            (run / "config.json").write_text(Resolved(Config(), {}).to_json())
            writers[way] = stack.enter_context(
                CheckpointWriter(run, CheckpointConfig(keep_latest=1))
            )
        for number in range(rounds + 1):  # The first is to warm up.
            for way, how in ways.items():
                run, writer = runs[way], writers[way]

                def save(writer: CheckpointWriter = writer, step: int = number + 1) -> None:
                    writer.save(step, made, {}, {})
                    writer.wait()

                def restore(writer: CheckpointWriter = writer, step: int = number + 1) -> None:
                    writer.restore(step, abstract)

                def load(run: Path = run) -> None:
                    checkpoints.load_params(run)

                with how():
                    for name, call in (
                        ("save (params and ema)", save),
                        ("restore on the devices", restore),
                        ("load to the host", load),
                    ):
                        spent = clock(call)
                        if number:
                            times.setdefault(name, {}).setdefault(way, []).append(spent)
    return {
        name: {way: np.array(values) for way, values in both.items()}
        for name, both in times.items()
    }


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=300.0)
    parser.add_argument("--tensors", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = int(args.megabytes * 1e6 / args.tensors / 4 / 1024)
    weights = {
        f"layer_{i:03d}": jax.device_put(rng.standard_normal((rows, 1024), np.float32))
        for i in range(args.tensors)
    }
    jax.block_until_ready(weights)
    size = sum(leaf.nbytes for leaf in weights.values())
    small = {"count": jax.numpy.zeros((1,))}
    made = state.TrainState(jax.numpy.int32(1), weights, {}, small, None)
    alone = np.median([clock(lambda: checksums.of_tree(weights)) for _ in range(args.rounds)], 0)
    print(f"{size / 1e6:.0f} MB in {args.tensors} tensors on {jax.devices()[0].platform}")
    print(f"checksum alone: {alone[0]:.3f} s of CPU time, {size / alone[0] / 1e9:.2f} GB/s")
    rows = {}
    for name, both in measure(made, args.rounds).items():
        row = rows[name] = {}
        for kind, what in enumerate(("cpu", "wall")):
            own, base = both["with"][:, kind], both["without"][:, kind]
            row[f"{what}_s_with"] = statistics.median(own.tolist())
            row[f"{what}_s_without"] = statistics.median(base.tolist())
            row[f"{what}_ratio"] = statistics.median((own / base).tolist())
        print(
            f"{name}: CPU {row['cpu_s_without']:.3f} s without, {row['cpu_s_with']:.3f} s with "
            f"checksums, ratio {row['cpu_ratio']:.2f}; wall {row['wall_s_without']:.3f} s, "
            f"{row['wall_s_with']:.3f} s, ratio {row['wall_ratio']:.2f}"
        )
    if args.json:
        values = {"megabytes": size / 1e6, "checksum_cpu_s": float(alone[0]), "rows": rows}
        files.write_text(args.json, json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
