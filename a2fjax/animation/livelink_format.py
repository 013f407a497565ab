"""Live Link Face CSV as an animation format; `livelink` documents the files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from a2fjax import rig
from a2fjax.animation import livelink, named_curves

if TYPE_CHECKING:
    from a2fjax.animation.formats import Header


class LiveLinkFormat:
    """Writes motion block by block as a Live Link Face CSV.

    Its 61 columns are fixed. They have no place for the shapes of the tongue beyond tongueOut; the
    companion holds these, and the eye angles in degrees, which the file has in radians.
    """

    companion = (".tongue_eyes.channels.csv", (*rig.TONGUE, *rig.EYE_ANGLES))
    read = staticmethod(named_curves.read)

    def __init__(self, path: Path, header: Header):
        """Writes the header line.

        Raises:
          InputError: the header's start is not a valid timecode at its frame rate.
        """
        self._counter = livelink.TimecodeCounter(header.fps, header.start)
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._file.write(",".join(livelink.HEADER) + "\n")

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        values = livelink.LAYOUT.from_rig(motion)
        for code, row in zip(self._counter.timecodes(len(values)), values, strict=True):
            self._file.write(livelink.format_row(code, row) + "\n")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    abandon = close
