"""Cost of the checksums of checkpoints: saving and loading with and without them.

    python benchmarks/checksums.py [--megabytes 300] [--tensors 60] [--repeats 3]

Writes a state whose tensors have the given size in total (no optimiser state, no average), restores
it on the devices as a resumed run does, and loads it to host memory as inference does. Prints the
least wall time of each, in seconds, and the rate of the checksum alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from a2fjax.configuration import CheckpointConfig, Config, Resolved
from a2fjax.training import checkpoints, checksums, state
from a2fjax.training.checkpoint_writer import CheckpointWriter


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Returns the least wall time of a call."""
    least = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - began)
    return least


def measure(made: state.TrainState, repeats: int) -> tuple[float, float, float]:
    """Returns the seconds that a save blocks training, a restore and a load to the host take."""
    abstract = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), made
    )
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        (run / "config.json").write_text(Resolved(Config(), {}).to_json())
        with CheckpointWriter(run, CheckpointConfig(keep_latest=1)) as writer:
            steps = iter(range(1, 100))

            def save() -> None:
                writer.save(next(steps), made, {}, {})

            saved = []
            for _ in range(repeats):
                saved.append(seconds(save, 1))
                writer.wait()
            latest = writer.latest()
            assert latest is not None
            restored = seconds(lambda: writer.restore(latest, abstract), repeats)
        loaded = seconds(lambda: checkpoints.load_params(run), repeats)
    return min(saved), restored, loaded


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=300.0)
    parser.add_argument("--tensors", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
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
    alone = seconds(lambda: checksums.of_tree(weights), args.repeats)
    print(f"{size / 1e6:.0f} MB in {args.tensors} tensors on {jax.devices()[0].platform}")
    print(f"checksum alone: {alone:.3f} s, {size / alone / 1e9:.2f} GB/s")
    with_sums = measure(made, args.repeats)
    with (
        mock.patch.object(checksums, "of_tree", lambda tree: {}),
        mock.patch.object(checksums, "differing", lambda tree, saved: []),
    ):
        without = measure(made, args.repeats)
    names = ("save (params and ema), blocking", "restore on the devices", "load to the host")
    for name, a, b in zip(names, with_sums, without, strict=True):
        print(f"{name}: {b:.3f} s without, {a:.3f} s with checksums")


if __name__ == "__main__":
    main()
