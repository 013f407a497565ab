"""Who the people of a training set are: a number for each, and names that tell them apart."""

from __future__ import annotations

from collections.abc import Sequence

from a2fjax.data import mixture, records

UNKNOWN = -1
"""Number of everybody who is not of the training set."""


def training(
    folders: Sequence[str],
    manifests: Sequence[records.Manifest],
    split: str,
    weights: Sequence[float] = (),
) -> dict[tuple[int, str], str]:
    """Returns the people with a clip in `split`; a person's number is the place here.

    Args:
      folders: of shards.
      manifests: of each.
      split: that is trained on.
      weights: as `data.weights`; nobody is trained on of a set whose weight is 0.

    Returns:
      Name by (index of the folder, subject), folder by folder in the manifests' order. With several
      folders names are "<set>:<subject>", with `mixture.names` for the sets: equal subject names of
      two sets are two people.
    """
    sets = mixture.names(folders)
    found = {}
    for f, manifest in enumerate(manifests):
        if weights and not weights[f]:
            continue
        present = {entry["subject"] for entry in manifest.entries(split)}
        for subject in manifest.subjects:
            if subject.id in present:
                found[f, subject.id] = subject.id if len(sets) == 1 else f"{sets[f]}:{subject.id}"
    return found


def number(name: str | None, names: Sequence[str]) -> int:
    """Returns the number of a person among `names` of `training`, `UNKNOWN` for anybody else.

    A subject's bare name stands for the first set that has it.
    """
    for k, known in enumerate(names):
        if name is not None and (known == name or known.endswith(f":{name}")):
            return k
    return UNKNOWN
