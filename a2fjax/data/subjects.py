"""Numbers the subjects of a training set and gives them unique names."""

from __future__ import annotations

from collections.abc import Sequence

from a2fjax.data import mixture, records

UNKNOWN = -1
"""Number of every subject outside the training set."""


def training(
    folders: Sequence[str],
    manifests: Sequence[records.Manifest],
    split: str,
    weights: Sequence[float] = (),
) -> dict[tuple[int, str], str]:
    """Returns the subjects with a clip in `split`; a subject's number is its position here.

    Args:
      folders: shard folders.
      manifests: manifest of each folder.
      split: training split.
      weights: `data.weights`; subjects of a dataset with weight 0 are left out.

    Returns:
      Name by (index of the folder, subject), folder by folder in the manifests' order. With several
      folders, names are "<dataset>:<subject>" with dataset names from `mixture.names`, because
      equal subject ids in two datasets are different subjects.
    """
    sets = mixture.names(folders)
    names = {}
    for f, manifest in enumerate(manifests):
        if weights and not weights[f]:
            continue
        present = {entry["subject"] for entry in manifest.entries(split)}
        for subject in manifest.subjects:
            if subject.id in present:
                names[f, subject.id] = subject.id if len(sets) == 1 else f"{sets[f]}:{subject.id}"
    return names


def number(name: str | None, names: Sequence[str]) -> int:
    """Returns the number of a subject in the names from `training`; `UNKNOWN` if it is absent.

    A subject id without a dataset name matches the first dataset that has it.
    """
    for k, known in enumerate(names):
        if name is not None and (known == name or known.endswith(f":{name}")):
            return k
    return UNKNOWN
