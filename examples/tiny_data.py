"""Makes a few seconds of synthetic speech with curves, so that the examples need no download.

    captures/<speaker>/line0.wav      16 kHz
                       line0.json     named curves, 50 frames a second

The voice is a buzz whose loudness follows the jaw; a model can learn that in a few steps.
"""

import os
from pathlib import Path

import numpy as np
import soundfile

import a2fjax as a2f
from a2fjax import rig
from data_pipeline import build
from data_pipeline.settings import BuildSettings

SPEAKERS = ("anna", "ben", "cleo")
LINES = 3
SECONDS = 3.0


def folder() -> Path:
    """Returns where the examples write: $A2F_EXAMPLES, or a folder beside this file."""
    path = Path(os.environ.get("A2F_EXAMPLES", Path(__file__).parent / "output"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def speech(seed: int) -> tuple[np.ndarray, a2f.Motion]:
    """Returns (samples [S] at 16 kHz, motion) of a made-up line."""
    rng = np.random.default_rng(seed)
    frames = round(SECONDS * rig.FPS)
    times = np.arange(frames) / rig.FPS
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(3, 5) * times)
    pauses = np.repeat(rng.random(6) > 0.2, frames // 6 + 1)[:frames]
    jaw = 0.6 * syllables * pauses
    curves = np.zeros((frames, rig.NUM_CHANNELS), np.float32)
    curves[:, rig.INDEX["jawOpen"]] = jaw
    curves[:, rig.INDEX["mouthFunnel"]] = 0.4 * jaw**2
    curves[:, rig.INDEX["mouthClose"]] = 0.1 * pauses * (1 - syllables)
    sample_times = np.arange(round(SECONDS * 16_000)) / 16_000
    buzz = sum(np.sin(2 * np.pi * 120 * k * sample_times + k * k) / k**0.7 for k in range(1, 60))
    loudness = np.interp(sample_times, times, 0.02 + 0.3 * jaw)
    noise = 1e-4 * rng.standard_normal(len(sample_times))
    return 0.2 * loudness * buzz + noise, a2f.Motion(curves)


def captures() -> Path:
    """Writes the recordings, unless they exist, and returns their folder."""
    path = folder() / "captures"
    for s, speaker in enumerate(SPEAKERS):
        (path / speaker).mkdir(parents=True, exist_ok=True)
        for line in range(LINES):
            name = path / speaker / f"line{line}"
            if not name.with_suffix(".wav").exists():
                samples, motion = speech(10 * s + line)
                motion.save(name.with_suffix(".json"))
                soundfile.write(name.with_suffix(".wav"), samples, 16_000)
    return path


def shards() -> Path:
    """Builds the training data, unless they exist, and returns their folder."""
    path = folder() / "shards"
    if not (path / "manifest.json").exists():
        settings = BuildSettings(offset="0", held_out=("cleo",), test_sentences=("line2",))
        build.build(captures(), path, settings=settings, workers=0)
    return path


SMALL = {
    "model.identity": "none",
    "model.conv_layers": 1,
    "model.conv_width": 16,
    "model.recurrent_width": 16,
    "data.batch_size": 4,
    "data.window_frames": 64,
    "optim.warmup_steps": 1,
    "eval.every_steps": 0,
    "checkpoint.keep_best": 0,
    "log.every_steps": 5,
    "steps": 20,
}
"""Overrides of a model that trains in seconds"""


def run() -> Path:
    """Trains a small model, unless it exists, and returns its run folder."""
    path = folder() / "run"
    if not (path / "checkpoints").exists():
        a2f.train(a2f.config(None, {**SMALL, "data.shards": shards()}), path, say=lambda line: None)
    return path
