r"""Cost of the diffusion model compared with the regression model and other diffusion designs.

    python benchmarks/diffusion_cost.py [--seconds 10] [--rounds 5] [--json FILE]

On paper: operations for one second of motion of one clip, counted from programs (`models.flops`; a
multiply and an add are two), in the sizes of the experiments, including audio features. A row
covers all calls of a sample; "a call" is one additional step. NVIDIA's diffusion_rnn is this
package's network at the released size, at 60 frames per second, with HuBERT base evaluated once per
clip and the two calls that NVIDIA deploys. SAiD's U-Net is derived from its published layout
(`said/model/unet_1d_condition.py`: one level of 192 channels, a transformer of depth 1 after each
block, 60 frames per second, audio features of 768, wav2vec 2.0 base evaluated once) at its default
of 1,000 calls, each with and without audio for guidance.

Measured: seconds for the clip on this machine, with demo sizes, random weights and alternating
models; medians of the rounds' ratios to the regression model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax import configuration as config_lib
from a2fjax import files, rig, tasks
from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.infer import predictor
from a2fjax.models import flops

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
STEPS = (1, 2, 4, 8, 16, 50)
NVIDIA_FPS = 60
SAID_FPS, SAID_WIDTH, SAID_CONTEXT, SAID_SHAPES, SAID_STEPS = 60, 192, 768, 32, 1000


def load(file: str, variant: str) -> config_lib.Config:
    """Returns an experiment's configuration."""
    return config_lib.load(f"{EXPERIMENTS / file}:{variant}").config


def with_steps(config: config_lib.Config, steps: int) -> config_lib.Config:
    """Returns a diffusion configuration with another number of calls."""
    assert isinstance(config.model, config_lib.DiffusionConfig)
    sample = dataclasses.replace(config.model.sample, steps=steps)
    model = dataclasses.replace(config.model, sample=sample)
    return dataclasses.replace(config, model=model)


def counted(config: config_lib.Config, frames: int) -> tuple[float, int]:
    """Returns (operations, trained values) of predicting one clip."""
    task = tasks.build(config)
    batch = predictor.batch_shapes(config, 1, frames)
    params = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)
    values = sum(x.size for x in jax.tree.leaves({**params, "constants": {}}))
    return float(sum(flops.flops(task.predict, params, batch).values())), values


def nvidia(frames: int) -> tuple[float, float]:
    """Returns (one call, trained values) of diffusion_rnn at the released size."""
    from a2fjax.models.nvidia.diffusion_rnn.network import V3
    from a2fjax.models.nvidia.diffusion_rnn.on_features import DiffusionRnnOnFeatures

    network = DiffusionRnnOnFeatures(V3)
    shapes = predictor.batch_shapes(load("regression_v2_3.py", ""), 1, frames)
    batch: dict[str, Any] = {"length": shapes.length, "emotion": shapes.emotion}
    batch["features"] = jax.ShapeDtypeStruct((1, frames, 768), jnp.float32)
    batch["actor"] = jax.ShapeDtypeStruct((1, V3.actors), jnp.float32)
    params = jax.eval_shape(lambda b: network.init(jax.random.key(0), b), batch)
    noisy = jax.ShapeDtypeStruct((1, frames, network.size.layout.width), jnp.float32)
    step = jax.ShapeDtypeStruct((1,), jnp.int32)
    call = flops.flops(lambda p, x, t, b: network.apply(p, x, t, b), params, noisy, step, batch)
    values = sum(x.size for x in jax.tree.leaves({**params, "constants": {}}))
    return float(sum(call.values())), float(values)


def said(seconds: float) -> tuple[float, float]:
    """Returns (one call, values) of SAiD's U-Net on a clip; see the module.

    It counts convolutions and matrix products, with two operations per multiplication.
    """
    w, frames = SAID_WIDTH, round(seconds * SAID_FPS)
    tokens = frames  # Features are interpolated to the length of the motion.
    narrow = 3 * w * w * 2 + 4 * w * w  # Two convolutions of width three and one step embedding.
    wide = 3 * 2 * w * w + 3 * w * w + 2 * w * w
    attention = 2 * frames * w  # Logits and means over all frames; self- and cross-attention alike.
    block = (2 + 4 + 2) * w * w + 12 * w * w  # Projections; self; queries and out; GEGLU of 4.
    across = 2 * SAID_CONTEXT * w
    blocks = 4
    per_frame = 3 * SAID_SHAPES * w * 2 + 3 * narrow + 2 * wide
    per_frame += blocks * (block + attention + 2 * tokens * w)
    return 2.0 * (frames * per_frame + blocks * tokens * across), float(
        3 * SAID_SHAPES * w * 2 + 3 * narrow + 2 * wide + blocks * (block + across)
    )


