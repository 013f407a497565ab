"""Speed and memory of a dataset build at the size of production scans.

    python benchmarks/scale.py FOLDER [--rig FILE] [--minutes 10] [--seconds 30] [--workers 2]

Writes scans of a head with 26,719 vertices and 52 shapes at 60 frames per second into FOLDER (1.15
GB per minute, with scanner noise, head motion and a clock offset), builds shards from them, and
prints takes, frames and bytes per second, the peak memory of a worker, and the projection for 100
hours. `--rig` reads the shapes from a file that `data_pipeline.mesh.rigs` supports; without it the
head is synthetic. FOLDER/captures is kept for another run and must be deleted manually.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile

from a2fjax import rig
from a2fjax.data import records
from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS

ROOT = Path(__file__).resolve().parents[1]
VERTICES, FPS, RATE = 26_719, 60.0, 16_000
ACTORS = 4


def made_up_rig() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns an ellipsoid (cm) with a Gaussian bump on its front for each ARKit shape."""
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(VERTICES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    neutral = direction * [8.0, 11.0, 9.0]
    front = np.flatnonzero(neutral[:, 2] > 2.0)
    deltas = np.zeros((52, VERTICES, 3))
    for shape in deltas:
        for _ in range(2):
            near = np.exp(-(((neutral - neutral[rng.choice(front)]) / 1.5) ** 2).sum(axis=1) / 2)
            shape += near[:, None] * rng.normal(size=3) * 0.6
    return neutral, deltas, list(rig.ARKIT)


def read_rig(path: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    from data_pipeline.mesh import blendshapes, rigs

    face = blendshapes.make_blendshapes(rigs.read_rig(path), name=str(path))
    scale = 10.0  # written in cm
    return face.neutral / scale, face.deltas / scale, list(face.channels)


def write(folder: Path, shapes, minutes: float, seconds: float) -> int:
    """Writes missing captures and returns the number of takes."""
    neutral, deltas, names = shapes
    flat = deltas.reshape(len(deltas), -1).astype(np.float32)
    takes = round(minutes * 60 / seconds)
    frames = round(seconds * FPS)
    for number in range(takes):
        actor = folder / f"actor{number % ACTORS}"
        shot = f"take_{number:03d}"
        target = actor / "cache" / "skin" / shot / f"{shot}.npy"
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        (actor / "audio").mkdir(exist_ok=True)
        rng = np.random.default_rng(number)
        t = np.arange(frames) / FPS
        speed, phase = rng.uniform(0.3, 3, len(names)), rng.uniform(0, 6, len(names))
        size = np.full(len(names), 0.7)
        size[[names.index(b) for _, b in EXCLUSIVE_PAIRS if b in names]] = 0.0
        weights = np.clip(np.sin(2 * np.pi * speed * t[:, None] + phase), 0, 1) * size
        angles = 0.06 * np.sin(2 * np.pi * t[:, None] * [0.31, 0.23, 0.17] + rng.uniform(0, 6, 3))
        partial = target.with_suffix(".partial")
        out = np.lib.format.open_memmap(partial, "w+", np.float32, (frames, len(neutral), 3))
        for f in range(frames):
            x, y, z = angles[f]
            turn = np.array([[1, -z, y], [z, 1, -x], [-y, x, 1]], np.float32)
            u, _, vt = np.linalg.svd(turn)
            face = neutral + (weights[f].astype(np.float32) @ flat).reshape(-1, 3)
            noise = 0.01 * rng.standard_normal(face.shape, np.float32)
            out[f] = (face + noise) @ (u @ vt).T
        out.flush()
        partial.rename(target)
        n = int(seconds * RATE)
        loud = np.interp(np.arange(n) / RATE, t, weights[:, names.index("jawOpen")])
        voice = 0.3 * loud * np.sin(2 * np.pi * 180 * np.arange(n) / RATE)
        voice += 1e-3 * rng.normal(size=n)
        soundfile.write(actor / "audio" / f"{shot}.wav", voice, RATE, "PCM_16")
        print(f"wrote {number + 1}/{takes}", end="\r", flush=True)
    for actor in sorted(p for p in folder.iterdir() if p.is_dir()):
        (actor / "bs_data").mkdir(exist_ok=True)
        np.savez(
            actor / "bs_data" / "bs_skin.npz",
            poseNames=np.array(["neutral", *names]),
            neutral=neutral.astype(np.float32),
            **{n: d.astype(np.float32) for n, d in zip(names, deltas, strict=True)},
        )
        (actor / "shots.json").write_text(json.dumps({"fps": FPS, "units": "cm"}))
    return takes


def build(captures: Path, out: Path, workers: int) -> tuple[float, float, float]:
    """Returns (wall time in s, CPU time in s, largest process in MiB) of a build."""
    shutil.rmtree(out, ignore_errors=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    command = [sys.executable, "-m", "data_pipeline.build", str(captures), f"--out={out}"]
    # Pure tones are not speech, but the content of the audio does not affect this benchmark.
    command += [f"--workers={workers}", "--config.offset=0", "--config.least_snr_db=0"]
    subprocess.run(command, cwd=ROOT, check=True)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, after.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rig", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    captures = args.folder / "captures"
    captures.mkdir(parents=True, exist_ok=True)
    shapes = read_rig(args.rig) if args.rig else made_up_rig()
    takes = write(captures, shapes, args.minutes, args.seconds)
    size = sum(p.stat().st_size for p in captures.rglob("*.npy"))
    load = os.getloadavg()[0]
    wall, cpu, peak = build(captures, args.folder / "shards", args.workers)
    manifest = records.read_manifest(args.folder / "shards")
    used = sum(len(s.clips) for s in manifest.shards)
    frames = args.minutes * 60 * FPS
    vertices, shape_count = shapes[0].shape[0], len(shapes[2])
    print(
        f"{takes} takes of {args.seconds:g} s, {vertices:,} vertices, {shape_count} shapes, "
        f"{size / 1e9:.2f} GB; {args.workers} processes on {os.cpu_count()} cores, load before "
        f"{load:.1f}; {used} clips"
    )
    print(
        f"{wall:.1f} s: {takes / wall:.3f} takes/s, {frames / wall:.0f} frames/s, "
        f"{size / wall / 1e6:.0f} MB/s, {args.minutes * 60 / wall:.2f} x real time; "
        f"{cpu:.0f} CPU-s, {1000 * cpu / frames:.2f} ms of CPU a frame; "
        f"largest process {peak:.0f} MiB"
    )
    hours = 100.0
    whole = hours * 3600 * FPS * cpu / frames
    volume = size / args.minutes * 60 * hours
    print(
        f"{hours:g} h: {volume / 1e12:.1f} TB, {whole / 3600:.0f} CPU-hours; on 64 workers "
        f"{whole / 64 / 3600:.1f} h if storage gives {volume / (whole / 64) / 1e6:.0f} MB/s to all"
    )


if __name__ == "__main__":
    main()
