"""Speed of training with frozen wav2vec 2.0 base: live, cached, and one encoding per frame.

    python benchmarks/feature_cache.py [--clips 24] [--seconds 6] [--batch 8] [--rounds 5]
                                       [--json FILE]

The encoder has random weights in the published base architecture, the model is the regression model
with default sizes, clips are synthetic. A step includes reading, batching, encoding (live) and the
update. Live and cached steps alternate in one process, so that other work on the machine affects
both equally; results are medians of the rounds and of their ratios.

NVIDIA's framework encodes 0.52 s of audio (8,320 samples) for every supervised frame. Its row is an
estimate: operations are counted from the same encoder's program, and the frames per second are
those of live training scaled by the additional operations at the same speed. The audio encoded per
supervised audio is 0.52 s per frame: 15.6 times at its 30 frames per second, 26 times at 50.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, rig
from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.configuration import AudioConfig, AugmentConfig, Config, DataConfig, EncoderConfig
from a2fjax.data import records

NVIDIA_SAMPLES = 8320


def write_shards(folder: Path, clips: int, seconds: float) -> None:
    """Writes synthetic clips of one length."""
    from array_record.python.array_record_module import ArrayRecordWriter

    rng = np.random.default_rng(0)
    frames = round(seconds * rig.FPS)
    samples = frames * HOP
    t = np.arange(samples) / SAMPLE_RATE
    file = "clips-00000-of-00001.arrayrecord"
    writer = ArrayRecordWriter(str(folder / file), "group_size:1")
    entries = []
    for i in range(clips):
        gate = np.clip(np.sin(2 * np.pi * (2 + 0.1 * i) * t), 0, None)
        voice = sum(np.sin(2 * np.pi * (100 + 5 * i) * h * t + h) / h for h in range(1, 15))
        motion = np.zeros((frames, rig.NUM_CHANNELS), np.float32)
        motion[:, rig.INDEX["jawOpen"]] = 0.6 * gate[::HOP]
        clip = records.Clip(
            id=f"a/{i}",
            subject="a",
            sentence=str(i),
            language="",
            split="train",
            audio=(0.1 * gate * voice + 1e-3 * rng.normal(size=samples)).astype(np.float32),
            motion=motion,
            channel_mask=np.ones(rig.NUM_CHANNELS, np.bool_),
            frame_mask=np.ones(frames, np.bool_),
            emotion=np.tile(np.eye(5, dtype=np.float32)[0], (frames, 1)),
            speech_level=0.1,
            synthetic=True,
        )
        writer.write(records.encode(clip))
        entries.append(records.index_entry(clip))
    writer.close()
    values = {"motion_mean": [0.1] * 72, "motion_std": [0.1] * 72, "emotion_mean": {}}
    shards = [records.Shard(file, entries)]
    subjects = [records.Subject("a", None, False)]
    manifest = records.Manifest(subjects, shards, [True] * 72, values, True, {})
    records.write_manifest(folder, manifest)


def trainer(config: Config, encoders: Any) -> Callable[[], float]:
    """Returns a function that runs one training step and returns its loss."""
    import jax

    from a2fjax import tasks
    from a2fjax.data import loader
    from a2fjax.data.feature_cache import writer as encode
    from a2fjax.training import optimizer as optimizer_lib
    from a2fjax.training import state as state_lib
    from a2fjax.training import step as step_lib

    streams = None
    if config.data.encoder_features == "cached":
        streams = {key: encode.feature_spec(*each) for key, each in encoders.items()}
    task = tasks.build(config, tasks.constants(config, encoders=encoders), encoders)
    optimizer = optimizer_lib.build(config.optim, config.steps, 1.0)
    zeros = loader.spec(config, cached=streams).filled()
    state = state_lib.create(task, optimizer, zeros, task.pretrained, seed=0, average=True)
    step = jax.jit(step_lib.make_train_step(task, optimizer, config), donate_argnums=0)
    batches = loader.batches(config, cached=streams)
    current = [state]

    def train_step() -> float:
        current[0], metrics = step(current[0], next(batches))
        return float(metrics["loss"])

    return train_step


def clock(run: Callable[[], float], times: int) -> tuple[float, float]:
    """Returns seconds and CPU seconds per call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        run()
    return (time.perf_counter() - wall) / times, (time.process_time() - cpu) / times


