"""Units and axes of a capture: parsed from text, or estimated from a mesh of the same topology.

A point p of a capture's files is `MILLIMETRES[unit] * axes @ p` in the rig's axes: x to the
person's left, y up, z out of the face, in mm.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError, nearest

MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
"""Millimetres in a unit."""

MIN_MARGIN = 1.25
"""The second best choice must fit worse than the best by this factor."""

MAX_RESIDUAL = 0.25
"""Share of the template's radius: heads of one topology differ by 0.05, shuffled vertices by 1."""

SIZES = (0.55, 1.8)
"""Accepted head sizes relative to the template; a wrong unit gives a factor of 10 or 100."""


@dataclasses.dataclass(frozen=True)
class Convention:
    """Units and axes of a capture's files, and the pose of the head in them.

    Attributes:
      units: "mm", "cm" or "m".
      axes: [3, 3] signed permutation to the rig's axes.
      rotation: [3, 3] and
      shift: [3] mm: rest of the head's pose; `rotation @ matrix @ p + shift` is the best rigid
        alignment to the template.
      residual: root mean square distance after the best similarity, as a share of the template's
        radius.
      margin: residual of the second-best choice divided by the best one's; 1 is a tie.
      size: size of the head relative to the template's.
    """

    units: str
    axes: np.ndarray
    rotation: np.ndarray
    shift: np.ndarray
    residual: float
    margin: float
    size: float

    @property
    def matrix(self) -> np.ndarray:
        """Matrix [3, 3] that converts a point p of the files to mm: `matrix @ p`."""
        return MILLIMETRES[self.units] * self.axes

    def aligned(self, points: np.ndarray) -> np.ndarray:
        """Returns points [..., 3] of the files aligned to the template, in mm."""
        return points @ (self.rotation @ self.matrix).T + self.shift


def signed_permutations() -> np.ndarray:
    """Returns all 48 signed permutation matrices [48, 3, 3], the identity first."""
    signs = list(itertools.product((1.0, -1.0), repeat=3))
    return np.array(
        [np.diag(s) @ np.eye(3)[list(p)] for p in itertools.permutations(range(3)) for s in signs]
    )


