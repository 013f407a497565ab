"""What a batch is: the names, shapes and types that loader, models and predictor agree on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, level
from a2fjax.data import records

BUCKET = 100
"""Frames of which a padded clip has a multiple, so that few lengths are compiled."""


def padded_audio(clip: records.Clip, frames: int | None = None) -> tuple[np.ndarray, int]:
    """Returns what encoders hear of a clip, [frames * 320] float32, and the clip's frames.

    Args:
      clip: its speech is brought to `level.TARGET`.
      frames: to pad or cut to; None for the next multiple of `BUCKET`.
    """
    if frames is None:
        frames = -(-clip.frames // BUCKET) * BUCKET
    heard = level.normalise(clip.audio[: frames * HOP], clip.speech_level)
    out = np.zeros(frames * HOP, np.float32)
    out[: len(heard)] = heard
    return out, min(clip.frames, frames)


def spec(
    size: int,
    frames: int,
    points: int,
    heard: int = 0,
    encoded: Mapping[str, tuple[int, int]] | None = None,
    *,
    normals: bool = False,
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and type of each array of a batch.

    Args:
      size: windows or clips in it.
      frames: of each, padding included.
      points: of each neutral mesh.
      heard: frames of the clips that live encoders hear; 0 for none, which leaves out "heard",
        "heard_length" and "heard_start".
      encoded: (states, width) of each encoder whose states are read, by key: "encoded/<key>".
      normals: of the points are part of it.
    """
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "audio": ((frames * HOP,), np.float32),
        "motion": ((frames, rig.NUM_CHANNELS), np.float32),
        "channel_mask": ((rig.NUM_CHANNELS,), np.bool_),
        "frame_mask": ((frames,), np.bool_),
        "length": ((), np.int32),
        "identity": ((points, 6 if normals else 3), np.float32),
        "identity_mask": ((), np.bool_),
        "subject": ((), np.int32),
        "emotion": ((frames, rig.NUM_EMOTIONS), np.float32),
        "clip": ((), np.int32),
        "start": ((), np.int32),
    }
    if heard:
        shapes |= {
            "heard": ((heard * HOP,), np.float32),
            "heard_length": ((), np.int32),
            "heard_start": ((), np.int32),
        }
    for key, (states, width) in (encoded or {}).items():
        shapes[f"encoded/{key}"] = ((frames, states, width), np.float16)
    return {name: ((size, *shape), np.dtype(kind)) for name, (shape, kind) in shapes.items()}
