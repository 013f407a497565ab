"""Speaking style as a function of face shape; pose and amplitude as functions of emotion.

Speaking style is a smooth, monotone, nearly linear function of the parameters of the neutral mesh,
because a network can infer only from the mesh how a new subject speaks, and a few tens of training
subjects suffice only for a function of low curvature.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import rig

SHAPE = (
    "mouthWidth jawLength lipThickness cheekFullness asymmetry faceWidth noseSize browHeight"
).split()
"""Parameters of a neutral face, each in [-1, 1]. The first five also decide the style."""


@dataclasses.dataclass(frozen=True)
class Style:
    """Parameters of a subject's speech motion.

    Attributes:
      amplitude: amplitude of all mouth movement; 0.6 to 1.45, 1 is average.
      jaw: preference for the jaw over the lips when opening, -1 to 1.
      rounding: whether rounding protrudes (1) or narrows (-1) the lips.
      smile: habitually raised corners and upper lip (1) or lowered corners (-1).
      asymmetry: the mouth moves more on the left (1) or the right (-1).
    """

    amplitude: float = 1.0
    jaw: float = 0.0
    rounding: float = 0.0
    smile: float = 0.0
    asymmetry: float = 0.0


def draw_style(shape: np.ndarray) -> Style:
    """Returns the style of a subject.

    Args:
      shape: [8] parameters in the order of `SHAPE`, each in [-1, 1].
    """
    # Slight curvature, since real styles are not exactly linear in shape; slope 0.8 to 1.2.
    z = np.asarray(shape[:5], float)
    z = z + 0.10 * (z**2 - 1.0 / 3.0)
    return Style(
        amplitude=float(1.0 + 0.42 * z[0]),
        jaw=float(z[1]),
        rounding=float(z[2]),
        smile=float(z[3]),
        asymmetry=float(shape[4]),
    )


def _poses(table: dict[str, dict[str, float]]) -> np.ndarray:
    poses = np.zeros((rig.NUM_EMOTIONS, rig.NUM_CHANNELS))
    for emotion, weights in table.items():
        for name, value in weights.items():
            sides = [name] if name in rig.INDEX else [name + "Left", name + "Right"]
            for side in sides:
                poses[rig.EMOTIONS.index(emotion), rig.INDEX[side]] = value
    return poses


POSE = _poses(
    {
        "happy": dict(
            mouthSmile=0.52, mouthDimple=0.22, mouthUpperUp=0.12, cheekSquint=0.45, eyeSquint=0.30,
            browOuterUp=0.12, browInnerUp=0.08,
        ),
        "angry": dict(
            browDown=0.70, noseSneer=0.42, mouthPress=0.30, mouthFrown=0.22, mouthStretch=0.20,
            mouthLowerDown=0.20, jawForward=0.32, mouthShrugUpper=0.12, eyeSquint=0.32,
            cheekSquint=0.15, eyeWide=0.10,
        ),
        "sad": dict(
            mouthFrown=0.55, mouthShrugLower=0.42, mouthRollLower=0.14, browInnerUp=0.62,
            eyeBlink=0.16, eyeSquint=0.10,
        ),
        "surprised": dict(
            browInnerUp=0.62, browOuterUp=0.66, eyeWide=0.60, mouthFunnel=0.32, mouthPucker=0.10,
            mouthShrugUpper=0.10, mouthUpperUp=0.10,
        ),
    }
)  # fmt: skip
"""[5, 72] what each emotion adds to the pose, in the order of `rig.EMOTIONS`."""

AMPLITUDE = np.array([1.0, 1.08, 1.22, 0.74, 1.18])
"""[5] factor of each emotion on mouth movement."""

JAW = np.array([0.0, 0.02, 0.04, -0.02, 0.12])
"""[5] what each emotion adds to the jaw opening while speaking."""

RATE = np.array([1.0, 1.06, 1.10, 0.86, 1.03])
"""[5] factor of each emotion on words a minute and on the speed of gestures."""

PITCH = np.array([0.0, 8.0, 4.0, -8.0, 14.0])
"""[5] what each emotion adds to eSpeak NG's pitch setting."""

PITCH_RANGE = np.array([0.0, 16.0, 12.0, -22.0, 22.0])
"""[5] the same for the range of pitch."""
