"""Held-out clips by person, and altered copies that an expert must not be fooled by."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.batch import Batch
from a2fjax.data import padding, records
from a2fjax.data.dataset import ClipSource
from a2fjax.models.syncnet.channels import Statistics
from a2fjax.tasks import people

CLIPS_A_PERSON = 40
"""Most clips measured of a person, spread evenly."""

LEAST_ENVELOPE = 1e-4


@dataclasses.dataclass(frozen=True)
class Take:
    """A clip of a person, ready for an expert.

    Attributes:
      id: of the clip.
      person: unique over all folders.
      emotion, language: of the clip; "unknown" where not given.
      batch: the clip as a batch of one, padded to a few lengths.
      statistics: of the person's channels.
    """

    id: str
    person: str
    emotion: str
    language: str
    batch: Batch
    statistics: Statistics

    @property
    def frames(self) -> int:
        """Frames of the clip."""
        return int(self.batch.length[0])


@dataclasses.dataclass
class People:
    """The clips of a split, person by person.

    Attributes:
      source: source of the clips.
      most: clips a person.
      left_out: indices of clips that are not read.
      skipped: names of unreadable records, filled while reading.
    """

    source: ClipSource
    most: int = CLIPS_A_PERSON
    left_out: frozenset[int] = frozenset()
    skipped: list[str] = dataclasses.field(default_factory=list)

    def names(self) -> list[str]:
        """Returns the people of the split, in the order of the clips."""
        return list(self._indices())

    def __iter__(self) -> Iterator[tuple[str, list[Take]]]:
        """Yields each person with clips that can be read, and these."""
        for person, indices in self._indices().items():
            chosen = np.linspace(0, len(indices) - 1, min(self.most, len(indices)))
            clips = []
            for i in np.unique(chosen.round().astype(int)):
                try:
                    clips.append(self.source.load(indices[i]))
                except records.BadRecord as error:
                    self.skipped.append(f"{self.source.entries[indices[i]].name}: {error}")
            if clips:
                yield person, takes(person, clips)

    def _indices(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        several = len(self.source.folders) > 1
        for index, entry in enumerate(self.source.entries):
            if index in self.left_out:
                continue
            name = f"{entry.folder}:{entry.subject}" if several else entry.subject
            found.setdefault(name, []).append(index)
        return found


def takes(person: str, clips: Sequence[records.Clip]) -> list[Take]:
    """Returns the takes of one person, whose statistics are those of these clips."""
    mean, deviation = people.pooled(clips)
    statistics = Statistics(mean[None], deviation[None])
    return [
        Take(
            id=clip.id,
            person=person,
            emotion=rig.EMOTIONS[int(clip.emotion.mean(0).argmax())],
            language=clip.language or "unknown",
            batch=to_batch(clip),
            statistics=statistics,
        )
        for clip in clips
    ]


def to_batch(clip: records.Clip) -> Batch:
    """Returns a clip as a batch of one; only the fields that experts read are filled."""
    audio, _ = padding.padded_audio(clip)
    return batch_of_one(audio, clip.motion, clip.frame_mask, clip.channel_mask)


def batch_of_one(
    audio: np.ndarray, motion: np.ndarray, frame_mask: np.ndarray, channel_mask: np.ndarray
) -> Batch:
    """Returns sound and motion as a batch of one; only the fields that experts read are filled.

    Args:
      audio: [S] float32, normalised and padded to whole frames, S = 320 T'.
      motion: [T, 72], T <= T'.
      frame_mask: [T] bool.
      channel_mask: [72] bool.
    """
    frames, length = len(audio) // HOP, len(motion)
    padded = np.zeros((1, frames, rig.NUM_CHANNELS), np.float32)
    padded[0, :length] = motion
    mask = np.zeros((1, frames), bool)
    mask[0, :length] = frame_mask
    return Batch.zeros(1, frames, 0).replace(
        audio=audio[None],
        motion=padded,
        channel_mask=np.asarray(channel_mask)[None],
        frame_mask=mask,
        length=np.array([length], np.int32),
        subject=np.array([-1], np.int32),
    )


# ---- altered copies --------------------------------------------------------------------------


def reversed_motion(take: Take) -> Batch:
    """Returns the clip with its motion running backwards."""
    motion = take.batch.motion.copy()
    motion[:, : take.frames] = motion[:, : take.frames][:, ::-1]
    return take.batch.replace(motion=motion)


def halved_motion(take: Take) -> Batch:
    """Returns the clip with half the amplitude about the person's mean."""
    mean = np.asarray(take.statistics.mean)[:, None]
    return take.batch.replace(motion=(mean + 0.5 * (take.batch.motion - mean)).astype(np.float32))


def other_motion(take: Take, other: Take) -> Batch:
    """Returns the clip with the motion of another one, from its middle on and repeated.

    From the middle, because utterances begin and end alike: that would not be chance. The motion
    is moved and scaled from the other person's statistics to this one's.
    """
    theirs = other.batch.motion[0, : other.frames]
    place = (np.arange(take.batch.motion.shape[1]) + other.frames // 2) % other.frames
    own, their = take.statistics, other.statistics
    scaled = (theirs[place] - their.mean[0]) / their.deviation[0]
    motion = np.asarray(own.mean[0] + scaled * own.deviation[0], np.float32)
    return take.batch.replace(
        motion=motion[None], channel_mask=take.batch.channel_mask & other.batch.channel_mask
    )


def noise_with_envelope(take: Take, seed: int) -> Batch:
    """Returns the clip with white noise of its audio's level, frame by frame."""
    audio = take.batch.audio[0]
    frames = audio.reshape(-1, HOP).astype(np.float64)
    level = np.sqrt(np.mean(frames**2, axis=1))
    middle = (np.arange(len(level)) + 0.5) * HOP
    envelope = np.interp(np.arange(len(audio)), middle, level)
    rng = np.random.default_rng([seed, take.frames, len(take.id)])
    noise = rng.standard_normal(len(audio)) * envelope
    noise[envelope < LEAST_ENVELOPE] = 0.0
    return take.batch.replace(audio=noise.astype(np.float32)[None])


def only_channels(take: Take, channels: np.ndarray) -> Batch:
    """Returns the clip in which no other channels than those of these indices are observed."""
    kept = np.isin(np.arange(rig.NUM_CHANNELS), channels)
    return take.batch.replace(channel_mask=take.batch.channel_mask & kept)


CHANNEL_SETS = {
    "no_tongue": np.setdiff1d(rig.GROUPS["all"], rig.GROUPS["tongue"]),
    "lips": rig.GROUPS["mouth"],
    "jaw": rig.GROUPS["jaw"],
}
"""Sets of channels that captures observe, beside all that were observed."""
