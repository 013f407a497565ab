"""Tells which convention a program's mouthClose follows.

ARKit's mouthClose is relative to an open jaw: lips that meet have mouthClose = jawOpen. NVIDIA's
shape includes jawOpen (Maxine calls it `jawOpen_+_mouthClose`): lips that meet have jawOpen 0, and
the jaw is open by jawOpen + mouthClose. Names and values of one curve do not tell them apart.

Both readings of the curves are therefore compared with the true motion. For a reading with jaw j
and aperture a, and the true jaw J and aperture A, with r over the frames of all clips and means
removed in each clip,

    error = 1 - max(r(j, J), 0)^2 + 1 - max(r(a, A), 0)^2

The correlation leaves out how far a program opens the mouth. A reading counts if its error is below
0.9 of the other's.
"""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.animation import mouth_close
from a2fjax.metrics.sums import correlation, deviations

CONVENTIONS = ("auto", "arkit", "nvidia")
COMBINED = "jawOpen_+_mouthClose"
"""Name of the column in Maxine's order, which states the convention."""

_CLEAR = 0.9
_LEAST = 1e-4
"""Smallest mean of mouthClose; below it both readings are the same."""

_JAW, _CLOSE = rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]


class Readings:
    """Agreement of both readings with the true motion."""

    def __init__(self) -> None:
        """Starts without clips."""
        self._products = np.zeros((2, 2, 3))
        self._close, self._frames = 0.0, 0

    def add(self, prediction: np.ndarray, truth: np.ndarray, frames: np.ndarray) -> None:
        """Adds a clip.

        Args:
          prediction: [T, 72], as the program means it.
          truth: [T, 72].
          frames: [T] bool, the frames that count.
        """
        targets = [truth[frames, _JAW], rig.aperture(truth[frames])]
        for i, motion in enumerate((prediction, mouth_close.to_rig(prediction, "nvidia"))):
            found = [motion[frames, _JAW], rig.aperture(motion[frames])]
            for k, (p, g) in enumerate(zip(found, targets, strict=True)):
                p, g = deviations(p.astype(np.float64)), deviations(g.astype(np.float64))
                self._products[i, k] += p @ g, p @ p, g @ g
        self._close += float(prediction[frames, _CLOSE].sum())
        self._frames += int(frames.sum())

    def errors(self) -> tuple[float, float] | None:
        """Returns the errors of ARKit's and NVIDIA's reading, or None if they cannot differ."""
        if self._close <= _LEAST * self._frames:
            return None
        r = correlation(*np.moveaxis(self._products, -1, 0))
        arkit, nvidia = (2.0 - (np.maximum(np.nan_to_num(r), 0.0) ** 2).sum(-1)).tolist()
        return arkit, nvidia

    def convention(self) -> tuple[str, str]:
        """Returns the convention ("arkit" or "nvidia") and how it was found, as text."""
        errors = self.errors()
        if errors is None:
            return "arkit", "mouthClose is hardly used: both conventions are the same"
        arkit, nvidia = errors
        shown = f"error {arkit:.3f} as ARKit's, {nvidia:.3f} as NVIDIA's"
        if nvidia < _CLEAR * arkit:
            return "nvidia", f"mouthClose includes jawOpen ({shown}): converted"
        if arkit < _CLEAR * nvidia:
            return "arkit", f"mouthClose is relative to an open jaw ({shown})"
        return "arkit", f"mouthClose is taken as relative to an open jaw; not clear ({shown})"
