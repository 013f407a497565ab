"""The 52 ARKit shapes and 16 tongue shapes of a `head.Head`, as vertex displacements.

Each is a smooth local field placed at the head's landmarks (corners of the mouth, lids, brows),
following the descriptions in Apple's ARKit documentation (`ARFaceAnchor.BlendShapeLocation`).
Right-side shapes mirror those of the left side. Opposite pairs (jawLeft and jawRight) are not
exact negatives, because the solved weights would then not be unique.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from data_pipeline.demo.head import EYE, MOUTH_Y, Head, bump, make_layout

JAW_ANGLE = 17.0
"""Degrees by which the jaw turns at jawOpen = 1."""
JAW_HINGE = np.array([0.0, -0.5, 0.5])
"""A point on the axis (along x) about which the jaw turns."""

_SIDES = (("Left", 1.0), ("Right", -1.0))


def rotate_x(points: np.ndarray, degrees: float | np.ndarray, pivot: np.ndarray) -> np.ndarray:
    """Returns points [..., 3] turned about the x axis through a pivot; positive turns z down."""
    a = np.radians(degrees)
    d = points - pivot
    y = np.cos(a) * d[..., 1] - np.sin(a) * d[..., 2]
    z = np.sin(a) * d[..., 1] + np.cos(a) * d[..., 2]
    return pivot + np.stack([d[..., 0], y, z], axis=-1)


def _vectors(weight: np.ndarray, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return weight[:, None] * np.array([x, y, z])


def skin_shapes(face: Head) -> np.ndarray:
    """Returns the displacements [52, V, 3] in cm at weight one, in the order of `rig.ARKIT`."""
    shapes = {name: np.zeros_like(face.vertices) for name in rig.ARKIT}
    _jaw_and_lips(face, shapes)
    _corners(face, shapes)
    _eyes(face, shapes)
    _brows_cheeks_nose(face, shapes)
    where = make_layout()
    still = where.of("skull")
    for name, delta in shapes.items():
        delta[still] = 0.0
        if not name.startswith(("jaw", "tongue")):
            delta[where.of("tongue")] = 0.0
    return np.stack([shapes[name] for name in rig.ARKIT])


class _Lips:
    """Fields around the mouth on the plane.

    `u` runs from -1 at the right corner to 1 at the left corner; `v` is the height in cm above the
    line of the mouth.
    """

    def __init__(self, face: Head) -> None:
        where = make_layout()
        x, y = face.flat.T
        left, right = face.corner
        self.centre = 0.5 * (left + right)
        self.half = 0.5 * (left[0] - right[0])
        self.u = (x - self.centre[0]) / self.half
        slope = (left[1] - right[1]) / (left[0] - right[0])
        self.v = y - self.centre[1] - slope * (x - self.centre[0])
        ring = where.of("edge", "border", "inner", "around")
        above = np.sin(where.angle)
        # 1 for vertices of the upper lip, 0 for the lower lip; corners are in between.
        soft = 1.0 / (1.0 + np.exp(-self.v / 0.3))
        self.upper = np.where(ring, 0.5 + 0.5 * np.clip(2.2 * above, -1.0, 1.0), soft)
        self.lower = 1.0 - self.upper
        self.near = np.exp(-0.5 * ((self.u / 0.95) ** 4 + (self.v / (1.5 + face.lip)) ** 2))
        self.red = where.of("edge", "border", "inner") * 1.0
        self.edge = where.of("edge") * 1.0 + where.of("inner") * 0.9 + where.of("border") * 0.35


def _jaw_and_lips(face: Head, shapes: dict[str, np.ndarray]) -> None:
    where, lips = make_layout(), _Lips(face)
    x = face.flat[:, 0]
    outside = np.maximum(np.abs(lips.u) - 1.0, 0.0) * lips.half
    line = 0.55 * outside
    jaw = 1.0 / (1.0 + np.exp((lips.v - line) / (0.28 + 0.25 * outside)))
    ring = where.of("edge", "border", "inner", "around")
    jaw = np.where(ring, np.where(np.abs(lips.u) < 1.3, lips.lower**1.3, jaw), jaw)
    jaw *= np.exp(-0.5 * (np.maximum(np.abs(x) - 4.0, 0.0) / 1.6) ** 2)
    jaw[where.of("tongue")] = 1.0
    turned = rotate_x(face.vertices, JAW_ANGLE, JAW_HINGE) - face.vertices
    opening = jaw[:, None] * turned
    shapes["jawOpen"] += opening
    shapes["jawForward"] += _vectors(jaw, z=1.1, y=-0.1)
    for name, sign in _SIDES:
        tilt = jaw * np.clip(sign * lips.u, -1.5, 1.5)
        shapes["jaw" + name] += _vectors(jaw, x=sign * 1.0, y=-0.38) + _vectors(tilt, z=-0.35)
    # mouthClose brings the lips together on an open jaw. The lower lip moves most of the way and
    # the upper lip the rest, so that at jawOpen = mouthClose = 1 they meet as they do at rest.
    local = np.exp(-0.5 * (lips.v / 1.6) ** 2) * ring
    above, below = np.sin(where.angle) > 1e-6, np.sin(where.angle) < -1e-6
    gap = opening - opening[where.opposite_lip]
    shapes["mouthClose"] -= (local * (0.72 * below + 0.28 * above))[:, None] * gap
    inward = -np.clip(lips.u, -1.4, 1.4) * lips.near
    vertical = np.clip(lips.v / 0.6, -1.0, 1.0) * lips.near
    middle = lips.near * np.exp(-0.5 * (lips.u / 0.7) ** 2)
    shapes["mouthFunnel"] += _vectors(middle, z=1.0) + _vectors(inward, x=0.45)
    shapes["mouthFunnel"] += _vectors(middle * (lips.upper - lips.lower) * lips.edge, y=0.55)
    shapes["mouthPucker"] += _vectors(inward, x=1.15) + _vectors(lips.near, z=0.75)
    shapes["mouthPucker"] += _vectors(vertical, y=0.2)
    for name, sign in _SIDES:
        pull = np.exp(-0.5 * ((lips.u - 0.8 * sign) / 0.6) ** 2) * lips.near
        shapes["mouth" + name] += _vectors(lips.near, x=sign * 1.0) + _vectors(pull, z=-0.45, y=0.3)
    for name, of in (("Lower", lips.lower), ("Upper", lips.upper)):
        sign = 1.0 if name == "Lower" else -1.0
        roll = of * lips.red * np.clip(1.0 - lips.u**2, 0.0, 1.0)
        shapes["mouthRoll" + name] += _vectors(roll * (0.4 + lips.edge), z=-0.55)
        shapes["mouthRoll" + name] += _vectors(roll * (1.0 - lips.edge), y=sign * 0.75)
    chin = bump(lips.u * lips.half, lips.v, (0.0, -2.4), (1.7, 1.1))
    shapes["mouthShrugLower"] += _vectors(chin, y=0.75, z=0.35)
    shapes["mouthShrugLower"] += _vectors(lips.lower * lips.near, y=0.4, z=0.25)
    base = bump(lips.u * lips.half, lips.v, (0.0, 1.2), (1.4, 0.8))
    shapes["mouthShrugUpper"] += _vectors(lips.upper * lips.near, y=0.3, z=0.45)
    shapes["mouthShrugUpper"] += _vectors(base, y=0.3, z=0.4)
    for name, sign in _SIDES:
        side = np.exp(-0.5 * ((lips.u - 0.48 * sign) / 0.34) ** 2) * lips.near
        shapes["mouthLowerDown" + name] += _vectors(side * lips.lower, y=-0.85, z=0.12)
        shapes["mouthUpperUp" + name] += _vectors(side * lips.upper, y=0.80, z=0.15)
        squeeze = side * lips.red
        shapes["mouthPress" + name] += _vectors(squeeze * lips.upper, y=-0.35, z=-0.12)
        shapes["mouthPress" + name] += _vectors(squeeze * lips.lower, y=0.40, z=-0.12)
        hollow = np.exp(-0.5 * (((lips.u - 0.9 * sign) / 0.4) ** 2 + ((lips.v + 1.0) / 0.7) ** 2))
        shapes["mouthPress" + name] += _vectors(hollow, z=0.45)
    tip = where.of("tongue") * (1.0 - 0.25 * (np.cumsum(where.of("tongue")) - 1) // 3)
    shapes["tongueOut"] += _vectors(tip * 1.0, z=2.6, y=-0.35)


def _corners(face: Head, shapes: dict[str, np.ndarray]) -> None:
    x, y = face.flat.T
    for (name, sign), (cx, cy) in zip(_SIDES, face.corner, strict=True):
        inside = 1.0 / (1.0 + np.exp(-sign * (x - face.corner[:, 0].mean()) / 0.5))
        lip = bump(x, y, (cx, cy), (1.25, 1.15)) * inside
        cheek = bump(x, y, (cx + sign * 1.4, cy + 2.2), (1.3, 1.4))
        jowl = bump(x, y, (cx + sign * 0.9, cy - 2.3), (1.3, 1.2))
        crease = bump(x, y, (cx + sign * 0.7, cy), (0.65, 0.75)) * inside
        neck = bump(x, y, (cx + sign * 2.2, cy - 0.9), (1.7, 1.6))
        shapes["mouthSmile" + name] += _vectors(lip, sign * 0.75, 0.95, -0.25)
        shapes["mouthSmile" + name] += _vectors(cheek, sign * 0.15, 0.35, 0.4)
        shapes["mouthFrown" + name] += _vectors(lip, sign * 0.10, -0.85, -0.05)
        shapes["mouthFrown" + name] += _vectors(jowl, sign * 0.10, -0.45, 0.3)
        shapes["mouthDimple" + name] += _vectors(crease, sign * 0.45, 0.10, -0.95)
        shapes["mouthStretch" + name] += _vectors(lip, sign * 0.90, -0.30, -0.45)
        shapes["mouthStretch" + name] += _vectors(neck, sign * 0.55, -0.45, -0.1)


def _eyes(face: Head, shapes: dict[str, np.ndarray]) -> None:
    where = make_layout()
    x, y = face.flat.T
    eye = where.of("lid", "crease", "orbit")
    share = where.of("lid") * 1.0 + where.of("crease") * 0.55 + where.of("orbit") * 0.18
    above = np.sin(where.angle)
    for name, sign in _SIDES:
        this_eye = eye & (np.sign(where.plane[:, 0]) == sign)
        ring = share * this_eye
        upper, lower = ring * np.clip(above, 0.0, 1.0), ring * np.clip(-above, 0.0, 1.0)
        outer = ring * np.clip(sign * np.cos(where.angle), 0.0, 1.0)
        inner = ring * np.clip(-sign * np.cos(where.angle), 0.0, 1.0)
        folds = this_eye * where.of("crease")
        fold_up, fold_down = folds * np.clip(above, 0, 1), folds * np.clip(-above, 0, 1)
        shapes["eyeBlink" + name] += _vectors(upper, y=-1.00, z=0.15) + _vectors(lower, y=0.10)
        shapes["eyeBlink" + name] += _vectors(fold_up, y=-0.25, z=-0.45)
        under = bump(sign * x, y, (EYE[0], EYE[1] - 1.3), (1.6, 0.7))
        shapes["eyeSquint" + name] += _vectors(lower, y=0.55) + _vectors(upper, y=-0.18)
        shapes["eyeSquint" + name] += _vectors(under, y=0.40, z=0.18)
        lid = this_eye * where.of("lid") * np.clip(above, 0.0, 1.0)
        shapes["eyeWide" + name] += _vectors(lid, y=0.45, z=-0.45) + _vectors(lower, y=-0.14)
        shapes["eyeWide" + name] += _vectors(ring * np.clip(above, 0, 1) ** 3, y=0.25, z=-0.15)
        over = bump(sign * x, y, (EYE[0], EYE[1] + 1.4), (1.7, 0.6))
        shapes["eyeWide" + name] += _vectors(over, y=0.50)
        # The cornea bulges under the lids and moves their edges with it.
        shapes["eyeLookUp" + name] += _vectors(upper, y=0.42, z=0.20) + _vectors(lower, y=0.38)
        shapes["eyeLookUp" + name] += _vectors(fold_up, z=0.55)
        shapes["eyeLookDown" + name] += _vectors(lower, y=-0.36, z=0.24) + _vectors(
            upper, y=-0.50, z=-0.10
        )
        shapes["eyeLookDown" + name] += _vectors(fold_down, z=0.55)
        shapes["eyeLookOut" + name] += _vectors(outer, z=0.42, x=sign * 0.20) + _vectors(
            upper, x=sign * 0.32
        )
        shapes["eyeLookIn" + name] += _vectors(inner, z=0.42, x=-sign * 0.20) + _vectors(
            lower, x=-sign * 0.32
        )


def _brows_cheeks_nose(face: Head, shapes: dict[str, np.ndarray]) -> None:
    x, y = face.flat.T
    brow = face.brow
    inner = bump(np.abs(x), y, (0.9, brow + 0.1), (1.2, 1.1))
    shapes["browInnerUp"] += _vectors(inner, y=0.95, z=0.05)
    for name, sign in _SIDES:
        side = sign * x
        shapes["browDown" + name] += _vectors(
            bump(side, y, (2.5, brow), (1.6, 0.9)), y=-0.75, z=0.2
        )
        inward = bump(side, y, (1.3, brow - 0.2), (0.8, 0.7))
        shapes["browDown" + name] += _vectors(inward, x=-sign * 0.35, y=-0.25)
        shapes["browOuterUp" + name] += _vectors(bump(side, y, (4.0, brow), (1.4, 1.2)), y=0.95)
        shapes["cheekSquint" + name] += _vectors(
            bump(side, y, (3.8, -0.2), (1.4, 0.9)), y=0.60, z=0.32
        )
        wing = bump(side, y, (1.1, -1.4), (0.6, 0.7))
        bridge = bump(side, y, (0.8, 1.0), (0.5, 0.8))
        shapes["noseSneer" + name] += _vectors(wing, y=0.75, z=0.3) + _vectors(
            bridge, y=0.45, z=0.3
        )
        full = bump(side, y, (face.corner[0, 0] * 0.6 + 2.4, MOUTH_Y + 0.4), (1.5, 1.8))
        shapes["cheekPuff"] += _vectors(full, x=sign * 0.65, z=0.95)


def tongue_shapes(face: Head) -> np.ndarray:
    """Returns the displacements [16, 76, 3] in cm at weight one, in the order of `rig.TONGUE`."""
    body = face.tongue[:64].reshape(8, 8, 3)
    s = np.broadcast_to(np.linspace(0.0, 1.0, 8)[:, None], (8, 8)).reshape(-1)
    a = np.broadcast_to((2.0 * np.pi * np.arange(8) / 8)[None], (8, 8)).reshape(-1)
    half = np.abs(body[:, 0, 0])[:, None].repeat(8, 1).reshape(-1)
    across, above = np.cos(a), np.sin(a)
    tip, front = np.clip((s - 0.45) / 0.55, 0.0, 1.0) ** 2, s**1.5
    back = np.exp(-0.5 * ((s - 0.58) / 0.17) ** 2)
    root = np.exp(-0.5 * ((s - 0.28) / 0.22) ** 2)
    deltas = {
        "tongueTipUp": _vectors(tip, y=1.1, z=-0.1),
        "tongueTipDown": _vectors(front, y=-0.9, z=0.25) + _vectors(tip * above, z=0.5),
        "tongueTipLeft": _vectors(tip, x=0.9) + _vectors(tip * across, z=-0.35),
        "tongueTipRight": _vectors(tip, x=-0.9) + _vectors(tip * across, z=0.35),
        "tongueRollUp": _vectors(tip**2, y=1.0, z=-1.3) + _vectors(tip * above, z=-0.4),
        "tongueRollDown": _vectors(tip**2, y=-0.9, z=-1.0) + _vectors(tip * above, z=0.5),
        "tongueRollLeft": _vectors(front * np.clip(across, 0, 1), y=0.8, x=-0.35),
        "tongueRollRight": _vectors(front * np.clip(-across, 0, 1), y=0.8, x=0.35),
        "tongueUp": _vectors(back * (0.7 + 0.3 * above), y=1.1),
        "tongueDown": _vectors(root * (0.7 + 0.5 * above), y=-0.9)
        + _vectors(front, y=-0.15, z=0.1),
        "tongueLeft": _vectors(s, x=0.9) + _vectors(s * across, y=0.3),
        "tongueRight": _vectors(s, x=-0.9) + _vectors(s * across, y=-0.3),
        "tongueIn": _vectors(0.35 + 0.65 * s, z=-1.1) + _vectors(back, y=0.3),
        "tongueStretch": _vectors(front, z=1.3) + _vectors(front * above, y=-0.3),
        "tongueWide": _vectors(np.sign(across) * np.abs(across) * half * s**0.5, x=0.45)
        + _vectors(front * above, y=-0.2),
        "tongueNarrow": _vectors(across * half * s**0.5, x=-0.45)
        + _vectors(np.abs(above) * s, y=0.6),
    }  # fmt: skip
    for name, sign in (("tongueTipLeft", 1.0), ("tongueTipRight", -1.0)):
        # The side that the tip turns to is drawn in, so left and right are not exact negatives.
        deltas[name] += _vectors(tip * np.clip(sign * across, 0, 1), y=0.5, z=-0.9)
    for name, sign in (("tongueLeft", 1.0), ("tongueRight", -1.0)):
        deltas[name] += _vectors(back * np.clip(sign * across, 0, 1), y=0.9)
    out = np.zeros((len(rig.TONGUE), len(face.tongue), 3))
    for i, name in enumerate(rig.TONGUE):
        out[i, :64] = deltas[name]
    return out
