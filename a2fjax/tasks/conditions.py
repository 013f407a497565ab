"""Statistics of the conditions of a training set: which emotions and what sounds it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.audio import sound_descriptor
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.models import familiarity

SOUND_CLIPS = 64
"""Number of clips that describe the sound, spread evenly over the training split."""

_BLENDED = 1e-3
"""Share of an emotion that occurs in blends only."""

_LEAST_DEVIATION_DB = 3.0
"""Two clean recordings of one voice differ by this much, whatever the training set."""


def emotion_statistics(
    manifests: Sequence[records.Manifest], split: str, weights: Sequence[float] | np.ndarray
) -> dict[str, np.ndarray]:
    """Returns "emotion_share" [5]: the share of each emotion, 0 for one that never occurs.

    Args:
      manifests: manifests of the datasets.
      split: the training split.
      weights: weight of each dataset; those of weight 0 are left out.
    """
    share = np.zeros(rig.NUM_EMOTIONS)
    for manifest, weight in zip(manifests, weights, strict=True):
        if not weight:
            continue
        entries = manifest.entries(split)
        frames = sum(entry["frames"] for entry in entries)
        for e, name in enumerate(rig.EMOTIONS):
            own = sum(entry["frames"] for entry in entries if entry["emotion"] == name)
            blended = manifest.statistics.get("emotion_mean", {}).get(name) is not None
            share[e] += weight * max(own / max(frames, 1), _BLENDED * blended)
    total = share.sum()
    # Manifests that name no emotion tell nothing about which are unknown.
    share = share / total if total else np.full(rig.NUM_EMOTIONS, 1.0 / rig.NUM_EMOTIONS)
    return {"emotion_share": share.astype(np.float32)}


def sound_statistics(folders: Sequence[Path], split: str) -> dict[str, np.ndarray]:
    """Returns "sound_mean", "sound_deviation" [D] and "sound_bounds" [2] of the training clips.

    D values describe a clip, see `sound_descriptor`; deviation and bounds are those of
    `familiarity.spread`. Clips that cannot be read are left out.
    """
    clips = ClipSource(folders, split)
    rows = []
    for index in clips.spread(SOUND_CLIPS):
        try:
            clip = clips.load(int(index))
        except records.BadRecord:
            continue  # Training reports it, or stops, as `data.on_bad_record` says.
        levels = sound_descriptor.band_levels(clip.audio)
        described = sound_descriptor.describe(levels, clip.speech_level)
        if described is not None:
            rows.append(described)
    width = sound_descriptor.WIDTH
    table = np.array(rows).reshape(-1, width)
    deviation, bounds = familiarity.spread(table, sound_descriptor.GROUPS, _LEAST_DEVIATION_DB)
    mean = table.mean(0) if len(table) else np.zeros(width)
    return {
        "sound_mean": mean.astype(np.float32),
        "sound_deviation": deviation,
        "sound_bounds": bounds,
    }
