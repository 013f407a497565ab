"""What share of the windows each of several sets gets; NumPy only.

Without weights a set's share is that of its speech. With weights w, set i gets w[i] / sum(w) of the
windows however much it holds: a small set comes up again sooner, a large one is seen in part.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2fjax.configuration import DataConfig, check_weights
from a2fjax.data import records
from a2fjax.errors import InputError


def frames_by_set(manifests: Sequence[records.Manifest], split: str) -> np.ndarray:
    """Returns how many frames each set has in a split [S] int64."""
    return np.array([sum(e["frames"] for e in m.entries(split)) for m in manifests], np.int64)


def shares(
    data: DataConfig,
    folders: Sequence[str],
    frames: Sequence[int] | np.ndarray,
    split: str,
    *,
    strict: bool = True,
) -> np.ndarray:
    """Returns the share of windows that each set gets [S], at least 0, with sum 1.

    Args:
      data: `weights` is read.
      folders: of the sets.
      frames: [S] of each set in the split.
      split: for messages.
      strict: whether a set with a weight but without clips is an error; the others share its part
        if not (held-out splits, which a small set may lack).

    Raises:
      InputError: as `configuration.check_weights`, or a weighted set has no clips in the split.
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
        # By the largest first: tiny weights must not vanish, nor large ones overflow in a sum.
        amount = np.where(amount > 0, weight / weight.max(), 0.0)
    if not amount.sum() > 0:
        raise InputError(
            f"no clips in split {split!r} of the sets with a weight above 0: {', '.join(folders)}"
        )
    return amount / amount.sum()


def clip_masses(
    frames: np.ndarray, folder: np.ndarray, share: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Returns the share of the windows that each clip gets [N]; within a set it goes by length.

    Args:
      frames: [N] of each clip.
      folder: [N] which set each clip is of.
      share: [S] of each set, as `shares` returns them.
    """
    frames = np.asarray(frames, np.float64)
    total = np.bincount(folder, frames, minlength=len(share))
    scale = np.asarray(share, np.float64) / np.where(total > 0, total, 1.0)
    return frames * scale[folder]


def names(folders: Sequence[str]) -> tuple[str, ...]:
    """Returns a short name for each set: its folder's, with as many parents as tell them apart."""
    parts = [[p for p in str(f).split("/") if p not in ("", ".")] for f in folders]
    deepest = max((len(p) for p in parts), default=0)
    for depth in range(1, deepest + 1):
        found = ["/".join(p[-depth:]) for p in parts]
        if len(set(found)) == len(found):
            return tuple(found)
    return tuple(f"{name}:{i}" for i, name in enumerate(map(str, folders)))