def encoder_flops(encoder: Any, params: Any, samples: int) -> int:
    """Returns the floating-point operations for encoding some samples."""
    import jax

    from a2fjax.models import flops as cost

    audio = jax.ShapeDtypeStruct((1, samples), np.float32)
    return sum(cost.flops(encoder.apply, params, audio).values())


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=6.0, help="of a clip")
    parser.add_argument("--batch", type=int, default=8, help="windows a step")
    parser.add_argument("--window", type=int, default=128, help="frames a window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cached-steps", type=int, default=8, help="to one live step")
    parser.add_argument("--mix", action="store_true", help="all 13 states instead of the last")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    import jax

    from a2fjax import tasks
    from a2fjax.data.feature_cache import writer as encode
    from a2fjax.encoders import wav2vec2
    from a2fjax.infer.predictor import batch_shapes
    from a2fjax.models import flops as cost
    from a2fjax.models import pretrained

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "shards").mkdir()
        write_shards(folder / "shards", args.clips, args.seconds)
        weights = jax.jit(wav2vec2.Wav2Vec2Encoder(wav2vec2.BASE).init)(jax.random.key(0))
        wav2vec2.save(folder / "base", wav2vec2.BASE, jax.tree.map(np.asarray, weights))
        frames = round(args.seconds * rig.FPS)
        config = Config(
            audio=AudioConfig(
                features=(f"wav2vec2:{folder / 'base'}",), encoder=EncoderConfig(mix=args.mix)
            ),
            data=DataConfig(
                shards=(str(folder / "shards"),),
                batch_size=args.batch,
                window_frames=args.window,
                context_frames=max(frames, args.window),
                augment=AugmentConfig(enabled=False),
            ),
        )
        config = dataclasses.replace(
            config, model=dataclasses.replace(config.model, identity="none")
        )
        encoders = pretrained.load(config.audio)
        ((encoder, params),) = encoders.values()
        start = time.perf_counter()
        cache_folder = encode.write(folder / "shards", encoder, params)
        writing = args.clips * frames / (time.perf_counter() - start)
        size = sum(p.stat().st_size for p in cache_folder.glob("*.arrayrecord"))
        per_hour = size / (args.clips * args.seconds / 3600)

        cached_config = dataclasses.replace(
            config, data=dataclasses.replace(config.data, encoder_features="cached")
        )
        live, cached = trainer(config, encoders), trainer(cached_config, encoders)
        differ = max(abs(live() / cached() - 1) for _ in range(2))  # Compiles as well.
        rows = [(clock(live, 1), clock(cached, args.cached_steps)) for _ in range(args.rounds)]
        supervised = args.batch * args.window

        # Operations per supervised frame; those of the model itself are the same for all.
        per_frame = encoder_flops(encoder, params, NVIDIA_SAMPLES)
        clip = encoder_flops(encoder, params, frames * HOP) * args.batch / supervised
        task = tasks.build(config, None, encoders)
        batch = batch_shapes(config, args.batch, args.window)
        stream = encode.feature_spec(encoder, params)
        (key,) = encoders
        shape = (args.batch, args.window, stream.states, stream.width)
        batch = batch.replace(cached_features={key: jax.ShapeDtypeStruct(shape, np.float16)})
        shapes = jax.eval_shape(lambda b: task.init(jax.random.key(0), b), batch)

        def update(params: Any, batch: Any) -> Any:
            return jax.grad(
                lambda p: task.loss(p, batch, jax.random.key(0), step=0, train=True)[0]
            )(params)

        model = sum(cost.flops(update, shapes, batch).values()) / supervised

    median = statistics.median
    rate = {
        "live": supervised / median(a[0] for a, _ in rows),
        "cached": supervised / median(b[0] for _, b in rows),
    }
    paper = rate["live"] * (model + clip) / (model + per_frame)
    faster = median(a[0] / b[0] for a, b in rows)
    faster_cpu = median(a[1] / b[1] for a, b in rows)
    print(
        f"JAX {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores, load "
        f"{load:.1f} before and {os.getloadavg()[0]:.1f} after; {args.rounds} rounds"
    )
    print(
        f"{args.clips} clips of {args.seconds:g} s, {args.batch} windows of {args.window} frames a "
        f"step, {stream.states} x {stream.width} a frame; losses differ by {differ:.1e}"
    )
    print(f"{'encoded':34} {'encoder':>9} {'model':>7} {'frames/s':>9} {'of live':>8}")
    print(f"{'':34} {'MFLOP a frame':>17}")
    for label, flops, speed, times in (
        ("0.52 s for every frame (estimate)", per_frame, paper, paper / rate["live"]),
        ("once a window's clip, live", clip, rate["live"], 1.0),
        ("once, read from the cache", 0, rate["cached"], faster),
    ):
        print(f"{label:34} {flops / 1e6:9,.0f} {model / 1e6:7.1f} {speed:9,.1f} {times:8.3g}")
    print(
        f"cached is {faster:.1f} times as fast as live by the clock, {faster_cpu:.1f} by CPU time, "
        f"and {rate['cached'] / paper:,.0f} times as fast as 0.52 s for every frame"
    )
    print(
        f"a cache of {per_hour / 1e6:,.0f} MB an hour of speech, written at {writing:,.0f} "
        "frames/s (with compilation)"
    )
    if args.json:
        values = {
            "frames_per_second": {**rate, "per_frame_on_paper": paper},
            "times_live": faster,
            "times_live_cpu": faster_cpu,
            "mflop_per_frame": {
                "per_frame": per_frame / 1e6,
                "live": clip / 1e6,
                "model": model / 1e6,
            },
            "bytes_per_hour": per_hour,
            "rounds": rows,
            "load": load,
        }
        files.write_text(args.json, json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
