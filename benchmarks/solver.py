"""Speed of solving mesh frames for rig weights: this solver against scipy's BVLS per frame.

    python benchmarks/solver.py [--rig ict_facekit.npz] [--frames 600] [--bound 50]

A scan of the rig (26,719 vertices, 52 shapes; a synthetic one of that size without --rig) is
generated from known weights with 0.1 mm of noise. These are timed on one thread, like the
pipeline's processes; each time is the median of several and includes the reduction of the vertices:

  ours     reduction and solve of the whole scan, unregularised so that all solve the same problem
  bvls     scipy.optimize.lsq_linear(method="bvls") on the full [3 * vertices, shapes] system, as
           per-frame solvers do; on a few frames
  reduced  the same on the Cholesky factor of the Gram matrix [shapes, shapes], with the reduction
           shared by all frames: the fairest comparison with a scipy solver

It also prints the differences in residual and weights, our solver with the default strengths,
exclusive pairs and corrupted vertices, and the peak memory of scans of 1x and 4x the length,
reduced block by block. The exit code is 1 if our solver is less than `bound` times as fast as bvls,
or differs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time

BLOCK = 64
FPS = 60
SINGLE_THREAD = {
    # Set before importing numpy and jax: threads that wait for each other on a busy machine would
    # distort the measurement.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}


def shapes_of(path: str | None):
    """Returns shapes [52, V, 3] in mm from an ICT-FaceKit npz (cm), or bumps on a sphere."""
    import numpy as np

    from a2fjax import channel_orders, rig

    if path:
        with np.load(path, allow_pickle=False) as file:
            given, names = file["expression_deltas"], file["expression_names"]
        channels = {c.name: c.channel for c in channel_orders.order("ict57").columns}
        deltas = np.zeros((52, given.shape[1], 3))
        for name, delta in zip(names, given, strict=True):
            if channels[str(name)] is not None:
                deltas[rig.INDEX[channels[str(name)]]] += 10.0 * delta.astype(np.float64)
        return deltas
    rng = np.random.default_rng(0)
    points = rng.normal(size=(26_719, 3))
    points *= 90.0 / np.linalg.norm(points, axis=1, keepdims=True)
    deltas = np.zeros((52, len(points), 3))
    for delta in deltas:
        for _ in range(2):
            centre = points[rng.integers(len(points))]
            near = np.exp(-(((points - centre) / 22.0) ** 2).sum(axis=1) / 2)
            delta += near[:, None] * rng.normal(size=3) * 5.0
    return deltas


def truth_of(deltas, frames: int):
    """Returns smooth weights [frames, 52]; opposite shapes alternate, static ones stay at rest."""
    import numpy as np

    from a2fjax import rig
    from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS

    rng, count = np.random.default_rng(1), len(deltas)
    speed, phase = rng.uniform(0.3, 3.0, count), rng.uniform(0, 2 * np.pi, count)
    t = np.arange(frames)[:, None] / FPS
    weights = np.sin(2 * np.pi * speed * t + phase) * rng.uniform(0.2, 0.7, count)
    for a, b in EXCLUSIVE_PAIRS:
        weights[:, rig.INDEX[b]] = -weights[:, rig.INDEX[a]]
    weights[:, ~deltas.any(axis=(1, 2))] = 0.0
    return np.clip(weights, 0.0, 1.0)


def scan(deltas, truth, *, spoiled: bool = False):
    """Yields the scan in blocks [n, V, 3] as a reader does, without storing all of it."""
    import numpy as np

    flat = deltas.reshape(len(deltas), -1)
    for start in range(0, len(truth), BLOCK):
        rng = np.random.default_rng(start)
        block = (truth[start : start + BLOCK] @ flat).reshape(-1, deltas.shape[1], 3)
        block += 0.1 * rng.standard_normal(block.shape)
        if spoiled:
            far = rng.random(block.shape[:2]) < 0.01
            block[far] += rng.normal(size=(far.sum(), 3)) * 10.0
            block[rng.random(block.shape[:2]) < 0.01] = np.nan
        yield block


def ours(deltas, blocks, settings, *, outlier_mm=0.0, exclusive=()):
    """Returns (solution, seconds) of a scan, excluding the time to generate it."""
    import numpy as np

    from data_pipeline.solver import reduce, solve

    begin = time.perf_counter()
    reducer = reduce.Reducer(deltas, outlier_mm=outlier_mm)
    seconds, parts = time.perf_counter() - begin, []
    for block in blocks:
        begin = time.perf_counter()
        parts.append(reducer(block))
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    solution = solve.solve(
        reducer.gram,
        np.concatenate([p.linear for p in parts]),
        np.concatenate([p.energy for p in parts]),
        np.concatenate([p.used for p in parts]) * reducer.vertices,
        settings,
        exclusive=exclusive,
    )
    return solution, seconds + time.perf_counter() - begin


def peak(path: str | None, frames: int) -> None:
    """Prints the peak resident memory in MB of solving a scan, and of the preparation."""
    from data_pipeline.solver import solve

    deltas = shapes_of(path)
    # Compile everything and process the largest block before the scan.
    ours(deltas, scan(deltas, truth_of(deltas, 2 * BLOCK)), solve.SolveSettings())
    ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours(deltas, scan(deltas, truth_of(deltas, frames)), solve.SolveSettings())
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{ready / 1024:.1f} {after / 1024:.1f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rig", help="ICT-FaceKit npz (expression_names, expression_deltas in cm)")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--sample", type=int, default=8, help="frames that scipy solves in full")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bound", type=float, default=50.0)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.update(SINGLE_THREAD)
    if args.peak:
        peak(args.rig, args.peak)
        return 0
    import numpy as np
    from scipy.optimize import lsq_linear

    from a2fjax import rig
    from data_pipeline.solver import solve

    deltas = shapes_of(args.rig)
    moving = deltas.any(axis=(1, 2))
    truth = truth_of(deltas, args.frames)
    print(f"{deltas.shape[1]} vertices, {int(moving.sum())} moving shapes, {args.frames} frames;")
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"one thread of {os.cpu_count()} cores, load average {load}")
    plain = solve.SolveSettings(l2=0.0, l1=0.0, smoothness=0.0)
    ours(deltas, scan(deltas, truth[:BLOCK]), plain)  # compiles
    times = []
    for _ in range(args.repeats):
        solution, seconds = ours(deltas, scan(deltas, truth), plain)
        times.append(seconds / args.frames)
    mine = statistics.median(times)

    flat = deltas[moving].reshape(int(moving.sum()), -1)
    chosen = np.linspace(0, args.frames - 1, args.sample).astype(int)
    blocks = {}
    for number, block in enumerate(scan(deltas, truth)):
        for t in chosen[chosen // BLOCK == number]:
            blocks[t] = block[t - number * BLOCK].ravel()
    full, small, errors, ratios = [], [], [], []
    begin = time.perf_counter()
    factor = np.linalg.cholesky(flat @ flat.T)
    shared = (time.perf_counter() - begin) / args.frames
    for t in chosen:
        d = blocks[t]
        begin = time.perf_counter()
        best = lsq_linear(flat.T, d, (0, 1), method="bvls")
        full.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        again = lsq_linear(factor.T, np.linalg.solve(factor, flat @ d), (0, 1), method="bvls")
        small.append(time.perf_counter() - begin + shared)
        rms = np.sqrt(2.0 * best.cost / deltas.shape[1])
        ratios.append(solution.residual[t] / rms - 1.0)
        errors.append(np.abs(solution.weights[t, moving] - best.x).max())
        assert np.abs(again.x - best.x).max() < 1e-4
    theirs, reduced = statistics.median(full), statistics.median(small)
    print(f"ours     {1e3 * mine:9.3f} ms a frame, {1 / mine:8.0f} frames/s")
    print(f"bvls     {1e3 * theirs:9.3f} ms a frame, ours is {theirs / mine:6.0f} times as fast")
    print(f"reduced  {1e3 * reduced:9.3f} ms a frame, ours is {reduced / mine:6.1f} times as fast")
    print(
        f"residual {solution.residual.mean():.4f} mm, that of bvls x (1 {max(ratios):+.1e}); "
        f"weights differ by at most {max(errors):.1e}; kkt {solution.kkt:.1e}"
    )
    pairs = [(rig.INDEX[a], rig.INDEX[b]) for a, b in solve.EXCLUSIVE_PAIRS]
    for name, spoiled, options in (
        ("default strengths", False, {}),
        ("and exclusive pairs", False, {"exclusive": pairs}),
        ("and robust", False, {"exclusive": pairs, "outlier_mm": 2.0}),
        ("and 2 % spoiled", True, {"exclusive": pairs, "outlier_mm": 2.0}),
    ):
        blocks_of = scan(deltas, truth, spoiled=spoiled)
        found, seconds = ours(deltas, blocks_of, solve.SolveSettings(), **options)
        rmse = float(np.sqrt(((found.weights - truth) ** 2).mean()))
        print(f"{name:20s} {args.frames / seconds:6.0f} frames/s, weight RMSE {rmse:.4f}")
    peaks = []
    for length in (args.frames, 4 * args.frames):
        command = [sys.executable, __file__, "--peak", str(length)]
        command += ["--rig", args.rig] if args.rig else []
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks.append([float(x) for x in text.split()])
        whole = length * deltas.shape[1] * 3 * 4 / 2**20
        print(
            f"peak memory {peaks[-1][1]:.0f} MB ({peaks[-1][0]:.0f} before) for {length} frames, "
            f"which are {whole:.0f} MB as float32"
        )
    passed = theirs / mine >= args.bound and max(errors) <= 1e-3 and solution.converged
    print(f"bound {args.bound:g} x: {'met' if passed else 'MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
