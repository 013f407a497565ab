"""Computes each dataset's share of the training windows; NumPy only.

Without weights, the share of a dataset is proportional to its amount of speech. With weights w,
dataset i gets w[i] / sum(w) of the windows regardless of its size: a small dataset repeats sooner,
and only a part of a large one is used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2fjax.configuration import DataConfig, check_weights
from a2fjax.data import records
from a2fjax.errors import InputError


def frames_by_set(manifests: Sequence[records.Manifest], split: str) -> np.ndarray:
    """Returns the number of frames of each dataset in a split, [S] int64."""
    return np.array([sum(e["frames"] for e in m.entries(split)) for m in manifests], np.int64)


def shares(
    data: DataConfig,
    folders: Sequence[str],
    frames: Sequence[int] | np.ndarray,
    split: str,
    *,
    strict: bool = True,
) -> np.ndarray:
    """Returns each dataset's share of the windows [S]; shares are non-negative and sum to 1.

    Args:
      data: data configuration; only `weights` is used.
      folders: folders of the datasets.
      frames: [S] frames of each dataset in the split.
      split: name of the split, for messages.
      strict: whether a weighted dataset without clips is an error. If not, the other datasets
        divide its share; this suits held-out splits, which a small dataset may lack.

    Raises:
      InputError: as `configuration.check_weights`, or a weighted dataset has no clips in the split.
    """
    amount = np.asarray(frames, np.float64)
    if data.weights:
        check_weights(data.weights, folders)
        weight = np.asarray(data.weights, np.float64)
        empty = [f for f, n, w in zip(folders, amount, weight, strict=True) if w > 0 and n == 0]
        if empty and strict:
            raise InputError(
                f"data.weights: {empty[0]} has a weight above 0 but no clips in split {split!r}; "
                "give it the weight 0, or leave the folder out"
            )
        # Divide by the largest weight first, so that sums neither underflow nor overflow.
        amount = np.where(amount > 0, weight / weight.max(), 0.0)
    if not amount.sum() > 0:
        raise InputError(
            f"no clips in split {split!r} of the sets with a weight above 0: {', '.join(folders)}"
        )
    return amount / amount.sum()


def clip_masses(
    frames: np.ndarray, folder: np.ndarray, share: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Returns each clip's share of the windows [N], proportional to length within a dataset.

    Args:
      frames: [N] frames of each clip.
      folder: [N] index of each clip's dataset.
      share: [S] shares of the datasets, from `shares`.
    """
    frames = np.asarray(frames, np.float64)
    total = np.bincount(folder, frames, minlength=len(share))
    scale = np.asarray(share, np.float64) / np.where(total > 0, total, 1.0)
    return frames * scale[folder]


def names(folders: Sequence[str]) -> tuple[str, ...]:
    """Returns a short unique name for each dataset: its folder with as many parents as needed."""
    parts = [[p for p in str(f).split("/") if p not in ("", ".")] for f in folders]
    deepest = max((len(p) for p in parts), default=0)
    for depth in range(1, deepest + 1):
        labels = ["/".join(p[-depth:]) for p in parts]
        if len(set(labels)) == len(labels):
            return tuple(labels)
    return tuple(f"{name}:{i}" for i, name in enumerate(map(str, folders)))
