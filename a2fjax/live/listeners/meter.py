"""A line in the terminal: jaw, lips, lids and loudness."""

from __future__ import annotations

import sys

import numpy as np

from a2fjax import rig
from a2fjax.live.session import Frame

_EVERY = 5  # Frames: 10 lines a second.
_BARS = " .:-=+*#%@"


class Meter:
    """Prints the latest frame over the one before, on standard error."""

    def __init__(self, target: str = ""):
        """Needs no target."""

    def send(self, frame: Frame) -> None:
        """Shows every fifth frame."""
        if frame.number % _EVERY == 0:
            print(f"\r{line(frame)}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line."""
        print(file=sys.stderr)


def line(frame: Frame) -> str:
    """Returns a frame as a line of 60 characters.

    Example:
        >>> line(Frame(50, np.zeros(72), np.zeros(3), np.zeros(320), False))
        '    1.00 s   jaw       lips       lids        -100 dB silent'
    """
    motion = frame.motion
    level = 10 * np.log10(float(np.mean(np.square(frame.audio))) + 1e-10)
    shown = {
        "jaw": motion[rig.INDEX["jawOpen"]],
        "lips": float(rig.aperture(motion)),
        "lids": motion[rig.INDEX["eyeBlinkLeft"]],
    }
    bars = " ".join(f"{name} {_bar(float(value))}" for name, value in shown.items())
    return (
        f"{frame.seconds:8.2f} s   {bars} {level:5.0f} dB {'voice ' if frame.speaks else 'silent'}"
    )


def _bar(value: float) -> str:
    filled = min(1.0, max(0.0, value)) * 5
    return "".join(_BARS[int(min(1.0, max(0.0, filled - i)) * 9)] for i in range(5))
