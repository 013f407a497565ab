"""Runs of consecutive true values in a mask."""

from __future__ import annotations

import numpy as np


def find_runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns (start, stop) of every maximal run of True in a mask [T], in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def close_gaps(mask: np.ndarray, frames: int) -> np.ndarray:
    """Fills gaps of at most `frames` between two runs of a mask [T]."""
    out = np.array(mask, bool)
    runs = find_runs(out)
    for (_, stop), (start, _) in zip(runs[:-1], runs[1:], strict=True):
        if start - stop <= frames:
            out[stop:start] = True
    return out
