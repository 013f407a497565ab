r"""Cost of live audio frame by frame, and of diffusion in chunks, on this machine.

    taskset -c 0 python benchmarks/streaming_step.py [--features mel,pitch] [--frames 500]
        [--speakers 1,16,32,60] [--chunks 60] [--hours 24] [--json FILE]

The weights are random: they do not change the cost. Times are of one call with its copies from and
to NumPy. "step" is a hop of one frame for each number of speakers, of whom a tenth is silent and
some start anew. Rows are measured in turn, 25 calls at a time, so that what else the machine does
falls on all alike. CPU time counts all threads of the process; wall time also counts what other
processes took. --chunks streams that many chunks of 160 ms through a diffusion model.

--hours streams that long through a tiny network at full speed and prints frames, memory and the
difference between the motion of its last and of an early minute, which heard the same audio.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a2fjax import configuration, files, rig, tasks
from a2fjax.audio import HOP
from a2fjax.batch import Batch
from a2fjax.infer import live
from a2fjax.infer.predictor import Predictor
from a2fjax.streaming.chunks import Chunking

ROUND = 25
"""Calls of one row before those of the next."""


def predictor(features: Sequence[str], **model: Any) -> Predictor:
    """Returns a predictor with random weights."""
    values = {"name": "speed", "audio": {"features": tuple(features)}, "model": model}
    config = configuration.build(configuration.Config, values, where="benchmark")
    task: Any = tasks.build(config)
    batch = Batch.spec(1, 64, config.data.identity_points)
    shapes = jax.eval_shape(lambda: task.init(jax.random.key(0), batch.filled()))
    rng = np.random.default_rng(0)

    def fill(leaf: Any) -> np.ndarray:
        return (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return Predictor(config, task, jax.tree.map(fill, shapes))


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Returns bursts of harmonics with pauses [S] float32."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * 16_000)) / 16_000
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(np.pi * t)) / 16_000
    voice = sum(np.sin(k * phase + k) / k for k in range(1, 20))
    keys = np.arange(0, seconds + 1, 0.12)
    burst = np.interp(t, keys, rng.random(len(keys)))
    return (0.05 * voice * burst**2 + 1e-3 * rng.standard_normal(len(t))).astype(np.float32)


def step_call(model: Predictor, speakers: int) -> Callable[[], None]:
    """Returns a function that makes one call of the step for a number of speakers."""
    step = model.compiled_step(size=speakers)
    rng = np.random.default_rng(0)
    audio = np.stack([speech(2.0, i).reshape(-1, HOP) for i in range(speakers)])
    identity = np.zeros((speakers, step.step.identity_width), np.float32)
    emotion = np.tile(np.eye(1, rig.NUM_EMOTIONS, dtype=np.float32), (speakers, 1))
    held = {"state": step.start(), "call": 0}

    def call() -> None:
        i = held["call"] = held["call"] + 1
        active = rng.random(speakers) < 0.9 if speakers > 1 else np.ones(1, bool)
        block = audio[:, i % audio.shape[1]]
        _, held["state"] = step(
            block, held["state"], identity, emotion, active, rng.random(speakers) < 0.005
        )
        jax.block_until_ready(held["state"])

    return call


def chunked(features: Sequence[str], count: int, steps: int) -> dict[str, Any]:
    """Streams chunks of a diffusion model of the default size; returns times in ms.

    "first" is the first chunk after opening, "p50" the median of the others; "real_time" is that in
    CPU time over the length of a chunk.
    """
    model = predictor(features, kind="diffusion", sample={"steps": steps})
    cpu, wall = time.process_time(), time.perf_counter()
    stream = live.open_stream(model)
    opened = 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)
    size = Chunking().chunk * HOP
    spent = []
    for block in speech(size * count / 16_000).reshape(count, size):
        cpu, wall = time.process_time(), time.perf_counter()
        stream.push(block)
        spent.append((time.process_time() - cpu, time.perf_counter() - wall))
    out: dict[str, Any] = {"steps": steps, "delay_ms": 1000 * stream.delay_seconds}
    for kind, opening, values in zip(
        ("cpu", "wall"), opened, 1000 * np.array(spent).T, strict=True
    ):
        out |= {f"{kind}_open_ms": opening, f"{kind}_first_ms": float(values[0])}
        out |= {f"{kind}_p{q}_ms": float(np.percentile(values[1:], q)) for q in (50, 95)}
    return out | {"real_time": out["cpu_p50_ms"] * rig.FPS / (1000 * Chunking().chunk)}


def measure(calls: dict[str, Callable[[], None]], frames: int) -> list[dict[str, Any]]:
    """Returns percentiles of times in ms, of rounds of calls taken in turn."""
    for call in calls.values():
        for _ in range(10):
            call()
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(-(-frames // ROUND)):
        for name, call in calls.items():
            for _ in range(ROUND):
                cpu, wall = time.process_time(), time.perf_counter()
                call()
                spent[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    rows = []
    for name, pairs in spent.items():
        cpu_ms, wall_ms = 1000 * np.array(pairs).T
        rows.append({"name": name})
        for kind, values in (("cpu", cpu_ms), ("wall", wall_ms)):
            for q in (5, 50, 95, 99):
                rows[-1][f"{kind}_p{q}_ms"] = float(np.percentile(values, q))
    return rows


def day(hours: float) -> dict[str, Any]:
    """Streams for hours of audio at full speed; returns what drifted or grew."""
    model = predictor(
        ("mel",), kind="streaming", conv_width=8, recurrent_width=8, identity="none", conv_layers=1
    )
    stream = live.open_stream(model, hop=50)
    minute = speech(60.0)
    minutes = round(60 * hours)
    early = late = np.zeros(0)
    frames, finite, memory = 0, True, 0
    began = time.perf_counter()
    for i in range(minutes):
        stream.push(minute)
        late = stream.frames()
        frames += len(late)
        finite &= bool(np.isfinite(late).all())
        if i == min(15, minutes - 1):
            early = late
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    frames += len(stream.close())
    return {
        "hours": hours,
        "seconds": time.perf_counter() - began,
        "frames_missing": minutes * 60 * rig.FPS - frames,
        "samples_missing": minutes * len(minute) - stream.samples,
        "grown_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory,
        "finite": finite,
        "difference": float(np.abs(late - early).max()),
        "state_bytes": len(stream.to_bytes()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--features", default="mel,pitch")
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--speakers", default="1,16,32,60")
    parser.add_argument("--chunks", type=int, default=0, help="chunks of a diffusion model")
    parser.add_argument("--steps", type=int, default=4, help="calls of its network a chunk")
    parser.add_argument("--hours", type=float, default=0.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    features = args.features.split(",")
    out: dict[str, Any] = {}
    if args.frames:
        model = predictor(features, kind="streaming")
        calls = {f"step, {n}": step_call(model, int(n)) for n in args.speakers.split(",")}
        out["calls"] = measure(calls, args.frames)
        for row in out["calls"]:
            times = "  ".join(f"{k} {v:.2f}" for k, v in row.items() if k != "name")
            print(f"{row['name']:12} {times}")
    if args.chunks:
        out["chunked"] = chunked(features, args.chunks, args.steps)
        print("  ".join(f"{k} {v:.3g}" for k, v in out["chunked"].items()))
    if args.hours:
        out["day"] = day(args.hours)
        print("  ".join(f"{k} {v}" for k, v in out["day"].items()))
    if args.json:
        files.write_text(args.json, json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
