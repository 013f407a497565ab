"""Adds blinks, brow beats and gaze: movement that speech does not determine.

They are drawn at random, so no network can predict them from audio; reports list them separately.

Eye angles are those of the rig, in degrees: X turns an eye down and Y turns it to the person's
left (a right-handed rotation about axes pointing to the person's left and up, the face looking
along +Z). The eyeLook shapes follow the same angles, because lids follow the eye.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2fjax import rig
from data_pipeline.demo.articulation import minimum_jerk, window
from data_pipeline.demo.phones import Segment

FULL_LOOK = 30.0
"""Degrees of eye rotation at which an eyeLook shape is 1."""

_BLINKS_A_SECOND = 0.28
_SHORTEST_BETWEEN_BLINKS = 0.6
_BEAT_CHANCE = 0.25
_GAZE_A_SECOND = 0.7
_SACCADE = 0.06


def add_upper_face(
    motion: np.ndarray, times: np.ndarray, segments: Sequence[Segment], rng: np.random.Generator
) -> None:
    """Adds blinks, brow beats and gaze to a motion in place.

    Args:
      motion: [N, 72]; the pose from speech and emotion.
      times: [N] seconds.
      segments: segments of the utterance; some stressed syllables get a brow beat.
      rng: source of all random draws.
    """
    _gaze(motion, times, rng)
    _brow_beats(motion, times, segments, rng)
    _blinks(motion, times, rng)


def _add(motion: np.ndarray, name: str, value: np.ndarray) -> None:
    column = rig.INDEX[name]
    motion[:, column] = np.clip(motion[:, column] + value, 0.0, 1.0)


def _blinks(motion: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> None:
    t, end = times[0] + rng.exponential(1.0 / _BLINKS_A_SECOND), times[-1]
    closed = np.zeros_like(times)
    while t < end:
        closing, held, opening = rng.uniform(0.07, 0.09), 0.03, rng.uniform(0.12, 0.18)
        depth = rng.uniform(0.9, 1.0)
        blink = window(times, t, t + closing, t + closing + held, t + closing + held + opening)
        closed = np.maximum(closed, depth * blink)
        t += _SHORTEST_BETWEEN_BLINKS + rng.exponential(1.0 / _BLINKS_A_SECOND)
    for side in ("Left", "Right"):
        column = rig.INDEX["eyeBlink" + side]
        # Lowered lids move a shorter distance.
        motion[:, column] = motion[:, column] * (1.0 - closed) + closed
        motion[:, rig.INDEX["eyeWide" + side]] *= 1.0 - closed


def _brow_beats(
    motion: np.ndarray,
    times: np.ndarray,
    segments: Sequence[Segment],
    rng: np.random.Generator,
) -> None:
    for s in segments:
        # Draw for every segment, so that changes to the phone table do not shift later draws.
        draw, size, lead = rng.uniform(), rng.uniform(0.12, 0.40), rng.uniform(0.0, 0.12)
        if s.stress < 2 or draw > _BEAT_CHANCE:
            continue
        begin = s.start - lead
        beat = size * window(times, begin - 0.12, begin, begin + 0.08, begin + 0.34)
        _add(motion, "browInnerUp", 0.8 * beat)
        for side in ("Left", "Right"):
            _add(motion, "browOuterUp" + side, beat)


def _gaze(motion: np.ndarray, times: np.ndarray, rng: np.random.Generator) -> None:
    pitch, yaw = np.zeros_like(times), np.zeros_like(times)
    t, now = times[0], np.array([rng.normal(0.0, 2.0), rng.normal(0.0, 4.0)])
    pitch += now[0]
    yaw += now[1]
    while t < times[-1]:
        t += 0.25 + rng.exponential(1.0 / _GAZE_A_SECOND)
        aim = np.array([rng.normal(1.0, 4.0), rng.normal(0.0, 8.0)]).clip(-20.0, 20.0)
        step = minimum_jerk((times - t) / _SACCADE)
        pitch += step * (aim[0] - now[0])
        yaw += step * (aim[1] - now[1])
        now = aim
    for side in ("right", "left"):
        motion[:, rig.INDEX[side + "EyeRotX"]] = pitch
        motion[:, rig.INDEX[side + "EyeRotY"]] = yaw
    for side, inward in (("Left", -1.0), ("Right", 1.0)):
        _add(motion, "eyeLookDown" + side, np.clip(pitch / FULL_LOOK, 0.0, None))
        _add(motion, "eyeLookUp" + side, np.clip(-pitch / FULL_LOOK, 0.0, None))
        _add(motion, "eyeLookIn" + side, np.clip(inward * yaw / FULL_LOOK, 0.0, None))
        _add(motion, "eyeLookOut" + side, np.clip(-inward * yaw / FULL_LOOK, 0.0, None))
