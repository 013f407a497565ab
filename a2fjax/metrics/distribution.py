"""Distribution metrics: distance to real motion and diversity of samples.

The features of a two-second window are whitened leading principal components of its curves and
frame differences. The components are fitted on training motion, with each channel and its
differences divided by their standard deviations; whitening scales every component by its variation
in training. They are fitted on each training set separately, so results are comparable only for
equal `Features.fingerprint`. A set of features has a mean m and a covariance S; z_i are the
features of sample i.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from a2fjax import rig
from a2fjax.metrics.column import Column
from a2fjax.metrics.runs import find_runs

WINDOW = 100
"""Window length in frames."""

HOP = 10
WIDTH = 64
"""Number of components."""

MAX_WINDOWS = 2000
"""Number of training windows for fitting the components."""

_STILL = 1e-3

_MASK = "windows of valid frames of clips with every weight observed"
_SPREAD = "sqrt(variance over samples / variance over time of the truth)"


def _distance(value: str, channels: str) -> Column:
    return Column(
        value,
        value,
        f"Frechet distance to the true motion, {channels}",
        "{:.2f}",
        formula="|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^0.5)",
        source='Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", eq. 6',
        mask=_MASK,
    )


def _spread(value: str, channels: str) -> Column:
    return Column(
        value,
        value,
        f"spread of samples over the truth's deviation, {channels}",
        "{:.2f}",
        better="",
        formula=f"{_SPREAD}, {channels}",
        mask="valid frames, observed channels; K >= 2",
    )


COLUMNS = (
    _distance("fd", "all weights"),
    _distance("fd_mouth", "jaw and mouth"),
    Column(
        "multi",
        "multi",
        "distance of two samples over that of any two windows",
        "{:.2f}",
        better="",
        formula="mean |z_i - z_j| of samples of the same window, over halves of the samples, "
        "divided by that of random windows of the training set: 0 if all samples are equal, 1 if "
        "they differ as much as random windows",
        source="multimodality of SAiD, arXiv 2401.08655, on these features",
        mask=_MASK,
    ),
    _spread("mouth", "jaw and mouth"),
    _spread("upper", "upper face"),
    _spread("blink", "eyelids"),
)
"""Figures that a comparison of samples computes from windows and spreads, not from merged sums."""


@dataclasses.dataclass(frozen=True)
class Features:
    """Principal components that windows are projected onto; see the module.

    Attributes:
      channels: [C] indices of the used channels: weights that vary in training.
      scale: [2 C] standard deviations of curves and frame differences.
      mean: [WINDOW * 2 C] mean of the scaled windows.
      axes: [WINDOW * 2 C, K] projection, including whitening.
      typical: mean distance of two training windows' features.
    """

    channels: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    typical: float

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the features: 16 hex digits of their values to five digits."""
        numbers = np.concatenate([self.scale, self.mean]).astype(np.float32)
        text = self.channels.astype(np.int64).tobytes() + np.round(numbers, 5).tobytes()
        return hashlib.sha256(text).hexdigest()[:16]

    def encode(self, windows: np.ndarray) -> np.ndarray:
        """Returns the features [N, K] of windows [N, WINDOW, 72] in rig units."""
        return (self._rows(windows) - self.mean) @ self.axes

    def _rows(self, windows: np.ndarray) -> np.ndarray:
        return _rows(windows[..., self.channels], self.scale)


def windows(motion: np.ndarray, frame_mask: np.ndarray, hop: int = HOP) -> np.ndarray:
    """Returns the windows [N, WINDOW, 72] of a clip that contain valid frames only."""
    starts = [
        start
        for begin, end in find_runs(frame_mask)
        for start in range(begin, end - WINDOW + 1, hop)
    ]
    if not starts:
        return np.zeros((0, WINDOW, motion.shape[1]), motion.dtype)
    return np.stack([motion[start : start + WINDOW] for start in starts])


def fit(training: np.ndarray, group: np.ndarray) -> Features:
    """Fits features on training windows.

    Args:
      training: windows [N, WINDOW, 72] of training motion in rig units.
      group: [G] indices of the weight channels to choose from.

    Raises:
      ValueError: fewer than two windows, or no channel of the group varies.
    """
    if len(training) < 2:
        raise ValueError(f"{len(training)} windows of training motion: expected at least 2")
    chosen = training[
        np.linspace(0, len(training) - 1, min(len(training), MAX_WINDOWS)).astype(int)
    ]
    group = np.intersect1d(group, rig.WEIGHT_CHANNELS)
    moves = chosen[..., group].reshape(-1, len(group)).std(0) > _STILL
    channels = group[moves]
    if not len(channels):
        raise ValueError("no channel of the group moves in training")
    x = chosen[..., channels].astype(np.float64)
    scale = np.concatenate(
        [x.reshape(-1, x.shape[-1]).std(0), np.diff(x, axis=1).reshape(-1, x.shape[-1]).std(0)]
    )
    scale = np.maximum(scale, 1e-6)
    rows = _rows(x, scale)
    mean = rows.mean(0)
    rows = rows - mean
    # With fewer windows than values per window, the Gram matrix of windows is smaller.
    power, vectors = np.linalg.eigh(rows @ rows.T)
    count = min(WIDTH, len(rows) - 1)
    power, vectors = power[::-1][:count], vectors[:, ::-1][:, :count]
    usable = power > 1e-9 * power[0]
    axes = rows.T @ (vectors[:, usable] / power[usable]) * np.sqrt(len(rows))
    z = rows @ axes
    typical = float(np.linalg.norm(z - np.roll(z, len(z) // 2, axis=0), axis=1).mean())
    return Features(channels, scale, mean, axes, typical)


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the Fréchet distance between two feature sets [N, K] and [M, K].

    Raises:
      ValueError: a set has fewer than two features.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError("a covariance needs at least two windows")
    a, b = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    power, vectors = np.linalg.eigh(np.atleast_2d(a))
    root = (vectors * np.sqrt(np.maximum(power, 0.0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ np.atleast_2d(b) @ root)
    shift = first.mean(0) - second.mean(0)
    shared = np.sqrt(np.maximum(inner, 0.0)).sum()
    return float(shift @ shift + np.trace(np.atleast_2d(a + b)) - 2.0 * shared)


def multimodality(samples: Sequence[np.ndarray], features: Features) -> float:
    """Returns the multimodality of features [N, K] per sample; NaN for fewer than two samples."""
    half = len(samples) // 2
    if not half:
        return float("nan")
    pairs = zip(samples[:half], samples[half : 2 * half], strict=True)
    distances = [np.linalg.norm(a - b, axis=1).mean() for a, b in pairs]
    return float(np.mean(distances) / features.typical)


def _rows(windows: np.ndarray, scale: np.ndarray) -> np.ndarray:
    difference = np.diff(windows, axis=1, append=windows[:, -1:])
    both = np.concatenate([windows, difference], axis=-1) / scale
    return both.reshape(len(windows), -1)
