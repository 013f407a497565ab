"""Layout of an output frame of the networks: skin, tongue, jaw and eyes, in NVIDIA's order."""

from __future__ import annotations

import dataclasses

from a2fjax import rig
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class FrameLayout:
    """Widths of the four parts of an output frame, in this order.

    Skin and tongue are PCA coefficients in the regression network and vertex coordinates, three
    each, in the diffusion network. The jaw consists of five 3-D key points (15 values), the eyes of
    two angles each (4 values). A part of width 0 is omitted together with its layers.

    Example:
        >>> FrameLayout(skin=52, tongue=16, jaw=0, eyes=4).parts["eyes"]
        slice(68, 72, None)

    Attributes:
      skin: number of PCA coefficients, vertex coordinates or blendshape weights.
      tongue: the same for the tongue.
      jaw: number of key point coordinates.
      eyes: number of angles.
    """

    skin: int
    tongue: int
    jaw: int
    eyes: int

    def __post_init__(self) -> None:
        """Checks the widths.

        Raises:
          InputError: a width is negative, or there is no skin.
        """
        for part in dataclasses.fields(self):
            if getattr(self, part.name) < 0:
                raise InputError(f"{part.name}={getattr(self, part.name)}: expected 0 or more")
        if not self.skin:
            raise InputError("skin=0: expected at least one number of skin")

    @property
    def width(self) -> int:
        """Number of values per frame."""
        return self.skin + self.tongue + self.jaw + self.eyes

    @property
    def parts(self) -> dict[str, slice]:
        """Columns of each part in a frame, without parts of width 0."""
        out, start = {}, 0
        for part in dataclasses.fields(self):
            width = getattr(self, part.name)
            if width:
                out[part.name] = slice(start, start + width)
            start += width
        return out


RIG = FrameLayout(skin=len(rig.ARKIT), tongue=len(rig.TONGUE), jaw=0, eyes=len(rig.EYE_ANGLES))
"""Layout of the rig's 72 channels: 52 skin weights, 16 tongue weights, 4 eye angles.

It is an assumption [?]: NVIDIA's networks output geometry, from which a solver computes weights.
"""
