"""A procedural, parametric head: face skin with eyes, nose and lips, and a tongue.

Lengths are in centimetres, x to the person's left, y up, z out of the face. The skin starts as
points on a plane (x across, y up), in rings around the mouth and eyes and in a grid elsewhere.
The plane is wrapped onto an ellipsoid, and nose, lips, brows, cheeks and chin are raised from it.
Face parameters move points on the plane and change those heights, so they change proportions as
well as size. All heads have the same topology.

Expression shapes are in `data_pipeline.demo.expressions`.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy.spatial import Delaunay

from data_pipeline.demo.style import SHAPE

EYE = (3.1, 2.5)
MOUTH_Y = -4.6
_LIP_POINTS = 24
_LID_POINTS = 16
_ACROSS, _UP, _DEPTH = 7.6, 11.5, 9.0


@dataclasses.dataclass(frozen=True)
class Layout:
    """Positions of the skin's vertices on the plane, the same for every head.

    Attributes:
      plane: [V, 2] cm, with the mouth and eyes open, so that lips and lids do not coincide.
      part: [V] name of each vertex's region: "edge", "border" and "inner" of the lips,
        "around" the mouth, "lid", "crease" and "orbit" of the eyes, "tongue", "skull" or "face".
      angle: [V] angle on the lip and eye rings (0 on the person's left, pi / 2 up), 0 elsewhere.
      faces: [F, 3] int32.
    """

    plane: np.ndarray
    part: np.ndarray
    angle: np.ndarray
    faces: np.ndarray

    @property
    def opposite_lip(self) -> np.ndarray:
        """Index [V] of the vertex across the lips on the mouth's rings, or of itself elsewhere."""
        index = np.arange(len(self.plane))
        rings = index[: 5 * _LIP_POINTS].reshape(5, _LIP_POINTS)
        index[: 5 * _LIP_POINTS] = rings[:, -np.arange(_LIP_POINTS)].reshape(-1)
        return index

    def of(self, *parts: str) -> np.ndarray:
        """Returns which vertices [V] belong to one of the parts."""
        return np.isin(self.part, parts)


@functools.cache
def make_layout() -> Layout:
    """Returns the layout; about 480 vertices."""
    points: list[tuple[float, float]] = []
    parts: list[str] = []
    angles: list[float] = []

    def ring(centre, radii, count: int, part: str) -> None:  # noqa: ANN001
        for k in range(count):
            a = 2.0 * np.pi * k / count
            points.append((centre[0] + radii[0] * np.cos(a), centre[1] + radii[1] * np.sin(a)))
            parts.append(part)
            angles.append(a)

    for part, width, height in (
        ("inner", 2.25, 0.22), ("edge", 2.5, 0.45), ("border", 2.72, 0.95),
        ("around", 3.25, 1.55), ("around", 3.95, 2.25),
    ):  # fmt: skip
        ring((0.0, MOUTH_Y), (width, height), _LIP_POINTS, part)
    for side in (1.0, -1.0):
        for part, width, height in (("lid", 1.5, 0.55), ("crease", 1.8, 0.95),
                                    ("orbit", 2.25, 1.45)):  # fmt: skip
            for k in range(_LID_POINTS):
                a = 2.0 * np.pi * k / _LID_POINTS
                points.append((side * (EYE[0] + width * np.cos(a)), EYE[1] + height * np.sin(a)))
                parts.append(part)
                angles.append(a if side > 0 else (np.pi - a) % (2.0 * np.pi))
    taken = np.array(points)
    for y in np.arange(-9.0, 9.6, 0.92):
        for x in np.arange(0.0, 7.0, 0.92):
            if (x / 7.0) ** 2 + (y / 9.8) ** 2 > 1.0:
                continue
            if np.hypot(*(taken - (x, y)).T).min() < 0.62 or _in_opening(x, y):
                continue
            for s in (1.0, -1.0) if x else (1.0,):
                points.append((s * x, y))
                parts.append("face")
                angles.append(0.0)
    for k in range(28):
        a = 2.0 * np.pi * (k + 0.5) / 28
        points.append((11.5 * np.cos(a), 1.0 + 11.6 * np.sin(a)))
        parts.append("skull")
        angles.append(0.0)
    plane = np.array(points)
    triangles = Delaunay(plane).simplices
    middle = plane[triangles].mean(axis=1)
    inside = np.array([_in_opening(x, y) for x, y in middle])
    # The skin has holes at the mouth cavity and the eyes.
    faces = triangles[~inside]
    corners = plane[faces]
    one, two = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    clockwise = one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0] < 0
    faces[clockwise] = faces[clockwise][:, ::-1]
    # The tip of the tongue lies behind the lips, as a separate patch.
    base = len(plane)
    patch = [(x, MOUTH_Y - 0.02 * r) for r in range(3) for x in (-0.8, 0.0, 0.8)]
    grid = np.arange(9).reshape(3, 3) + base
    quads = [(grid[i, j], grid[i, j + 1], grid[i + 1, j + 1], grid[i + 1, j])
             for i in range(2) for j in range(2)]  # fmt: skip
    extra = [t for a, b, c, d in quads for t in ((a, c, b), (a, d, c))]
    return Layout(
        np.concatenate([plane, np.array(patch)]),
        np.array(parts + ["tongue"] * 9),
        np.array(angles + [0.0] * 9),
        np.concatenate([faces, np.array(extra)]).astype(np.int32),
    )


