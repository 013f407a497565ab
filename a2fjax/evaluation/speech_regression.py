"""Linear baselines: curves from log-mel around each frame, or from loudness, by ridge regression.

    ridge       log-mel of 40 bands at -0.24 ... 0.24 s in steps of 0.04 s
    log_energy  the loudness of the frame alone

Features are standardised. The penalty is the one of `PENALTIES` (times the number of frames) with
the smallest error on the other half of the clips; the fit then uses all. Channels that a clip does
not observe count at the training mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import speech_features

TAPS = np.arange(-12, 13, 2)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MAX_FRAMES = 60_000
"""Frames of training clips to fit on: 20 minutes, spread evenly over the clips."""

Features = Callable[[np.ndarray], np.ndarray]


def mel_context(power: np.ndarray) -> np.ndarray:
    """Returns the features [T, 520] of `ridge` from `speech_features.power` [T, 40]."""
    return speech_features.stacked(speech_features.log_mel(power), TAPS)


FEATURES: dict[str, Features] = {"ridge": mel_context, "log_energy": speech_features.log_energy}


@dataclasses.dataclass(frozen=True)
class Regression:
    """A linear map from features to curves.

    Attributes:
      features: of the power of a clip's bands.
      weights: [F, 72].
      intercept: [72].
    """

    features: Features
    weights: np.ndarray
    intercept: np.ndarray

    def curves(self, power: np.ndarray) -> np.ndarray:
        """Returns the curves [T, 72] for `speech_features.power`, within the rig's ranges."""
        return rig.clip(self.features(power) @ self.weights + self.intercept)


class _Sums:
    """Sums of products of features and curves."""

    def __init__(self) -> None:
        self.parts: list[np.ndarray] | None = None

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        new = [np.array(float(len(x))), x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y**2).sum(0)]
        old = self.parts
        self.parts = new if old is None else [a + b for a, b in zip(old, new, strict=True)]

    def solved(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """Returns weights [F, 72] and intercept [72]."""
        assert self.parts is not None
        n, x, y, xx, xy, _ = self.parts
        gram = xx - np.outer(x, x) / n
        scale = np.sqrt(np.maximum(np.diagonal(gram) / n, 1e-12))
        gram = gram / np.outer(scale, scale)
        gram[np.diag_indices_from(gram)] += n * penalty
        w = np.linalg.solve(gram, (xy - np.outer(x, y) / n) / scale[:, None]) / scale[:, None]
        return w, (y - x @ w) / n

    def error(self, weights: np.ndarray, intercept: np.ndarray) -> float:
        """Returns the squared error over all channels, angles in units of `rig.SCALE`."""
        assert self.parts is not None
        n, x, y, xx, xy, yy = self.parts
        error = yy - 2 * ((weights * xy).sum(0) + intercept * y)
        error += (weights * (xx @ weights)).sum(0) + 2 * intercept * (x @ weights)
        return float(((error + n * intercept**2) / rig.SCALE**2).sum())


def fit(takes: ClipSource, mean: np.ndarray) -> dict[str, Regression]:
    """Fits every regression of `FEATURES`.

    Args:
      takes: training clips.
      mean: [72] training mean.

    Returns:
      By name; empty if no training clip can be read.
    """
    typical = max(1, int(np.mean(takes.frames)))
    halves = {name: (_Sums(), _Sums()) for name in FEATURES}
    for k, i in enumerate(takes.spread(max(2, MAX_FRAMES // typical)).tolist()):
        try:
            clip = takes.load(i)
        except records.BadRecord:
            continue
        if not clip.frame_mask.any():
            continue
        motion = np.where(clip.channel_mask, clip.motion, mean)[clip.frame_mask].astype(np.float64)
        power = speech_features.power(clip)
        for name, features in FEATURES.items():
            x = features(power)[clip.frame_mask].astype(np.float64)
            halves[name][k % 2].add(x, motion)
    out = {}
    for name, (even, odd) in halves.items():
        both = _Sums()
        both.parts = _added(even.parts, odd.parts)
        if both.parts is not None:
            out[name] = Regression(FEATURES[name], *both.solved(_penalty(even, odd)))
    return out


def _added(one: list[np.ndarray] | None, two: list[np.ndarray] | None) -> list[np.ndarray] | None:
    if one is None or two is None:
        return one or two
    return [a + b for a, b in zip(one, two, strict=True)]


def _penalty(even: _Sums, odd: _Sums) -> float:
    if even.parts is None or odd.parts is None:
        return PENALTIES[-1]
    errors = [
        even.error(*odd.solved(penalty)) + odd.error(*even.solved(penalty)) for penalty in PENALTIES
    ]
    return PENALTIES[int(np.argmin(errors))]
