"""The two conventions of mouthClose, converted by values.

ARKit's mouthClose is relative to an open jaw: lips that meet have mouthClose = jawOpen. NVIDIA's
shape includes jawOpen: lips that meet have jawOpen 0, and the jaw is open by jawOpen + mouthClose.
With C and J the shapes of ARKit's mouthClose and of jawOpen, NVIDIA's shape is C + J, so that

    j J + c C  =  (j - c) J + c (C + J)

The rig follows ARKit.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError, nearest

CONVENTIONS = ("arkit", "nvidia")

KEY = "mouth_close_convention"
"""Key under which files state the convention."""

_JAW, _CLOSE = rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]


def check(convention: str, where: str) -> None:
    """Checks the name of a convention.

    Raises:
      InputError: neither "arkit" nor "nvidia"; names the nearest after `where`.
    """
    if convention not in CONVENTIONS:
        raise InputError(f"{where}={str(convention)!r}{nearest(str(convention), CONVENTIONS)}")


def from_rig(motion: np.ndarray, convention: str) -> np.ndarray:
    """Returns motion [..., 72] of the rig in a convention.

    Weights stay in [0, 1]: where mouthClose exceeds jawOpen, which would press closed lips into
    each other, NVIDIA's form has lips that meet.

    Example:
        >>> motion = np.zeros((1, 72))
        >>> motion[0, [_JAW, _CLOSE]] = 0.5, 0.25
        >>> from_rig(motion, "nvidia")[0, [_JAW, _CLOSE]].tolist()
        [0.25, 0.25]
    """
    if convention == "arkit":
        return motion
    out = np.array(motion)
    out[..., _CLOSE] = np.minimum(motion[..., _CLOSE], motion[..., _JAW])
    out[..., _JAW] = motion[..., _JAW] - out[..., _CLOSE]
    return out


def to_rig(motion: np.ndarray, convention: str) -> np.ndarray:
    """Returns motion [..., 72] of a convention in the rig's.

    Example:
        >>> motion = np.zeros((1, 72))
        >>> motion[0, _CLOSE] = 0.5  # NVIDIA: lips meet, jaw 0.5 open
        >>> to_rig(motion, "nvidia")[0, [_JAW, _CLOSE]].tolist()
        [0.5, 0.5]
    """
    if convention == "arkit":
        return motion
    out = np.array(motion)
    out[..., _JAW] += motion[..., _CLOSE]
    return out


def shapes_in(shapes: np.ndarray, convention: str) -> np.ndarray:
    """Returns the displacements [72, V, 3] of a head of the rig for weights of a convention."""
    if convention == "arkit":
        return shapes
    out = np.array(shapes)
    out[_CLOSE] += shapes[_JAW]
    return out
