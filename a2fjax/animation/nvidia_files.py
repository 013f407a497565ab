"""Files of NVIDIA's Audio2Face: the CSV of the NIM's sample client, and Omniverse's JSON.

The client of the Audio2Face-3D NIM (NVIDIA/Audio2Face-3D-Samples) writes `animation_frames.csv`:

    timeCode,blendShapes.EyeBlinkLeft, ... ,blendShapes.TongueNarrow
    0.0,0.0123, ...

with time codes in seconds. Audio2Face of Omniverse exports blendshape weights as one object:

    {"exportFps": 60.0, "trackPath": "in.wav", "numPoses": 68, "numFrames": 2,
     "facsNames": ["eyeBlinkLeft", ...], "weightMat": [[...], [...]]}

Both are read like any other file of named curves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from a2fjax import rig
from a2fjax.animation import mouth_close, named_curves

if TYPE_CHECKING:
    from a2fjax.animation.formats import Header


class NimFormat(named_curves.ChannelsFormat):
    """Writes the CSV of the NIM's client; the companion holds the eye angles.

    Nothing in the file says which mouthClose it holds: it is ARKit's.
    """

    takes = ()
    order = "nvidia68"
    companion = (".eyes.channels.csv", tuple(rig.EYE_ANGLES))
    _time, _time_decimals, _prefix = "timeCode", 9, "blendShapes."


class OmniverseFormat(named_curves.JsonRows):
    """Writes Omniverse's JSON frame by frame; weights only, unless another order is asked for."""

    order = "rig68"
    takes = named_curves.NAMED
    read = staticmethod(named_curves.read)

    def __init__(self, path: Path, header: Header):
        """Writes everything before the frames."""
        head = {
            "exportFps": float(header.fps),
            "fps_exact": str(header.fps),
            "trackPath": header.metadata.get("audio", ""),
            "numPoses": len(header.columns.names),
            "numFrames": header.frames,
            mouth_close.KEY: header.columns.mouth_close,
            "facsNames": list(header.columns.names),
        }
        super().__init__(path, header.columns, head, "weightMat")