def _in_opening(x: float, y: float) -> bool:
    mouth = (x / 2.2) ** 2 + ((y - MOUTH_Y) / 0.2) ** 2 < 1.0
    eye = ((abs(x) - EYE[0]) / 1.48) ** 2 + ((y - EYE[1]) / 0.53) ** 2 < 1.0
    return bool(mouth or eye)


def bump(x: np.ndarray, y: np.ndarray, centre: tuple[float, float], size: tuple[float, float]):
    """Returns a Gaussian hill [V] of height one with standard deviations `size` (x, y)."""
    return np.exp(-0.5 * (((x - centre[0]) / size[0]) ** 2 + ((y - centre[1]) / size[1]) ** 2))


@dataclasses.dataclass(frozen=True)
class Head:
    """A person's neutral head.

    Attributes:
      shape: [8] parameters, see `style.SHAPE`.
      flat: [V, 2] vertices on the plane with the lips closed, where expressions are defined.
      vertices: [V, 3] cm.
      faces: [F, 3] int32.
      corner: (x, y) on the plane of the left and the right corner of the mouth, [2, 2].
      lip: height of the red of one lip in cm.
      brow: y of the brows on the plane.
      tongue: [76, 3] vertices of the tongue; the last 12 are a rigid dental arch.
      tongue_faces: [F, 3] int32.
    """

    shape: np.ndarray
    flat: np.ndarray
    vertices: np.ndarray
    faces: np.ndarray
    corner: np.ndarray
    lip: float
    brow: float
    tongue: np.ndarray
    tongue_faces: np.ndarray


def make_head(shape: np.ndarray) -> Head:
    """Returns the head for face parameters [8], each in [-1, 1], in the order of `SHAPE`."""
    p = dict(zip(SHAPE, np.asarray(shape, float), strict=True))
    where = make_layout()
    lip = 0.62 * (1.0 + 0.55 * p["lipThickness"])
    plane = _close_lips(where, lip)
    x, y = plane.T.copy()
    mouth = bump(x, y, (0.0, MOUTH_Y), (3.0, 2.0))
    x = x * (1.0 + 0.30 * p["mouthWidth"] * mouth)
    below = np.maximum(-(y + 2.6), 0.0)
    y = y - 0.20 * p["jawLength"] * below**2 / (below + 1.0)
    # Asymmetry: shifts mouth and chin to one side and slants the mouth.
    lower = 1.0 / (1.0 + np.exp((y + 2.6) / 0.8))
    x = x + 0.75 * p["asymmetry"] * lower * bump(x, y, (0.0, -6.5), (4.0, 4.5))
    y = y + 0.16 * p["asymmetry"] * x * bump(x, y, (0.0, MOUTH_Y), (3.4, 2.2))
    x = x * (1.0 + 0.11 * p["faceWidth"])
    brow = 4.7 + 0.55 * p["browHeight"]
    y = y + 0.55 * p["browHeight"] * bump(np.abs(x), y, (2.6, 4.7), (3.0, 1.1))
    flat = np.stack([x, y], axis=1)
    vertices = _raise(where, flat, p, lip, brow)
    edge = where.of("edge")
    left = flat[edge & (where.angle == 0.0)][0]
    right = flat[edge & np.isclose(where.angle, np.pi)][0]
    tongue, tongue_faces = _tongue(p, left[0] - right[0])
    return Head(
        np.asarray(shape, float), flat, vertices, where.faces, np.stack([left, right]), lip, brow,
        tongue, tongue_faces,
    )  # fmt: skip


