"""Emotions by time code: from one to the next within a transition, in NVIDIA's names or ours."""

from __future__ import annotations

import bisect
from collections.abc import Mapping

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError

MOST_KEYS = 1000
"""Emotions that one speaker may have pending."""

_TRANSITION = 0.3  # s, as in the tracks of the training.


def weights(given: Mapping[str, float]) -> np.ndarray:
    """Returns the emotion [5] of weights by name; none, or all zero, is neutral.

    Weights that sum to more than 1, as NVIDIA's may, are scaled down.

    Example:
        >>> weights({"joy": 1.0, "Anger": 1.0}).tolist()
        [0.0, 0.5, 0.5, 0.0, 0.0]

    Raises:
      InputError: an unknown name or a weight out of range.
    """
    for name, value in given.items():
        if not 0.0 <= value <= 1.0:
            raise InputError(f"emotion {name}={value:g}: expected a weight in [0, 1]")
    total = sum(given.values())
    if not total:
        return rig.emotion_vector({"neutral": 1.0} | dict.fromkeys(given, 0.0))
    scale = max(1.0, total)
    return rig.emotion_vector({name: value / scale for name, value in given.items()})


class Emotions:
    """A track that grows while its speaker speaks.

    Example:
        >>> track = Emotions(weights({"sad": 1.0}), transition=0.0)
        >>> track.add(1.0, weights({"happy": 1.0}))
        >>> [int(track(frame).argmax()) for frame in (0, 49, 50)]
        [3, 3, 1]
    """

    def __init__(self, first: np.ndarray, *, transition: float = _TRANSITION):
        """Begins with an emotion [5].

        Args:
          first: the emotion until the first key.
          transition: s that a change takes, 0 to 10.

        Raises:
          InputError: a transition out of range.
        """
        if not 0 <= transition <= 10:
            raise InputError(f"transition {transition:g} s: expected 0 to 10")
        self._transition = transition
        self._times = [-1e9]
        self._values = [first]

    def add(self, seconds: float, emotion: np.ndarray) -> None:
        """Goes to an emotion [5] from a time on.

        Args:
          seconds: since the speaker's first sample; a time before the last key replaces what
            follows it.
          emotion: weights.

        Raises:
          InputError: too many keys, or a time that is not one.
        """
        if not 0 <= seconds < 1e6:
            raise InputError(f"emotion at {seconds:g} s: expected a time of at least 0")
        at = bisect.bisect_left(self._times, seconds)
        del self._times[at:], self._values[at:]
        if len(self._times) >= MOST_KEYS:
            raise InputError(f"emotions: more than {MOST_KEYS} time codes")
        self._times.append(seconds)
        self._values.append(emotion)

    def __call__(self, frame: int) -> np.ndarray:
        """Returns the emotion [5] float32 of a motion frame."""
        seconds = frame / rig.FPS
        at = bisect.bisect_right(self._times, seconds) - 1
        value = self._values[at]
        since = seconds - self._times[at]
        if at and since < self._transition:
            share = since / self._transition
            value = (1 - share) * self._values[at - 1] + share * value
        return np.asarray(value, np.float32)
