"""Simulates a 4D scanner: curves become moving vertices on the scanner's clock.

    skin_n = R_n (neutral + sum_k w_k(t_n) delta_k) + translation_n + noise

with t_n = n / 60 + offset on the audio clock, small smooth head motion (R, translation) and
measurement noise at every vertex. The tongue's mesh, including its rigid vertices (the lower
teeth), is first rotated with the jaw.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.demo.takes import DemoSubject, Take, make_rng
from data_pipeline.demo.voice import RATE

NOISE = 0.01
"""Standard deviation of the scanner's noise in each coordinate, cm."""

_TURN = 3.0
_SHIFT = 0.25
_SWAY = 0.35
_EYE_CHANNELS = np.array(
    [[rig.INDEX[f"{side}EyeRot{axis}"] for axis in "XY"] for side in ("right", "left")]
)


@dataclasses.dataclass(frozen=True)
class Actor:
    """A subject with head and shapes: `skin` [52, V, 3], `tongue` [16, Vt, 3] in cm."""

    person: DemoSubject
    head: heads.Head
    skin: np.ndarray
    tongue: np.ndarray

    @staticmethod
    def of(person: DemoSubject) -> Actor:
        """Returns the actor for a subject."""
        head = heads.make_head(person.shape)
        return Actor(person, head, expressions.skin_shapes(head), expressions.tongue_shapes(head))


@dataclasses.dataclass(frozen=True)
class Scan:
    """The scan of a take.

    Attributes:
      skin: [F, V, 3] float32 cm.
      tongue: [F, Vt, 3] float32 cm.
      eye_rotations: [F, 2, 2] float32 degrees: right and left eye, X and Y.
    """

    skin: np.ndarray
    tongue: np.ndarray
    eye_rotations: np.ndarray


def scan(actor: Actor, take: Take, fps: float) -> Scan:
    """Returns the scan of a take, with frame n at n / fps on the capture clock.

    The capture is as long as the audio; the pose is held where the clocks do not overlap.
    """
    duration = len(take.audio) / RATE
    frames = int(np.floor(duration * fps + 1e-9))
    times = np.arange(frames) / fps + actor.person.offset
    motion = take.curves.at(times)
    rng = make_rng("scan", actor.person.seed, actor.person.name, take.shot)
    rotation, shift = _head_motion(times, rng)
    skin = actor.head.vertices.astype(np.float32) + _blend(motion[:, :52], actor.skin)
    tongue = actor.head.tongue.astype(np.float32) + _blend(motion[:, 52:68], actor.tongue)
    opened = expressions.JAW_ANGLE * motion[:, rig.INDEX["jawOpen"]][:, None]
    tongue = expressions.rotate_x(tongue, opened, expressions.JAW_HINGE)

    def moved(points: np.ndarray) -> np.ndarray:
        points = points.astype(np.float32) @ rotation.transpose(0, 2, 1) + shift[:, None]
        points += NOISE * rng.standard_normal(points.shape, dtype=np.float32)
        return points

    return Scan(moved(skin), moved(tongue), motion[:, _EYE_CHANNELS])


def _blend(weights: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    flat = shapes.astype(np.float32).reshape(len(shapes), -1)
    return (weights @ flat).reshape(len(weights), -1, 3)


def _head_motion(times: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns rotations [F, 3, 3] of a few degrees and shifts [F, 3] of a few millimetres.

    Each angle and shift is a sum of three slow sines of random frequency and phase.
    """
    frequency = _SWAY * rng.uniform(0.3, 1.7, (6, 3))
    phase = rng.uniform(0.0, 2.0 * np.pi, (6, 3))
    size = rng.uniform(0.2, 0.6, (6, 3)) * np.array([[_TURN]] * 3 + [[_SHIFT]] * 3)
    waves = (size * np.sin(2.0 * np.pi * frequency * times[:, None, None] + phase)).sum(axis=2)
    x, y, z = np.radians(waves[:, :3]).T
    rotation = _axis(z, 2) @ _axis(y, 1) @ _axis(x, 0)
    return rotation.astype(np.float32), waves[:, 3:].astype(np.float32)


def _axis(angle: np.ndarray, axis: int) -> np.ndarray:
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.tile(np.eye(3), (len(angle), 1, 1))
    out[:, i, i] = out[:, j, j] = np.cos(angle)
    out[:, j, i] = np.sin(angle)
    out[:, i, j] = -np.sin(angle)
    return out


def write_geometry(folder: Path, actor: Actor) -> None:
    """Writes geom/ and bs_data/ of an actor's folder: neutral meshes, faces and shapes."""
    head = actor.head
    skin, tongue = folder / "geom" / "skin", folder / "geom" / "tongue"
    for each in (skin, tongue, folder / "bs_data"):
        each.mkdir(parents=True)
    np.save(skin / "neutral_pose.npy", head.vertices.astype(np.float32))
    np.save(skin / "faces.npy", head.faces)
    np.save(tongue / "neutral_pose.npy", head.tongue.astype(np.float32))
    np.save(tongue / "faces.npy", head.tongue_faces)
    (tongue / "rigid_vertex_list.json").write_text(json.dumps(list(heads.TONGUE_RIGID)))
    frontal = np.flatnonzero(~heads.make_layout().of("skull")).astype(np.int32)
    for name, neutral, shapes, names in (
        ("skin", head.vertices, actor.skin, rig.ARKIT),
        ("tongue", head.tongue, actor.tongue, rig.TONGUE),
    ):
        poses = {n: d.astype(np.float32) for n, d in zip(names, shapes, strict=True)}
        extra: dict[str, Any] = {"frontalMask": frontal} if name == "skin" else {}
        np.savez(
            folder / "bs_data" / f"bs_{name}.npz",
            poseNames=np.array(["neutral", *names]),
            neutral=neutral.astype(np.float32),
            **poses,
            **extra,
        )