def _close_lips(where: Layout, lip: float) -> np.ndarray:
    """Returns the plane [V, 2] with the lips closed and `lip` cm of red on each."""
    plane = where.plane.copy()
    away = np.sin(where.angle)
    for part, height in (("edge", 0.0), ("inner", 0.12), ("border", lip)):
        of = where.of(part)
        # Leave a tiny gap, so that vertices of the two lips do not coincide exactly.
        plane[of, 1] = MOUTH_Y + (height + 0.01) * away[of]
    around = where.of("around")
    plane[around, 1] += (lip - 0.62) * 0.5 * away[around]
    return plane


def _raise(
    where: Layout, flat: np.ndarray, p: dict[str, float], lip: float, brow: float
) -> np.ndarray:
    """Returns the vertices [V, 3] of a plane wrapped onto the skull, with the features raised."""
    x, y = flat.T
    azimuth, elevation = x / _ACROSS, y / _UP
    out = np.stack(
        [
            _ACROSS * np.sin(azimuth) * np.cos(0.55 * elevation),
            _UP * np.sin(elevation),
            _DEPTH * np.cos(azimuth) * np.cos(elevation),
        ],
        axis=1,
    )
    nose = 1.0 + 0.38 * p["noseSize"]
    height = 1.9 * nose * bump(x, y, (0.0, -1.3), (0.75 * nose**0.5, 0.95))
    height += 1.0 * nose * bump(x, y, (0.0, 1.0), (0.55, 1.6))
    side = np.abs(x)
    height += 0.55 * nose * bump(side, y, (1.0 * nose**0.5, -1.7), (0.45, 0.45))
    height += 0.45 * bump(side, y, (2.8, brow), (1.9, 0.6))
    height -= 0.75 * bump(side, y, EYE, (1.4, 0.9))
    height += (0.35 + 0.85 * p["cheekFullness"]) * bump(side, y, (4.3, -1.8), (1.7, 2.2))
    chin = -8.0 - 0.8 * p["jawLength"]
    height += (0.75 + 0.35 * p["jawLength"]) * bump(x, y, (0.75 * p["asymmetry"], chin), (1.7, 1.1))
    height += (0.5 + 0.6 * p["lipThickness"]) * bump(x, y, (0.0, MOUTH_Y), (2.4, 1.5))
    out[:, 2] += height
    full = 0.30 + 0.45 * lip
    centre = np.cos(where.angle) ** 2
    out[where.of("border"), 2] += full * (1.0 - 0.7 * centre[where.of("border")])
    out[where.of("edge"), 2] += 0.75 * full * (1.0 - 0.9 * centre[where.of("edge")])
    out[where.of("inner"), 2] -= 0.45
    row = np.arange(9) // 3
    out[where.of("tongue"), 1] += 0.18 * row - 0.2
    out[where.of("tongue"), 2] -= 1.1 + 0.4 * row
    # The skull behind the face is wrapped further around and outwards.
    out[where.of("skull"), 2] -= 1.5
    return out


def _tongue(p: dict[str, float], width: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tongue's vertices [76, 3] and faces: 8 sections of 8, then a rigid arch."""
    s = np.linspace(0.0, 1.0, 8)[:, None]
    a = (2.0 * np.pi * np.arange(8) / 8)[None]
    half = 0.36 * width * (1.0 - 0.55 * s**3)
    thick = 0.85 * (1.0 - 0.65 * s**2)
    x = half * np.cos(a)
    y = -4.9 + 0.9 * np.sin(np.pi * np.minimum(s * 0.9 + 0.1, 1.0)) + thick * np.sin(a)
    z = 2.6 + (4.6 + 0.3 * p["jawLength"]) * s + 0.0 * a
    body = np.stack(np.broadcast_arrays(x, y, z), axis=-1).reshape(-1, 3)
    t = np.linspace(-1.0, 1.0, 12)
    # Teeth have alternating heights, because points in one plane determine a rotation poorly.
    height = -5.9 + 0.12 * (-1.0) ** np.arange(12)
    arch = np.stack([0.55 * width * np.sin(1.4 * t), height, 4.2 + 3.6 * np.cos(1.4 * t)], axis=1)
    grid = np.arange(64).reshape(8, 8)
    faces = []
    for i in range(7):
        for j in range(8):
            a0, a1 = grid[i, j], grid[i, (j + 1) % 8]
            b0, b1 = grid[i + 1, j], grid[i + 1, (j + 1) % 8]
            faces += [(a0, a1, b1), (a0, b1, b0)]
    faces += [(64 + i, 64 + i + 1, 64 + i + 2) for i in range(10)]
    return np.concatenate([body, arch]), np.array(faces, np.int32)


TONGUE_RIGID = tuple(range(64, 76))
"""Vertices of the tongue mesh that only move with the jaw: the lower dental arch."""
