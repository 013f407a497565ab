"""Waveform to features: 16 kHz mono in, 50 feature frames per second out.

Frame t of every feature is centred on sample 320 * t, the time t / 50 s of motion frame t. Outside
the clip there is digital silence. A clip of S samples has `num_frames(S)` frames.
"""

from a2fjax import rig

SAMPLE_RATE = 16_000
"""Samples per second of all audio that `audio.io` returns."""

HOP = SAMPLE_RATE // rig.FPS
"""Samples between neighbouring frames."""


def num_frames(samples: int) -> int:
    """Returns the number of frames that cover the samples: those with `t / 50 < duration`.

    Example:
        >>> num_frames(16_000), num_frames(16_001)
        (50, 51)
    """
    return -(-samples // HOP)
