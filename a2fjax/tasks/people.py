"""Statistics of the channels of each person of a training set, for sync experts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from a2fjax import rig
from a2fjax.configuration import Config
from a2fjax.data import records, subjects
from a2fjax.data.dataset import ClipSource
from a2fjax.models.syncnet import channels

CLIPS = 4000
"""Maximum number of clips read, spread evenly over each person's clips."""


class Observed(Protocol):
    """Motion of a person: a clip, or what is not one yet.

    Attributes:
      motion: [T, 72] in rig units.
      frame_mask: [T] bool, valid frames.
      channel_mask: [72] bool, observed channels.
    """

    @property
    def motion(self) -> np.ndarray: ...  # noqa: D102 - see the class
    @property
    def frame_mask(self) -> np.ndarray: ...  # noqa: D102
    @property
    def channel_mask(self) -> np.ndarray: ...  # noqa: D102


def constants(
    config: Config, folders: Sequence[Path], manifests: Sequence[records.Manifest]
) -> dict[str, np.ndarray]:
    """Returns "people_mean" and "people_deviation" [N, 72], in the order of `Batch.subject`.

    Channels that a person's clips do not observe have mean 0. Clips that cannot be read are left
    out.
    """
    data = config.data
    named = subjects.training([str(f) for f in folders], manifests, data.split, data.weights)
    clips = ClipSource(folders, data.split)
    own: dict[tuple[int, str], list[int]] = {person: [] for person in named}
    for index, entry in enumerate(clips.entries):
        if (entry.folder, entry.subject) in own:
            own[entry.folder, entry.subject].append(index)
    most = max(CLIPS // max(len(named), 1), 1)
    means, deviations = [], []
    for indices in own.values():
        chosen = np.linspace(0, len(indices) - 1, min(most, len(indices))).round().astype(int)
        mean, deviation = pooled(_readable(clips, [indices[i] for i in np.unique(chosen)]))
        means.append(mean)
        deviations.append(deviation)
    return {"people_mean": np.stack(means), "people_deviation": np.stack(deviations)}


def _readable(clips: ClipSource, indices: Sequence[int]) -> list[records.Clip]:
    found = []
    for index in indices:
        try:
            found.append(clips.load(index))
        except records.BadRecord:
            continue  # Training reports it, or stops, as `data.on_bad_record` says.
    return found


def pooled(clips: Iterable[Observed]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation [72] float32 of the observed frames of one person's clips.

    The deviation is at least `channels.LEAST_DEVIATION`; a channel that was never observed has mean
    0.
    """
    count = np.zeros(rig.NUM_CHANNELS)
    first, second = np.zeros(rig.NUM_CHANNELS), np.zeros(rig.NUM_CHANNELS)
    for clip in clips:
        motion = clip.motion[clip.frame_mask].astype(np.float64) * clip.channel_mask
        count += len(motion) * clip.channel_mask
        first += motion.sum(0)
        second += (motion**2).sum(0)
    count = np.maximum(count, 1.0)
    mean = first / count
    variance = np.maximum(second / count - mean**2, channels.LEAST_DEVIATION**2)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)
