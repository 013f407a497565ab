"""Pads the audio of clips to a few lengths to limit the number of compiled programs."""

from __future__ import annotations

import numpy as np

from a2fjax.audio import HOP, level
from a2fjax.data import records

BUCKET = 100
"""The number of frames of a padded clip is a multiple of this."""


def padded_audio(clip: records.Clip, frames: int | None = None) -> tuple[np.ndarray, int]:
    """Returns normalised and padded audio [frames * 320] float32, and the clip's frame count.

    Args:
      clip: the clip; its speech is scaled to `level.TARGET`.
      frames: length to pad or cut to; None for the next multiple of `BUCKET`.
    """
    if frames is None:
        frames = -(-clip.frames // BUCKET) * BUCKET
    audio = level.normalise(clip.audio[: frames * HOP], clip.speech_level)
    out = np.zeros(frames * HOP, np.float32)
    out[: len(audio)] = audio
    return out, min(clip.frames, frames)
