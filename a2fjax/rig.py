"""The 72 rig channels: names, groups, units, ranges and mirror pairs; the emotions.

Order: 52 ARKit blendshapes (Apple's order, which is also NVIDIA's), 16 tongue shapes, four eye
angles. Weights are in [0, 1]; angles are signed degrees. Other tools order the same names
differently, so files carry names and readers map by name, never by position: see `channel_orders`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from a2fjax.errors import InputError, nearest

FPS = 50
"""Motion frames per second. Frame `t` is the pose at `t / FPS` seconds."""

ARKIT = (
    "eyeBlinkLeft eyeLookDownLeft eyeLookInLeft eyeLookOutLeft eyeLookUpLeft eyeSquintLeft "
    "eyeWideLeft eyeBlinkRight eyeLookDownRight eyeLookInRight eyeLookOutRight eyeLookUpRight "
    "eyeSquintRight eyeWideRight jawForward jawLeft jawRight jawOpen mouthClose mouthFunnel "
    "mouthPucker mouthLeft mouthRight mouthSmileLeft mouthSmileRight mouthFrownLeft "
    "mouthFrownRight mouthDimpleLeft mouthDimpleRight mouthStretchLeft mouthStretchRight "
    "mouthRollLower mouthRollUpper mouthShrugLower mouthShrugUpper mouthPressLeft "
    "mouthPressRight mouthLowerDownLeft mouthLowerDownRight mouthUpperUpLeft mouthUpperUpRight "
    "browDownLeft browDownRight browInnerUp browOuterUpLeft browOuterUpRight cheekPuff "
    "cheekSquintLeft cheekSquintRight noseSneerLeft noseSneerRight tongueOut"
).split()

TONGUE = (
    "tongueTipUp tongueTipDown tongueTipLeft tongueTipRight tongueRollUp tongueRollDown "
    "tongueRollLeft tongueRollRight tongueUp tongueDown tongueLeft tongueRight tongueIn "
    "tongueStretch tongueWide tongueNarrow"
).split()

EYE_ANGLES = ["rightEyeRotX", "rightEyeRotY", "leftEyeRotX", "leftEyeRotY"]

CHANNELS = (*ARKIT, *TONGUE, *EYE_ANGLES)
NUM_CHANNELS = len(CHANNELS)
INDEX = {name: i for i, name in enumerate(CHANNELS)}
_LOWER = {name.lower(): i for i, name in enumerate(CHANNELS)}

WEIGHT_CHANNELS = np.arange(0, 68)
ANGLE_CHANNELS = np.arange(68, 72)
ANGLE_LIMIT = 45.0
"""Eye angles are clipped to +-45 degrees, the limit of the human eye's rotation. X is pitch,
positive when the eye looks down; Y is yaw, positive when it looks to the subject's left."""

MIN = np.array([0.0] * 68 + [-ANGLE_LIMIT] * 4, np.float32)
MAX = np.array([1.0] * 68 + [ANGLE_LIMIT] * 4, np.float32)
UNITS = ("weight",) * 68 + ("degree",) * 4
SCALE = np.array([1.0] * 68 + [30.0] * 4, np.float32)
"""Divisor that scales a channel to the size of a weight; losses compare `motion / SCALE`."""

EMOTIONS = ("neutral", "happy", "angry", "sad", "surprised")
NUM_EMOTIONS = len(EMOTIONS)

NVIDIA_EMOTIONS = (
    "amazement anger cheekiness disgust fear grief joy outofbreath pain sadness"
).split()
"""The ten emotions of NVIDIA's Audio2Face-3D, in its order; neutral is the zero vector."""

NVIDIA_TO_EMOTION: dict[str, dict[str, float]] = {
    "neutral": {"neutral": 1.0},
    "amazement": {"surprised": 1.0},
    "anger": {"angry": 1.0},
    "cheekiness": {"happy": 0.7, "neutral": 0.3},
    "disgust": {"angry": 0.7, "neutral": 0.3},
    "fear": {"surprised": 0.6, "sad": 0.4},
    "grief": {"sad": 1.0},
    "joy": {"happy": 1.0},
    "outofbreath": {"neutral": 0.7, "surprised": 0.3},
    "pain": {"sad": 0.6, "angry": 0.4},
    "sadness": {"sad": 1.0},
}


def _indices(names: Sequence[str]) -> np.ndarray:
    return np.array([INDEX[n] for n in names], np.int32)


def _with_prefix(*prefixes: str) -> np.ndarray:
    return np.array([i for i, n in enumerate(CHANNELS) if n.startswith(prefixes)], np.int32)


GROUPS: dict[str, np.ndarray] = {
    "all": np.arange(NUM_CHANNELS, dtype=np.int32),
    "jaw_mouth": _with_prefix("jaw", "mouth"),
    "jaw": _with_prefix("jaw"),
    "mouth": _with_prefix("mouth"),
    "tongue": _indices(["tongueOut", *TONGUE]),
    "brows": _with_prefix("brow"),
    "eyes": np.array(
        [i for i, n in enumerate(CHANNELS) if n.startswith("eye") or n in EYE_ANGLES], np.int32
    ),
    "eye_angles": ANGLE_CHANNELS,
    "blinks": _with_prefix("eyeBlink"),
    "cheeks_nose": _with_prefix("cheek", "nose"),
    "upper_face": np.array(
        [i for i, n in enumerate(CHANNELS) if n.startswith(("brow", "eye", "cheekSquint"))],
        np.int32,
    ),
}
"""Channel groups by name. Audio predicts `upper_face` poorly (blinks, brow beats, gaze)."""


