"""Reads the clips of an evaluation subject by subject in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.evaluation.beside import Beside
from a2fjax.metrics.reference import Reference, reference, with_thresholds

CHUNK_CLIPS = 64
CHUNK_FRAMES = 30_000
"""Ten minutes, or one subject if that is longer, because closure thresholds are per subject."""

COMPANION_CLIPS = 16
"""Maximum number of clips from other splits for a subject's closure threshold."""


@dataclasses.dataclass(frozen=True)
class EvalClip:
    """A clip to evaluate.

    Attributes:
      clip: the clip as stored.
      folder: index of its shard folder.
      subject: unique name of the subject over all folders.
      emotion: name of the strongest emotion on average.
      truth: reference for the metrics.
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
      source: source of the clips.
      limit: maximum number of clips, evenly selected; None for all.
      companions: the other splits, which contribute to the closure thresholds. A subject's
        threshold is a percentile of the truth; a single clip without a closure would place it at an
        open mouth.
      beside: alignments, a face and a judge.
      channels: [72] bool, the channels that are measured; None for all that a clip observes.
      skipped: names of unreadable records, filled while reading.
    """

    source: ClipSource
    limit: int | None = None
    companions: Sequence[ClipSource] = ()
    beside: Beside = dataclasses.field(default_factory=Beside)
    channels: np.ndarray | None = None
    skipped: list[str] = dataclasses.field(default_factory=list)

    def chunks(self) -> Iterator[list[EvalClip]]:
        """Yields lists of clips that hold whole subjects and fit into memory."""
        subjects: dict[str, list[int]] = {}
        for i in self.chosen():
            entry = self.source.entries[i]
            subjects.setdefault(self.subject(entry.folder, entry.subject), []).append(i)
        pending: list[int] = []
        for indices in subjects.values():
            frames = sum(self.source.entries[i].frames for i in pending + indices)
            if pending and (len(pending) + len(indices) > CHUNK_CLIPS or frames > CHUNK_FRAMES):
                yield self._read(pending)
                pending = []
            pending = pending + indices
        if pending:
            yield self._read(pending)

    def subject(self, folder: int, name: str) -> str:
        """Returns a subject's unique name, since different folders may share ids."""
        return unique_subject(folder, name, len(self.source.folders))

    def chosen(self) -> Sequence[int]:
        """Returns the indices of the clips in `source`."""
        count = len(self.source)
        if self.limit is None or count <= self.limit:
            return range(count)
        return np.linspace(0, count - 1, self.limit).round().astype(int).tolist()

    def _read(self, indices: list[int]) -> list[EvalClip]:
        clips: list[EvalClip] = []
        for i in indices:
            entry = self.source.entries[i]
            try:
                clip = self._masked(self.source.load(i))
            except records.BadRecord as error:
                self.skipped.append(f"{entry.name}: {error}")
                continue
            truth = self.beside.reference(clip, _reference(clip))
            emotion = rig.EMOTIONS[int(clip.emotion.mean(0).argmax())]
            subject = self.subject(entry.folder, entry.subject)
            clips.append(EvalClip(clip, entry.folder, subject, emotion, truth))
        others = list(self._companions({s.subject for s in clips}))
        truths = with_thresholds(
            [s.truth for s in clips] + [truth for truth, _ in others],
            [s.subject for s in clips] + [name for _, name in others],
        )[: len(clips)]
        judge = self.beside.judge
        if judge is not None:
            seated = judge.seated([s.clip for s in clips], [s.subject for s in clips])
            truths = [dataclasses.replace(t, judged=j) for t, j in zip(truths, seated, strict=True)]
        return [dataclasses.replace(s, truth=t) for s, t in zip(clips, truths, strict=True)]

    def _masked(self, clip: records.Clip) -> records.Clip:
        if self.channels is None:
            return clip
        return dataclasses.replace(clip, channel_mask=clip.channel_mask & self.channels)

    def _companions(self, subjects: set[str]) -> Iterator[tuple[Reference, str]]:
        for source in self.companions:
            by_subject: dict[str, list[int]] = {}
            for i, entry in enumerate(source.entries):
                name = self.subject(entry.folder, entry.subject)
                if name in subjects:
                    by_subject.setdefault(name, []).append(i)
            for name, indices in by_subject.items():
                step = -(-len(indices) // COMPANION_CLIPS)
                for i in indices[::step]:
                    try:
                        yield _reference(self._masked(source.load(i))), name
                    except records.BadRecord:
                        continue  # Reported when its own split is measured.


def unique_subject(folder: int, subject: str, folders: int) -> str:
    """Returns a subject's unique name among `folders` folders, which may share ids."""
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
    """Returns the neutral meshes of all subjects with a mesh, by unique name.

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
