"""Summaries of several datasets and their mixture as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.configuration import DataConfig, check_weights
from a2fjax.data import mixture
from a2fjax.view.dataset_summary import DatasetSummary, count, grouped, read, wrapped
from a2fjax.view.text import duration, short, table


def mixture_lines(
    folders: Sequence[str | Path], weights: Sequence[float] = (), split: str = "train"
) -> list[str]:
    """Returns a table of several datasets and their mixture.

    Args:
      folders: folders of shards.
      weights: as in `data.weights`; () weights by amount of speech.
      split: training split.

    Raises:
      InputError: as for `read`, or the weights do not fit the datasets.
    """
    if weights:
        check_weights(weights, [str(f) for f in folders])
    sets = [read(folder) for folder in folders]
    frames = mixture.frames_by_set([s.manifest for s in sets], split)
    names = mixture.names([str(f) for f in folders])
    data = DataConfig(shards=tuple(map(str, folders)), split=split, weights=tuple(weights))
    shares = mixture.shares(data, data.shards, frames, split)
    rows = [
        _row(short(name, 24), [each], share, frames[i] / frames.sum(), split)
        for i, (name, each, share) in enumerate(zip(names, sets, shares, strict=True))
    ]
    rows.append(_row("together", sets, 1.0, 1.0, split))
    header = ("set", "clips", split, "other", "people", "meshes", "channels", "languages")
    by = "weights" if weights else "amount of speech"
    out = [
        f"{count(len(sets), 'set')}, mixed by {by}: of all speech, and of all windows, a set has",
        "",
    ]
    out += table(rows, (*header, "speech", "windows")) + [""]
    if weights:
        # Number of times that a frame of a dataset is drawn in one epoch of the mixture.
        total = frames[shares > 0].sum()
        for name, share, n in zip(names, shares, frames, strict=True):
            often = f"each clip comes up {share * total / n:.2f} times an epoch for its length"
            out.append(f"  {name}: {often if share else 'left out'}")
        out.append("")
    out += _overlap(names, sets)
    return out


def _row(
    name: str, sets: list[DatasetSummary], share: float, speech: float, split: str
) -> tuple[Any, ...]:
    mask = np.any([s.mask for s in sets], axis=0)
    languages: Counter[str] = sum((s.languages for s in sets), Counter())
    spoken = [k or "unknown" for k, _ in languages.most_common(3)]
    more = f" +{len(languages) - 3}" if len(languages) > 3 else ""
    train = sum(s.seconds(split) for s in sets)
    other = sum(s.seconds() - s.seconds(split) - s.seconds("unused") for s in sets)
    return (
        name,
        sum(len(s.clips) for s in sets),
        duration(train),
        duration(other),
        sum(len(s.manifest.subjects) for s in sets),
        sum(x.mesh is not None for s in sets for x in s.manifest.subjects),
        int(mask.sum()),
        " ".join(spoken) + more,
        f"{speech:.1%}",
        f"{share:.1%}",
    )


def _overlap(names: Sequence[str], sets: list[DatasetSummary]) -> list[str]:
    masks = np.stack([s.mask for s in sets])
    out = [f"  observed in every set: {masks.all(axis=0).sum()} channels"]
    for name, mask, others in zip(
        names, masks, [np.delete(masks, i, 0).any(0) for i in range(len(sets))], strict=True
    ):
        only = [rig.CHANNELS[i] for i in np.flatnonzero(mask & ~others)]
        if only:
            out += wrapped(f"only in {name}: {', '.join(grouped(only))}")
    nowhere = [rig.CHANNELS[i] for i in np.flatnonzero(~masks.any(axis=0))]
    if nowhere:
        out += wrapped(f"in none (they stay at rest): {', '.join(grouped(nowhere))}")
    return out
