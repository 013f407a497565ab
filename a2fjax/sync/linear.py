"""The linear expert: ridge regression from log-mel to the channels, compared by correlation.

Log-mel of `REACH` frames on both sides (0.24 s; pairs of the 80 bins averaged) predicts the
standardised channels. A window's score is the correlation of prediction and truth over its frames,
each channel weighted by how much of it the regression explained on clips that it was not fitted
to. What needs more than that is not shown to need a network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from a2fjax.audio.frontend import Frontend
from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig
from a2fjax.errors import InputError
from a2fjax.models.syncnet import channels
from a2fjax.models.syncnet.channels import Statistics

REACH = 12
BANDS = 40
FOLDS = 4
PENALTIES = (1e1, 1e2, 1e3, 1e4)
"""Penalties tried, in frames: a penalty of the number of frames halves what is fitted."""

MOST_FRAMES = 100_000
"""Frames that the regression is fitted to; larger training sets are thinned out evenly."""


@dataclasses.dataclass(frozen=True)
class LinearExpert:
    """A fitted regression.

    Attributes:
      weights: [F + 1, C], the last row is the constant.
      explained: [C] share of each channel's variance explained on other clips, at least 0.
      penalty: the penalty chosen.
    """

    weights: np.ndarray
    explained: np.ndarray
    penalty: float

    name = "linear"
    similarity = "correlation"
    audio_reach = REACH
    motion_reach = 0

    def embed(self, batch: Batch, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
        """Returns predicted and true channels, weighted, [B, T, C]; see `Expert.embed`."""
        heard = features(batch) @ self.weights[:-1] + self.weights[-1]
        seen = standardised(batch, statistics)
        mask = np.asarray(batch.channel_mask)[:, None, channels.CHANNELS]
        scale = np.sqrt(self.explained) * mask
        return (heard * scale).astype(np.float32), (seen * scale).astype(np.float32)


def features(batch: Batch) -> np.ndarray:
    """Returns the log-mel about each frame [B, T, F] float32, F = 25 frames of 40 bands."""
    mel = np.asarray(_mel(batch.audio, batch.length))
    padded = np.pad(mel, ((0, 0), (REACH, REACH), (0, 0)), mode="edge")
    view = np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1, axis=1)
    return view.swapaxes(2, 3).reshape(*mel.shape[:2], -1)


def standardised(batch: Batch, statistics: Statistics) -> np.ndarray:
    """Returns the channels [B, T, C] as `channels.standardise` does, in NumPy."""
    motion = np.asarray(batch.motion)[..., channels.CHANNELS]
    mean = np.asarray(statistics.mean)[:, None, channels.CHANNELS]
    deviation = np.asarray(statistics.deviation)[:, None, channels.CHANNELS]
    return np.clip((motion - mean) / deviation, -channels.LIMIT, channels.LIMIT)


@jax.jit
def _mel(audio: jax.Array, length: jax.Array) -> jax.Array:
    valid = jnp.arange(audio.shape[1]) < 320 * length[:, None]
    mel = Frontend(AudioConfig()).features(jnp.where(valid, audio, 0.0))
    return mel.reshape(*mel.shape[:2], BANDS, -1).mean(-1)


def ridge(gram: np.ndarray, cross: np.ndarray, penalty: float) -> np.ndarray:
    """Solves (G + penalty I) w = X; the last row and column, the constant's, are not penalised.

    Args:
      gram: [F + 1, F + 1], sum of x x^T over frames, x ending in 1.
      cross: [F + 1, C], sum of x y^T.
      penalty: above 0.

    Example:
        >>> x = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
        >>> y = np.array([[1.0], [3.0], [5.0]])
        >>> ridge(x.T @ x, x.T @ y, 1e-9).round(4).ravel().tolist()
        [2.0, 1.0]
    """
    added = np.full(len(gram), penalty)
    added[-1] = 0.0
    solved: np.ndarray = scipy.linalg.solve(gram + np.diag(added), cross, assume_a="pos")
    return solved


@dataclasses.dataclass
class _Sums:
    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    count: np.ndarray


def fit(batches: Iterable[tuple[Batch, Statistics]]) -> LinearExpert:
    """Fits the regression to the frames with speech about them.

    Clips are dealt to `FOLDS` folds in turn; the penalty is the one that explains most of the folds
    not fitted to. A channel counts in the clips that observe it.

    Raises:
      InputError: no frame to fit to.
    """
    size, width = BANDS * (2 * REACH + 1) + 1, len(channels.CHANNELS)
    folds = [
        _Sums(np.zeros((size, size)), np.zeros((size, width)), np.zeros(width), np.zeros(width))
        for _ in range(FOLDS)
    ]
    number = 0
    for batch, statistics in batches:
        x = features(batch)
        y = standardised(batch, statistics)
        mask = np.asarray(batch.channel_mask)[:, channels.CHANNELS]
        frame = np.arange(y.shape[1])
        length = np.asarray(batch.length)[:, None]
        valid = np.asarray(batch.frame_mask) & (frame >= REACH) & (frame + REACH < length)
        for row in range(len(x)):
            fold = folds[number % FOLDS]
            number += 1
            frames = valid[row]
            own = np.concatenate([x[row][frames], np.ones((int(frames.sum()), 1))], 1)
            own = own.astype(np.float32)
            target = y[row][frames] * mask[row]
            fold.gram += own.T @ own
            fold.cross += own.T @ target
            fold.square += (target**2).sum(0)
            fold.count += len(target) * mask[row]
    if number < FOLDS or not sum(fold.count.sum() for fold in folds):
        raise InputError(
            f"the linear expert needs at least {FOLDS} clips with motion of the mouth to train on; "
            f"got {number}"
        )
    return _chosen(folds)


def _chosen(folds: Sequence[_Sums]) -> LinearExpert:
    gram: np.ndarray = np.sum([fold.gram for fold in folds], axis=0)
    cross: np.ndarray = np.sum([fold.cross for fold in folds], axis=0)
    square: np.ndarray = np.sum([fold.square for fold in folds], axis=0)
    best: tuple[float, float, np.ndarray] | None = None
    for penalty in PENALTIES:
        error = np.zeros(cross.shape[1])
        for fold in folds:
            w = ridge(gram - fold.gram, cross - fold.cross, penalty)
            # |y - x w|^2 from sums alone.
            error += fold.square - 2 * np.sum(w * fold.cross, 0)
            error += np.einsum("fc,fg,gc->c", w, fold.gram, w, optimize=True)
        explained = np.where(square > 0, 1.0 - error / np.maximum(square, 1e-9), 0.0)
        explained = np.maximum(explained, 0.0)
        if best is None or explained.sum() > best[0]:
            best = float(explained.sum()), penalty, explained
    assert best is not None
    weights = ridge(gram, cross, best[1]).astype(np.float32)
    return LinearExpert(weights, best[2].astype(np.float32), best[1])