def encoder_cost(seconds: float) -> float:
    """Returns the operations of wav2vec 2.0 or HuBERT base on a clip."""
    from a2fjax.encoders import wav2vec2

    encoder = wav2vec2.Wav2Vec2Encoder(wav2vec2.BASE)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    audio = jax.ShapeDtypeStruct((1, round(seconds * SAMPLE_RATE)), jnp.float32)
    return float(sum(flops.flops(encoder.apply, params, audio).values()))


def on_paper(seconds: float) -> list[dict[str, Any]]:
    """Returns a row per design: operations of a call and of a sample for one second."""
    frames = round(seconds * rig.FPS)
    out = []

    def add(name: str, values: float, calls: int, call: float, whole: float) -> None:
        row = {"name": name, "values": values, "calls": calls}
        out.append({**row, "call": call / seconds, "sample": whole / seconds})

    for variant in ("demo", ""):
        whole, values = counted(load("regression_v2_3.py", variant), frames)
        add(f"regression {variant or 'base'}", values, 1, whole, whole)
    for variant in ("demo", "", "large"):
        config = load("diffusion_v3_0.py", variant)
        one, values = counted(with_steps(config, 1), frames)
        two = counted(with_steps(config, 2), frames)[0]
        for calls in (1, 2, 4, 8):
            whole = one + (calls - 1) * (two - one)
            add(f"diffusion {variant or 'base'}", values, calls, two - one, whole)
    heard = encoder_cost(seconds)
    call, values = nvidia(round(seconds * NVIDIA_FPS))
    add("NVIDIA diffusion_rnn + HuBERT base", values, 2, call, heard + 2 * call)
    call, values = said(seconds)
    whole = heard + 2 * SAID_STEPS * call
    add("SAiD + wav2vec 2.0 base", values, 2 * SAID_STEPS, call, whole)
    return out


def measured(seconds: float, rounds: int) -> dict[str, float]:
    """Returns the seconds per clip by model, as medians of ratios to the regression model."""
    frames = round(seconds * rig.FPS)
    rng = np.random.default_rng(0)
    audio = (0.05 * rng.standard_normal(frames * HOP)).astype(np.float32)
    runs: dict[str, Callable[[], Any]] = {}

    def add(name: str, config: config_lib.Config) -> None:
        task = tasks.build(config)
        batch = predictor.batch_shapes(config, 1, 64)
        model = predictor.Predictor(config, task, task.init(jax.random.key(0), batch.filled()))
        model(audio, speech_level=0.05)
        runs[name] = lambda: model(audio, speech_level=0.05)

    add("regression", load("regression_v2_3.py", "demo"))
    diffusion = load("diffusion_v3_0.py", "demo")
    for steps in STEPS:
        add(f"diffusion, {steps}", with_steps(diffusion, steps))
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    return {
        name: statistics.median(t / base for t, base in zip(each, times["regression"], strict=True))
        for name, each in times.items()
    } | {"regression, seconds": statistics.median(times["regression"])}


def main(argv: Sequence[str] | None = None) -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of the clip")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rows = on_paper(args.seconds)
    print(f"{'on paper':38}{'values':>9}{'calls':>7}{'GFLOP a call':>14}{'GFLOP a sample':>16}")
    for row in rows:
        print(
            f"{row['name']:38}{row['values'] / 1e6:8.1f}M{row['calls']:7d}"
            f"{row['call'] / 1e9:14.3f}{row['sample'] / 1e9:16.2f}"
        )
    print("(for a second of one clip)")
    load_before = os.getloadavg()[0]
    ratios = measured(args.seconds, args.rounds)
    print(f"\n{args.seconds:g} s clip, demo sizes, {jax.devices()[0].platform}; ", end="")
    print(f"load {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")
    base = ratios.pop("regression, seconds")
    for name, ratio in ratios.items():
        print(f"{name:16} {ratio:6.2f} x the regression's time ({base:.3f} s)")
    if args.json:
        files.write_text(args.json, json.dumps({"paper": rows, "measured": ratios}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
