"""Speed of the GRU compared with standard formulations, in one process.

    python benchmarks/gru.py [--batch 16] [--frames 128] [--width 256] [--rounds 7] [--json FILE]

Candidates alternate, so that other work on the machine affects all of them equally. Ratios are
computed within each round; the table shows their median and range over the rounds. Time is CPU time
of the process (all threads) and wall time. `torch` is included if installed, with the number of
threads given by --torch-threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from a2fjax import files


def jax_candidates(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], Any]]]:
    """Returns {mode: {name: run}} for the modes "forward" and "forward+backward"."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from a2fjax.models.gru import BidirectionalGRU

    width = args.width
    shape = (args.frames, args.batch, width)
    x = jax.random.normal(jax.random.key(0), shape)
    weights = jax.random.normal(jax.random.key(1), (*shape[:2], 2 * width))
    ours = BidirectionalGRU(width)
    params = ours.init(jax.random.key(2), x)
    stock = nn.Bidirectional(nn.RNN(nn.GRUCell(width)), nn.RNN(nn.GRUCell(width)), time_major=True)

    def apply_stock(params: Any, x: Any) -> Any:
        tree = params["params"]
        cells = {f"{side}_rnn": {"cell": tree[side]} for side in ("forward", "backward")}
        return stock.apply({"params": cells}, x)

    applies = {"a2fjax": ours.apply, "flax nn.RNN": apply_stock}
    expected = ours.apply(params, x)
    difference = float(jnp.abs(apply_stock(params, x) - expected).max())
    print(f"largest difference from flax nn.RNN with the same parameters: {difference:.1e}")
    out: dict[str, dict[str, Callable[[], Any]]] = {"forward": {}, "forward+backward": {}}
    for name, apply in applies.items():
        runs = {
            "forward": jax.jit(apply),
            "forward+backward": jax.jit(
                jax.grad(lambda p, x, f=apply: jnp.sum(weights * f(p, x)), argnums=(0, 1))
            ),
        }
        for what, run in runs.items():
            start = time.perf_counter()
            compiled = run.lower(params, x).compile()
            print(f"{name}, {what}: compiled in {time.perf_counter() - start:.1f} s")
            out[what][name] = lambda c=compiled: jax.block_until_ready(c(params, x))
    return out


def torch_candidates(args: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Returns {mode: run} of torch.nn.GRU, empty if torch is not installed."""
    try:
        import torch
    except ImportError:
        print("torch is not installed: left out")
        return {}
    torch.set_num_threads(args.torch_threads)
    gru = torch.nn.GRU(args.width, args.width, bidirectional=True)
    x = torch.randn(args.frames, args.batch, args.width, requires_grad=True)
    weights = torch.randn(args.frames, args.batch, 2 * args.width)

    def forward() -> None:
        with torch.no_grad():
            gru(x)

    def both() -> None:
        gru.zero_grad(set_to_none=True)
        x.grad = None
        (weights * gru(x)[0]).sum().backward()

    return {"forward": forward, "forward+backward": both}


def measure(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Returns (CPU, wall) milliseconds of one call, averaged over `repeats`."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        run()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return 1e3 * cpu / repeats, 1e3 * wall / repeats


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=128)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--torch-threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    candidates = jax_candidates(args)
    for what, run in torch_candidates(args).items():
        candidates[what]["torch.nn.GRU"] = run
    report: dict[str, Any] = {
        "batch": args.batch,
        "frames": args.frames,
        "width": args.width,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
    }
    for what, runs in candidates.items():
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for run in runs.values():
            run()
        for _ in range(args.rounds):
            for name, run in runs.items():
                times[name].append(measure(run, args.repeats))
        report[what] = {}
        for name, values in times.items():
            ratios = [a[0] / b[0] for a, b in zip(values, times["flax nn.RNN"], strict=True)]
            report[what][name] = {
                "cpu_ms": statistics.median(v[0] for v in values),
                "wall_ms": statistics.median(v[1] for v in values),
                "ratio_to_flax": statistics.median(ratios),
                "ratio_range": [min(ratios), max(ratios)],
            }
    report["load_after"] = os.getloadavg()[0]
    print(
        f"batch {args.batch}, {args.frames} frames, width {args.width}, {report['cores']} cores, "
        f"load {report['load_before']:.1f} to {report['load_after']:.1f}, {args.rounds} rounds"
    )
    for what in candidates:
        for name, row in report[what].items():
            low, high = row["ratio_range"]
            print(
                f"{what:17} {name:13} {row['cpu_ms']:8.1f} ms CPU {row['wall_ms']:8.1f} ms wall  "
                f"ratio to flax {row['ratio_to_flax']:.2f} [{low:.2f}-{high:.2f}]"
            )
    if args.json:
        files.write_text(args.json, json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
