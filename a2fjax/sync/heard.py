"""Which clips to measure an expert has heard in training, by the index of the training shards.

A clip was heard if its sound was: `records.sound`, whatever the clip is called. A person was heard
if one of their clips was, or if they are named as a person of the training. One name in two folders
of the training is two people; whether one in other data is a third, nobody can tell, so such a
person does not count as unheard. Shards of earlier builds hold no sounds and are compared by names
alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.sync import bars


@dataclasses.dataclass(frozen=True)
class Heard:
    """The people and sounds that an expert was trained on.

    Attributes:
      names: names of its people by folder, as `Path.resolve` writes it.
      sounds: `records.sound` of its clips.
    """

    names: Mapping[str, frozenset[str]]
    sounds: frozenset[str]

    def left_out(self, source: ClipSource) -> dict[str, list[int]]:
        """Returns the indices of a split's clips that do not count as held out, by person.

        Of held-out people all clips of one who was heard are left out, of held-out sentences the
        clips that were heard.
        """
        entries = list(enumerate(source.entries))
        heard = [(i, e) for i, e in entries if e.sound and e.sound in self.sounds]
        if source.split == bars.PEOPLE:
            people = {(e.folder, e.subject) for _, e in heard}
            every = frozenset().union(*self.names.values())
            own = [self.names.get(str(Path(f).resolve()), every) for f in source.folders]
            heard = [
                (i, e)
                for i, e in entries
                if (e.folder, e.subject) in people or e.subject in own[e.folder]
            ]
        out: dict[str, list[int]] = {}
        for i, entry in heard:
            out.setdefault(entry.subject, []).append(i)
        return out


def read(folders: Sequence[str | Path], split: str) -> Heard:
    """Returns what an expert that was trained on a split of shards has heard.

    Args:
      folders: the training shards.
      split: its training split.

    Raises:
      InputError: no such folder.
    """
    names, sounds = {}, set()
    for folder in folders:
        entries = records.read_manifest(folder).entries(split)
        names[str(Path(folder).resolve())] = frozenset(entry["subject"] for entry in entries)
        sounds |= {entry.get("sound", "") for entry in entries}
    return Heard(names, frozenset(sounds - {""}))
