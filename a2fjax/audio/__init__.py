"""Waveform to features: 16 kHz mono in, 50 feature frames a second out.

Frame t of every feature is centred on sample 320 * t, the instant t / 50 s of motion frame t, and
sees the clip as if it were surrounded by digital silence. A clip of S samples has
`num_frames(S)` frames.
"""

from a2fjax import rig

SAMPLE_RATE = 16_000
"""Samples a second of all audio behind `audio.io`."""

HOP = SAMPLE_RATE // rig.FPS
"""Samples from one frame to the next."""


def num_frames(samples: int) -> int:
    """Returns how many frames cover that many samples: those with `t / 50 < duration`."""
    return -(-samples // HOP)
