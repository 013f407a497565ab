"""A small synthetic head, and captures of it in NVIDIA's layout with known truth."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from a2fjax import rig
from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS

RATE = 16_000


@dataclasses.dataclass
class Head:
    """Neutral [V, 3] cm, names and deltas [K, V, 3] cm, and which vertices never move."""

    neutral: np.ndarray
    names: list[str]
    deltas: np.ndarray
    still: np.ndarray


@pytest.fixture(scope="session")
def head() -> Head:
    """450 vertices and all 52 shapes as Gaussian bumps; the back half never moves."""
    rng = np.random.default_rng(7)
    direction = rng.normal(size=(450, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    neutral = direction * [8.0, 11.0, 9.0]
    still = np.flatnonzero(neutral[:, 2] < -1.0)
    front = np.flatnonzero(neutral[:, 2] > 1.0)
    deltas = np.zeros((52, 450, 3))
    for k in range(52):
        for _ in range(2):
            centre = neutral[rng.choice(front)]
            near = np.exp(-(((neutral - centre) / 2.5) ** 2).sum(axis=1) / 2)
            deltas[k] += near[:, None] * rng.normal(size=3) * 0.6
    deltas[:, still] = 0.0
    return Head(neutral, list(rig.ARKIT), deltas, still)


def smooth_weights(rng, times, count):
    """Weights [F, count] in [0, 1]: a few slow oscillations, at rest some of the time."""
    speed = rng.uniform(0.3, 3.0, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    size = rng.uniform(0.2, 0.7, count)
    for _, second in EXCLUSIVE_PAIRS:  # no face looks both ways at once
        if rig.INDEX[second] < count:
            size[rig.INDEX[second]] = 0.0
    return np.clip(np.sin(2 * np.pi * speed * times[:, None] + phase) * size, 0, 1)


def turned(points, rng, times):
    """Points [F, V, 3] of a head that sways by degrees and millimetres."""
    angle = 0.06 * np.sin(2 * np.pi * times[:, None] * [0.31, 0.23, 0.17] + rng.uniform(0, 6, 3))
    shift = 0.3 * np.sin(2 * np.pi * times[:, None] * [0.2, 0.3, 0.1] + rng.uniform(0, 6, 3))
    out = np.empty_like(points)
    for f, (x, y, z) in enumerate(angle):
        rx = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
        ry = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
        rz = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
        out[f] = points[f] @ (np.array(rx) @ ry @ rz).T + shift[f]
    return out


def write_actor(
    folder: Path, head: Head, *, offset=0.05, fps=60.0, seed=0, shots=2, held_out=None, slate=True
):
    """Writes an actor; returns {shot: function from audio time [T] to weights [T, 52]}."""
    rng = np.random.default_rng(seed)
    (folder / "audio").mkdir(parents=True)
    truth, listed, eyes = {}, {}, {}
    names = ["slate"] * slate + [f"{('joy', 'calm')[i % 2]}_{i:02d}" for i in range(shots)]
    jaw = head.names.index("jawOpen")
    for n, shot in enumerate(names):
        seconds = 3.0 if shot == "slate" else 2.0 + 0.4 * n
        capture = np.arange(int(seconds * fps)) / fps
        shot_seed = int(rng.integers(1 << 30))
        if shot == "slate":
            pops = np.array([0.6, 1.33, 2.07])

            def motion(t, pops=pops):
                w = np.zeros((len(t), 52))
                for p in pops:
                    w[:, jaw] += 0.5 * (np.clip((t - p) / 0.03 + 0.5, 0, 1))
                    w[:, jaw] -= 0.5 * np.clip((t - p - 0.25) / 0.2, 0, 1)
                return w

            audio = 1e-3 * rng.normal(size=int(seconds * RATE))
            for p in pops:
                start = round(p * RATE)
                audio[start : start + 160] += 0.7 * np.exp(-np.arange(160) / 40)
        else:

            def motion(t, seed=shot_seed):
                return smooth_weights(np.random.default_rng(seed), t, 52)

            t = np.arange(int(seconds * RATE)) / RATE
            loud = motion(t)[:, jaw]
            audio = 0.3 * loud * np.sin(2 * np.pi * 180 * t) + 1e-3 * rng.normal(size=len(t))
            listed[shot] = {"sentence": f"line {n}", "language": "en", "emotion": {"happy": 0.5}}
            if held_out is not None:
                listed[shot]["held_out"] = held_out
        weights = motion(capture + offset)
        vertices = head.neutral + np.einsum("fk,kvi->fvi", weights, head.deltas)
        vertices = turned(vertices, rng, capture) + rng.normal(size=vertices.shape) * 0.003
        cache = folder / "cache" / "skin" / shot
        cache.mkdir(parents=True)
        np.save(cache / f"{shot}.npy", vertices.astype(np.float32))
        soundfile.write(folder / "audio" / f"{shot}.wav", audio, RATE, "PCM_16")
        eyes[shot] = np.full((len(capture), 2, 2), [[1.0, 2.0], [3.0, 4.0]])
        truth[shot] = motion
    (folder / "bs_data").mkdir()
    np.savez(
        folder / "bs_data" / "bs_skin.npz",
        poseNames=np.array(["neutral", *head.names]),
        neutral=head.neutral.astype(np.float32),
        frontalMask=np.flatnonzero(head.neutral[:, 2] > -1.0).astype(np.int32),
        **{n: d.astype(np.float32) for n, d in zip(head.names, head.deltas, strict=True)},
    )
    (folder / "xform").mkdir()
    np.savez(folder / "xform" / "eye_rotations_all.npz", **eyes)
    (folder / "geom" / "skin").mkdir(parents=True)
    np.save(folder / "geom" / "skin" / "neutral_pose.npy", head.neutral.astype(np.float32))
    shots_json = {"fps": fps, "units": "cm", "synthetic": True, "shots": listed}
    (folder / "shots.json").write_text(json.dumps(shots_json))
    return truth


@pytest.fixture(scope="session")
def make_actor():
    """The function `write_actor`."""
    return write_actor


def write_talk(
    folder: Path, name: str, *, seed=0, seconds=8.0, fps=60.0, offset=0.0, fast=1.0, sound=True
):
    """Writes a table of four curves and the noise of that jaw; returns audio time -> curves [T, 4].

    The capture's clock starts `offset` s before the audio's, and runs `fast` times as fast: its
    frame at `t` shows the face at audio time `t / fast + offset`.
    """
    rng = np.random.default_rng(seed)
    knots = np.arange(-2.0, seconds + 2.5, 0.25)
    values = rng.uniform(0.0, 0.8, (len(knots), 4)) * (rng.uniform(size=(len(knots), 1)) < 0.7)

    def motion(t):
        place = np.clip((np.asarray(t) - knots[0]) / 0.25, 0, len(knots) - 1.001)
        left = place.astype(int)
        share = ((1 - np.cos(np.pi * (place - left))) / 2)[:, None]
        return (1 - share) * values[left] + share * values[left + 1]

    folder.mkdir(parents=True, exist_ok=True)
    capture = np.arange(round(seconds * fps)) / fps
    names = np.array(["jawOpen", "browInnerUp", "mouthSmileLeft", "mouthSmileRight"])
    np.savez(folder / f"{name}.npz", motion=motion(capture / fast + offset), names=names, fps=fps)
    if sound:
        at = np.arange(round(seconds * RATE)) / RATE
        audio = motion(at)[:, 0] ** 2 * rng.normal(size=len(at)) * 0.3
        audio += 3e-4 * rng.normal(size=len(at))
        soundfile.write(folder / f"{name}.wav", audio, RATE, "PCM_16")
    return motion


@pytest.fixture(scope="session")
def make_talk():
    """The function `write_talk`."""
    return write_talk
