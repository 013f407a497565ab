"""What a batch is: the names, shapes and types that loader, models and predictor agree on."""

from __future__ import annotations

from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP


def spec(
    size: int, frames: int, points: int, *, normals: bool = False
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Returns shape and type of each array of a batch.

    Args:
      size: windows or clips in it.
      frames: of each, padding included.
      points: of each neutral mesh.
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
    return {name: ((size, *shape), np.dtype(kind)) for name, (shape, kind) in shapes.items()}
