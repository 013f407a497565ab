"""An animation file of any format that `animation.formats` writes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from a2fjax import files, rig
from a2fjax.animation import formats
from a2fjax.live.session import Frame

_BLOCK = 1000  # Frames.


class File:
    """Writes the file when the stream ends: formats state how many frames they hold.

    Until then frames are in a temporary file, 52 MB an hour, so that memory does not grow.
    """

    lossless = True

    def __init__(self, target: str):
        """Checks the name.

        Raises:
          InputError: an unknown ending, or a folder that cannot be written.
        """
        formats.ending(target)
        self._path = target
        files.check_writable(Path(target))
        self._spool = tempfile.TemporaryFile()
        self._frames = 0

    def send(self, frame: Frame) -> None:
        """Keeps a frame."""
        self._spool.write(np.asarray(frame.motion, "<f4").tobytes())
        self._frames += 1

    def close(self) -> None:
        """Writes the file; without a frame there is none."""
        with self._spool as spool:
            if not self._frames:
                return
            spool.seek(0)
            with formats.writer(self._path, frames=self._frames) as out:
                while data := spool.read(_BLOCK * rig.NUM_CHANNELS * 4):
                    out.write(np.frombuffer(data, "<f4").reshape(-1, rig.NUM_CHANNELS))