def _mirror() -> tuple[np.ndarray, np.ndarray]:
    source = np.arange(NUM_CHANNELS)
    for i, name in enumerate(CHANNELS):
        for a, b in (("Left", "Right"), ("Right", "Left"), ("left", "right"), ("right", "left")):
            if a in name and name.replace(a, b) in INDEX:
                source[i] = INDEX[name.replace(a, b)]
                break
    sign = np.ones(NUM_CHANNELS, np.float32)
    # In a mirror, an eye that looks to its left looks to its right: yaw changes sign.
    sign[[INDEX["rightEyeRotY"], INDEX["leftEyeRotY"]]] = -1.0
    return source.astype(np.int32), sign


MIRROR_SOURCE, MIRROR_SIGN = _mirror()
MIRROR_PAIRS = tuple(
    (CHANNELS[i], CHANNELS[j]) for i, j in enumerate(MIRROR_SOURCE.tolist()) if i < j
)

APERTURE = np.zeros(NUM_CHANNELS, np.float32)
"""Lip aperture as a linear map of the channels, `aperture = motion @ APERTURE` (weight units).

jawOpen - mouthClose + the mean lowering of the lower lip and raising of the upper lip, half each.
ARKit's mouthClose is relative to an open jaw, so the two must be combined. Rolling the lips in is
left out: it hides the lips without moving the gap.
"""
for _name, _weight in {
    "jawOpen": 1.0,
    "mouthClose": -1.0,
    "mouthLowerDownLeft": 0.25,
    "mouthLowerDownRight": 0.25,
    "mouthUpperUpLeft": 0.25,
    "mouthUpperUpRight": 0.25,
}.items():
    APERTURE[INDEX[_name]] = _weight

FINGERPRINT = hashlib.sha256(json.dumps([CHANNELS, UNITS, EMOTIONS, FPS]).encode()).hexdigest()[:16]
"""Identifies the rig in shards, checkpoints and bundles; readers refuse another one."""


def channel_index(name: str) -> int:
    """Returns the index of a channel; case does not matter.

    Raises:
      InputError: the name is not a channel; suggests the nearest one.

    Example:
        >>> channel_index("jawOpen")
        17
    """
    try:
        return _LOWER[name.lower()]
    except KeyError:
        raise InputError(f"unknown channel {name!r}{nearest(name, CHANNELS)}") from None


def mirror(motion: np.ndarray) -> np.ndarray:
    """Returns the mirrored motion [..., 72]: sides swapped, yaw negated.

    Example:
        >>> motion = np.zeros(NUM_CHANNELS)
        >>> motion[channel_index("mouthSmileLeft")] = 0.5
        >>> float(mirror(motion)[channel_index("mouthSmileRight")])
        0.5
    """
    return motion[..., MIRROR_SOURCE] * MIRROR_SIGN


def clip(motion: np.ndarray) -> np.ndarray:
    """Returns the motion [..., 72] clipped to each channel's range."""
    return np.clip(motion, MIN, MAX)


def aperture(motion: Any) -> Any:
    """Returns the lip aperture [...] of a motion [..., 72], in weight units; see `APERTURE`."""
    return motion @ APERTURE


def emotion_vector(weights: dict[str, float]) -> np.ndarray:
    """Returns the emotion vector [5] float32 for weights by name; neutral completes the sum to 1.

    Args:
      weights: by names of `EMOTIONS` or `NVIDIA_EMOTIONS`, each in [0, 1], with a sum above 0 and
        at most 1.

    Raises:
      InputError: unknown or repeated name, weight out of range, or a sum of zero or above one.

    Example:
        >>> emotion_vector({"happy": 0.75}).tolist()
        [0.25, 0.75, 0.0, 0.0, 0.0]
    """
    vector = np.zeros(NUM_EMOTIONS, np.float32)
    seen: set[str] = set()
    for name, value in weights.items():
        key = name.lower()
        if key in seen:
            raise InputError(f"emotion {name!r} appears twice")
        seen.add(key)
        if not np.isfinite(value) or not 0.0 <= value <= 1.0:
            raise InputError(f"emotion {name}={value:g}: expected a weight in [0, 1]")
        if key in EMOTIONS:
            vector[EMOTIONS.index(key)] += value
        elif key in NVIDIA_TO_EMOTION:
            for target, share in NVIDIA_TO_EMOTION[key].items():
                vector[EMOTIONS.index(target)] += value * share
        else:
            raise InputError(f"unknown emotion {name!r}{nearest(name, EMOTIONS)}")
    total = float(vector.sum())
    if total <= 0.0:
        raise InputError("emotion weights sum to 0: give at least one, for example neutral=1")
    if total > 1.0 + 1e-4:
        raise InputError(f"emotion weights sum to {total:g}: expected at most 1")
    vector[0] += max(0.0, 1.0 - total)
    return vector