def parse_axes(text: str) -> np.ndarray:
    """Returns the signed permutation [3, 3] for axes given as text.

    Args:
      text: three signed letters, the capture's axes that point to the person's left, up and out
        of the face: "+x+y+z" for the rig's axes, "+x+z-y" for a capture with z up that looks
        along -y.

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
    """Returns a signed permutation [3, 3] as text; see `parse_axes`.

    Example:
        >>> axes_name(parse_axes("+x+z-y"))
        '+x+z-y'
    """
    columns = np.abs(axes).argmax(axis=1)
    return "".join(("+" if axes[row, c] > 0 else "-") + "xyz"[c] for row, c in enumerate(columns))


def guess_units(neutral: np.ndarray) -> str:
    """Returns the unit in which the mesh [V, 3] of a head or face is 0.1 to 0.6 m across."""
    size = float(np.linalg.norm(np.ptp(neutral, axis=0)))
    return "m" if size < 2.0 else "cm" if size < 80.0 else "mm"


def find_convention(
    neutral: np.ndarray,
    template: np.ndarray,
    *,
    units: str = "auto",
    axes: str = "auto",
    least_margin: float = MIN_MARGIN,
    name: str = "neutral",
) -> Convention:
    """Returns the units and axes that best align a mesh with a template of the same topology.

    Tries all 48 signed permutations and three units, except where they are given. The head may be
    rotated in the capture by less than about 35 degrees; beyond that its axes are ambiguous.

    Args:
      neutral: [V, 3] in the capture's units and axes; non-finite vertices are ignored.
      template: [V, 3] in mm, in the rig's axes.
      units: "mm", "cm", "m", or "auto".
      axes: see `parse_axes`, or "auto".
      least_margin: smallest margin of the best axes over the next that is not ambiguous.
      name: name for messages.

    Raises:
      InputError: another number of vertices, meshes that are not alike, or choices that fit about
        equally well.
    """
    if neutral.shape != template.shape:
        raise InputError(
            f"{name}: {len(neutral)} vertices, the template rig has {len(template)}: it needs the "
            "same topology"
        )
    if units != "auto" and units not in MILLIMETRES:
        raise InputError(f"--config.units={units!r}{nearest(units, ('auto', *MILLIMETRES))}")
    there = np.isfinite(neutral).all(axis=1)
    if there.sum() < 4:
        raise InputError(f"{name}: only {there.sum()} vertices are finite")
    points = np.asarray(neutral, np.float64)[there]
    goal = template[there] - template[there].mean(axis=0)
    middle = points.mean(axis=0)
    points = points - middle
    radius = np.sqrt((goal**2).sum(axis=1).mean())
    spread = np.sqrt((points**2).sum(axis=1).mean())
    if not spread > 0 or not radius > 0:
        raise InputError(f"{name}: all vertices lie in one place")
    choices = signed_permutations() if axes == "auto" else parse_axes(axes)[None]
    # The fit of every choice depends only on these mean products of coordinates.
    product = points.T @ goal / (len(goal) * spread * radius)
    likeness = np.einsum("cij,ji->c", choices, product)
    order = np.argsort(-likeness, kind="stable")
    best = choices[order[0]]
    rotation, fit = _rotation(best @ product)
    residual = float(np.sqrt(max(0.0, 1.0 - fit**2)))
    if residual > MAX_RESIDUAL:
        asked = "" if axes == "auto" else f" with axes {axes}"
        raise InputError(
            f"{name}: not the template rig's head{asked}: after the best similarity vertices are "
            f"{100 * residual:.0f} % of its radius away, expected at most "
            f"{100 * MAX_RESIDUAL:.0f} % (another order of vertices?)"
        )
    distance = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * likeness[order]))
    margin = float(distance[1] / max(distance[0], 1e-6)) if len(choices) > 1 else np.inf
    if margin < least_margin:
        first, second = (axes_name(choices[i]) for i in order[:2])
        raise InputError(
            f"{name}: axes {first} and {second} are about as likely (margin {margin:.2f}, expected "
            f"{least_margin}): give --config.axes"
        )
    size = spread / radius
    tried = MILLIMETRES if units == "auto" else {units: MILLIMETRES[units]}
    unit = min(tried, key=lambda u: abs(np.log(size * tried[u])))
    size = float(size * tried[unit])
    if not SIZES[0] <= size <= SIZES[1]:
        raise InputError(
            f"{name}: in {unit} the head is {size:.3g} times as large as the template's, expected "
            f"{SIZES[0]} to {SIZES[1]}; expected vertices in mm, cm or m"
        )
    shift = template[there].mean(axis=0) - rotation @ (tried[unit] * best @ middle)
    return Convention(unit, best, rotation, shift, residual, margin, size)


def _rotation(product: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the rotation that aligns a with b for the mean product a b' [3, 3], and its fit."""
    u, values, vt = np.linalg.svd(product)
    if np.linalg.det(u @ vt) < 0:
        vt[2] *= -1.0
        values[2] *= -1.0
    return (u @ vt).T, float(values.sum())


_FORWARD = ("jawForward", "mouthFunnel", "mouthPucker", "tongueOut")
_SIDEWAYS = ("jaw", "mouthLeft", "mouthRight")  # directions, not sides of the face


def axes_from_shapes(
    neutral: np.ndarray, channels: Sequence[str], deltas: np.ndarray
) -> np.ndarray | None:
    """Returns the axes [3, 3] implied by named shapes, or None if they are unclear.

    Left-side shapes move vertices to the left of those of their partners, brows lie above the
    mouth, and jawForward, mouthFunnel, mouthPucker and tongueOut point out of the face.

    Args:
      neutral: [V, 3] in any unit and axes.
      channels: [K] names in `rig.CHANNELS`.
      deltas: [K, V, 3].
    """
    weights = np.square(deltas).sum(axis=2)
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1e-30)
    centre = dict(zip(channels, (weights / total) @ neutral, strict=True))
    pairs = [
        centre[a] - centre[b]
        for a, b in rig.MIRROR_PAIRS
        if a in centre and b in centre and not a.startswith(_SIDEWAYS)
    ]
    brows = [c for n, c in centre.items() if n.startswith("brow")]
    mouth = [c for n, c in centre.items() if n.startswith("mouth")]
    forward = [
        (weights[i] @ deltas[i]) / total[i, 0]
        for i, n in enumerate(channels)
        if n in _FORWARD and weights[i].any()
    ]
    if len(pairs) < 3 or not brows or not mouth or not forward:
        return None
    directions = np.stack(
        [np.mean(pairs, axis=0), np.mean(brows, axis=0) - np.mean(mouth, axis=0),
         np.mean(forward, axis=0)]
    )  # fmt: skip
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-30)
    columns = np.abs(directions).argmax(axis=1)
    picked = directions[range(3), columns]
    agree = np.mean(np.sign(np.array(pairs)[:, columns[0]]) == np.sign(picked[0]))
    if len(set(columns.tolist())) < 3 or np.abs(picked).min() < 0.75 or agree < 0.9:
        return None
    axes = np.zeros((3, 3))
    axes[range(3), columns] = np.sign(picked)
    return axes
