"""The clips that are measured, read person by person in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.metrics.reference import Reference, reference, with_thresholds

CHUNK_CLIPS = 64
CHUNK_FRAMES = 30_000
"""Ten minutes. Whole people are kept together beyond it: closure thresholds are per person."""

COMPANION_CLIPS = 16
"""A person's clips of other splits that help to find the closure threshold, at most."""


@dataclasses.dataclass(frozen=True)
class EvalClip:
    """A clip to measure.

    Attributes:
      clip: as stored.
      folder: index of its shard folder.
      subject: unique name of the person over all folders.
      emotion: name of the emotion that is strongest on average.
      truth: as the metrics see it.
    """

    clip: records.Clip
    folder: int
    subject: str
    emotion: str
    truth: Reference


@dataclasses.dataclass
class SplitClips:
    """The clips of one split.

    Attributes:
      source: the clips.
      limit: measure at most this many clips, taken evenly; None for all.
      companions: the other splits. A person's closure threshold is a percentile of their truth; one
        clip that happens to have no closure would put it at an open mouth.
      skipped: names of records that could not be read, filled while reading.
    """

    source: ClipSource
    limit: int | None = None
    companions: Sequence[ClipSource] = ()
    skipped: list[str] = dataclasses.field(default_factory=list)

    def chunks(self) -> Iterator[list[EvalClip]]:
        """Yields the samples in lists of whole people, each list small enough to hold."""
        people: dict[str, list[int]] = {}
        for i in self._chosen():
            entry = self.source.entries[i]
            people.setdefault(self.subject(entry.folder, entry.subject), []).append(i)
        held: list[int] = []
        for indices in people.values():
            frames = sum(self.source.entries[i].frames for i in held + indices)
            if held and (len(held) + len(indices) > CHUNK_CLIPS or frames > CHUNK_FRAMES):
                yield self._read(held)
                held = []
            held = held + indices
        if held:
            yield self._read(held)

    def subject(self, folder: int, name: str) -> str:
        """Returns a person's unique name: ids of different folders may be equal."""
        return unique_subject(folder, name, len(self.source.folders))

    def _chosen(self) -> Sequence[int]:
        count = len(self.source)
        if self.limit is None or count <= self.limit:
            return range(count)
        return np.linspace(0, count - 1, self.limit).round().astype(int).tolist()

    def _read(self, indices: list[int]) -> list[EvalClip]:
        found: list[EvalClip] = []
        for i in indices:
            entry = self.source.entries[i]
            try:
                clip = self.source.load(i)
            except records.BadRecord as error:
                self.skipped.append(f"{entry.name}: {error}")
                continue
            truth = _reference(clip)
            emotion = rig.EMOTIONS[int(clip.emotion.mean(0).argmax())]
            subject = self.subject(entry.folder, entry.subject)
            found.append(EvalClip(clip, entry.folder, subject, emotion, truth))
        others = list(self._companions({s.subject for s in found}))
        truths = with_thresholds(
            [s.truth for s in found] + [truth for truth, _ in others],
            [s.subject for s in found] + [name for _, name in others],
        )[: len(found)]
        return [dataclasses.replace(s, truth=t) for s, t in zip(found, truths, strict=True)]

    def _companions(self, people: set[str]) -> Iterator[tuple[Reference, str]]:
        for source in self.companions:
            own: dict[str, list[int]] = {}
            for i, entry in enumerate(source.entries):
                name = self.subject(entry.folder, entry.subject)
                if name in people:
                    own.setdefault(name, []).append(i)
            for name, indices in own.items():
                step = -(-len(indices) // COMPANION_CLIPS)
                for i in indices[::step]:
                    try:
                        yield _reference(source.load(i)), name
                    except records.BadRecord:
                        continue  # Not measured here; the split it is of names it.


def unique_subject(folder: int, subject: str, folders: int) -> str:
    """Returns a person's name over `folders` folders: ids of different ones may be equal."""
    return subject if folders == 1 else f"{folder}:{subject}"


def _reference(clip: records.Clip) -> Reference:
    return reference(
        clip.motion,
        clip.audio,
        channel_mask=clip.channel_mask,
        frame_mask=clip.frame_mask,
        speech_level=clip.speech_level,
    )


def neutral_meshes(
    folders: Sequence[str | Path], manifests: Sequence[records.Manifest]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns the neutral mesh of every person that has one, by unique name.

    Raises:
      InputError: a mesh file is missing or damaged.
    """
    out = {}
    for f, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        for subject in manifest.subjects:
            if subject.mesh is not None:
                name = unique_subject(f, subject.id, len(folders))
                out[name] = records.read_mesh(Path(folder) / subject.mesh)
    return out
