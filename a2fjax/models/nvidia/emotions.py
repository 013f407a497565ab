"""Maps this package's five emotions to NVIDIA's ten."""

from __future__ import annotations

import numpy as np
from jax import Array

from a2fjax import rig


def _matrix() -> np.ndarray:
    pairs = {"happy": "joy", "angry": "anger", "sad": "sadness", "surprised": "amazement"}
    matrix = np.zeros((rig.NUM_EMOTIONS, len(rig.NVIDIA_EMOTIONS)), np.float32)
    for ours, theirs in pairs.items():
        matrix[rig.EMOTIONS.index(ours), rig.NVIDIA_EMOTIONS.index(theirs)] = 1.0
    return matrix


EMOTION_TO_NVIDIA = _matrix()
"""[5, 10] map from `rig.EMOTIONS` to NVIDIA's emotions; neutral becomes the zero vector.

It is an assumption [?] for data with this package's five labels; data with NVIDIA's ten need no
map.
"""


def explicit_emotion(emotion: Array, width: int) -> Array:
    """Converts emotions to the input of a network with `width` explicit emotions.

    Args:
      emotion: [..., 5] of `rig.EMOTIONS`, or [..., width].
      width: number of explicit emotions of the network.

    Raises:
      ValueError: the emotion has neither width.
    """
    if emotion.shape[-1] == width:
        return emotion
    if emotion.shape[-1] == rig.NUM_EMOTIONS and width == len(rig.NVIDIA_EMOTIONS):
        return emotion @ EMOTION_TO_NVIDIA
    raise ValueError(f"emotions have {emotion.shape[-1]} numbers, the network takes {width}")
