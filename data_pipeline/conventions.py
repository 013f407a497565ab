"""Units and axes of a capture: read from words, or found from a mesh of the same topology.

A point p of a capture's files is `MILLIMETRES[unit] * axes @ p` in the rig's axes: x to the
person's left, y up, z out of the face, in mm.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from a2fjax.errors import InputError

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in a unit."""

LEAST_MARGIN = 1.3
"""The second best choice must fit worse than the best by this factor."""

MOST_RESIDUAL = 0.25
"""Of the spread of the vertices about their mean: two heads of one topology differ by less."""


@dataclasses.dataclass(frozen=True)
class Convention:
    """How a capture's files write points.

    Attributes:
      units: "mm", "cm" or "m".
      axes: [3, 3] signed permutation to the rig's axes.
      residual_mm: root mean square distance to the template after a rigid motion.
      margin: residual of the second best axes over the best's; 1 is a draw.
      size: of the head relative to the template's.
    """

    units: str
    axes: np.ndarray
    residual_mm: float
    margin: float
    size: float

    @property
    def matrix(self) -> np.ndarray:
        """[3, 3]: a point p of the files is `matrix @ p` in mm."""
        return MILLIMETRES[self.units] * self.axes


def signed_permutations() -> np.ndarray:
    """Returns all 48 signed permutation matrices [48, 3, 3], the identity first."""
    signs = list(itertools.product((1.0, -1.0), repeat=3))
    return np.array(
        [np.diag(s) @ np.eye(3)[list(p)] for p in itertools.permutations(range(3)) for s in signs]
    )


def parse_axes(text: str) -> np.ndarray:
    """Returns the signed permutation [3, 3] of axes in words.

    Args:
      text: three signed letters, the capture's axes that point to the person's left, up and out
        of the face: "+x+y+z" is the rig's own, "+x+z-y" a capture with z up that looks along -y.

    Raises:
      InputError: not three signed letters, or a letter twice.
    """
    word = text.strip().lower()
    letters, signs = word[1::2], word[0::2]
    if len(word) != 6 or sorted(letters) != ["x", "y", "z"] or not set(signs) <= {"+", "-"}:
        raise InputError(
            f"--config.axes={text!r}: expected auto, or the capture's axes to the person's left, "
            "up and out of the face, such as +x+y+z or +x+z-y"
        )
    matrix = np.zeros((3, 3))
    for row, (sign, letter) in enumerate(zip(signs, letters, strict=True)):
        matrix[row, "xyz".index(letter)] = 1.0 if sign == "+" else -1.0
    return matrix


def axes_name(axes: np.ndarray) -> str:
    """Returns a signed permutation [3, 3] in words; see `parse_axes`."""
    columns = np.abs(axes).argmax(axis=1)
    return "".join(("+" if axes[row, c] > 0 else "-") + "xyz"[c] for row, c in enumerate(columns))


def units_of(neutral: np.ndarray) -> str:
    """Returns the unit in which a head's or face's mesh [V, 3] measures 0.1 to 0.6 m across."""
    size = float(np.linalg.norm(np.ptp(neutral, axis=0)))
    return "m" if size < 2.0 else "cm" if size < 80.0 else "mm"
