"""Saccades: where the eyes look, and the channels that show it.

Numbers of Lee, Badler and Badler 2002, "Eyes Alive", doi.org/10.1145/566570.566629, whose frames
are 1/30 s.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig

_LIMIT = {True: 27.5, False: 22.7}  # Largest saccade, degrees, by whether the face talks.
_DIRECTIONS = np.array([15.54, 6.46, 17.69, 7.44, 16.80, 7.89, 20.38, 7.79])  # % at 45 n degrees
# Frames at the other person and away: mean and deviation.
_INTERVALS = {
    True: ((93.9, 94.9), (27.8, 24.0)),
    False: ((237.5, 47.1), (13.0, 7.1)),
}
_SLOPE, _LEAST = 0.0024, 0.025  # Duration: s a degree, and s.
DEGREES_A_WEIGHT = float(np.degrees(0.62))
"""Rotation that a whole eyeLook weight stands for; see `animation.livelink`."""


class Gaze:
    """Eyes that look at somebody, away, and back."""

    def __init__(self, random: np.random.Generator):
        """Looks straight ahead."""
        self._random = random
        self._from = self._to = np.zeros(2)
        self._since, self._takes = 0.0, 1.0
        self._away = False
        self._left: float | None = None

    def __call__(self, talks: bool) -> np.ndarray:
        """Returns (pitch, yaw) in degrees of the next frame: down and to the left are positive."""
        if self._left is None:
            self._left = self._interval(talks)
        self._left -= 1 / rig.FPS
        self._since += 1 / rig.FPS
        if self._left <= 0:
            self._jump(talks)
        share = min(1.0, self._since / self._takes)
        return self._from + (self._to - self._from) * share * share * (3 - 2 * share)

    def _jump(self, talks: bool) -> None:
        self._from = self._to
        self._away = not self._away
        self._to = np.zeros(2)
        if self._away:
            percent = self._random.uniform(0.0, 15.7)
            size = min(_LIMIT[talks], -6.9 * np.log(max(percent, 1e-3) / 15.7))
            shares = _DIRECTIONS / _DIRECTIONS.sum()
            angle = np.radians(45.0 * self._random.choice(len(shares), p=shares))
            self._to = size * np.array([-np.sin(angle), -np.cos(angle)])
        self._takes = _LEAST + _SLOPE * float(np.linalg.norm(self._to - self._from))
        self._since = 0.0
        self._left = self._interval(talks)

    def _interval(self, talks: bool) -> float:
        mean, deviation = _INTERVALS[talks][self._away]
        # A gamma distribution of this mean and deviation has no negative intervals.
        shape = (mean / deviation) ** 2
        return float(self._random.gamma(shape, mean / shape)) / 30


def add(motion: np.ndarray, gaze: np.ndarray) -> None:
    """Adds a gaze (pitch, yaw) in degrees to the eyes of motion [72], in place."""
    pitch, yaw = gaze
    for side in ("left", "right"):
        motion[rig.INDEX[f"{side}EyeRotX"]] += pitch
        motion[rig.INDEX[f"{side}EyeRotY"]] += yaw
    down, left = pitch / DEGREES_A_WEIGHT, yaw / DEGREES_A_WEIGHT
    # The left eye looks out to the left, the right eye in.
    for name, weight in (
        ("eyeLookDownLeft", down),
        ("eyeLookDownRight", down),
        ("eyeLookUpLeft", -down),
        ("eyeLookUpRight", -down),
        ("eyeLookOutLeft", left),
        ("eyeLookInLeft", -left),
        ("eyeLookInRight", left),
        ("eyeLookOutRight", -left),
    ):
        motion[rig.INDEX[name]] += max(0.0, weight)
