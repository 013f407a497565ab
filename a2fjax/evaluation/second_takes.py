"""The truth of another take of the same sentence by the same person, warped in time.

What a person varies between two takes is the error that no system can be asked to go below. The
other take has other timing: it is aligned by dynamic time warping of log-mel, so that the floor
holds how the sentence was articulated and not when.
"""

from __future__ import annotations

import numpy as np

from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation import speech_features

_LONGEST_RATIO = 1.6
"""Of durations; beyond it a take is hardly the same sentence."""


class SecondTakes:
    """Other takes of the clips of a split."""

    def __init__(self, source: ClipSource) -> None:
        """Indexes the clips of a split by person, sentence, emotion and segment of the take."""
        self._source = source
        self._by_key: dict[tuple[object, ...], list[int]] = {}
        self._key: dict[tuple[int, str], tuple[object, ...]] = {}
        index = [
            (folder, entry)
            for folder, manifest in enumerate(source.manifests)
            for entry in manifest.entries(source.split)
        ]
        for i, (folder, entry) in enumerate(index):
            if not entry.get("sentence"):
                continue
            segment = entry["id"].partition("#")[2]
            key = (folder, entry["subject"], entry["sentence"], entry["emotion"], segment)
            self._by_key.setdefault(key, []).append(i)
            self._key[folder, entry["id"]] = key

    def find(self, folder: int, clip: records.Clip, power: np.ndarray) -> np.ndarray | None:
        """Returns the curves [T, 72] of the other take nearest in length, or None.

        Args:
          folder: index of the clip's folder.
          clip: the clip, whose timing the curves take on.
          power: the clip's `speech_features.power`.
        """
        entries = self._source.entries
        others = [
            i
            for i in self._by_key.get(self._key.get((folder, clip.id), ()), [])
            if entries[i].id != clip.id
            and 1 / _LONGEST_RATIO < entries[i].frames / clip.frames < _LONGEST_RATIO
        ]
        if not others:
            return None
        nearest = min(others, key=lambda i: abs(entries[i].frames - clip.frames))
        try:
            other = self._source.load(nearest)
        except records.BadRecord:
            return None  # Reported when it is measured itself.
        return other.motion[matching_frames(power, speech_features.power(other))]


def matching_frames(power: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns [T] int, for each frame of a power [T, 40] the one of another that sounds alike."""
    first, second = speech_features.log_mel(power), speech_features.log_mel(other)
    cost = np.sqrt(
        np.maximum((first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T, 0.0)
    )
    return warping_path(cost)


def warping_path(cost: np.ndarray) -> np.ndarray:
    """Returns [N] int, for each row of costs [N, M] a column on the cheapest monotonic path.

    Steps are (1, 0), (0, 1) and (1, 1), from the first to the last corner; of several columns in a
    row the middle one is returned.

    Example:
        >>> warping_path(np.array([[0.0, 9], [0, 9], [9, 0]])).tolist()
        [0, 0, 1]
    """
    total = np.empty_like(cost)
    total[0] = np.cumsum(cost[0])
    for i in range(1, len(cost)):
        above = total[i - 1].copy()
        above[1:] = np.minimum(above[1:], total[i - 1, :-1])
        # total[j] = min over k <= j of above[k] + cost[k] + ... + cost[j]
        along = np.cumsum(cost[i])
        total[i] = along + np.minimum.accumulate(above - (along - cost[i]))
    i, j = len(cost) - 1, cost.shape[1] - 1
    columns: list[list[int]] = [[] for _ in range(len(cost))]
    columns[i].append(j)
    while i or j:
        steps = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        i, j = min(((a, b) for a, b in steps if a >= 0 and b >= 0), key=lambda at: total[at])
        columns[i].append(j)
    return np.array([row[len(row) // 2] for row in columns])
