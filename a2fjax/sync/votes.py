"""Votes of a recording: an expert's scores of its windows of 2 s over the offset.

A recording of any length is heard piece by piece, in few sizes, so that memory does not grow with
it and few programs are compiled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, level
from a2fjax.batch import Batch
from a2fjax.models.syncnet.channels import Statistics
from a2fjax.sync import clips, measures
from a2fjax.sync.expert import Expert
from a2fjax.sync.offsets import LARGEST_SEARCH, NO_VOTES, Votes

SIZES = (200, 500, 1000)
"""Frames of the pieces that experts are given: 4, 10 and 20 s."""

_STEP = measures.LONG  # frames between the first windows of neighbouring votes
_HOP = measures.HOP


@dataclasses.dataclass(frozen=True)
class Recording:
    """Sound and motion of a recording on one clock.

    Attributes:
      audio: [S] float32, 16 kHz.
      motion: [T, 72] float32 in rig units at 50 frames a second; frame t is at sample 320 t.
      frame_mask: [T] bool, valid frames.
      channel_mask: [72] bool, observed channels.
    """

    audio: np.ndarray
    motion: np.ndarray
    frame_mask: np.ndarray
    channel_mask: np.ndarray


def cast(
    expert: Expert,
    recording: Recording,
    mean: np.ndarray,
    deviation: np.ndarray,
    search: float,
) -> Votes:
    """Returns the votes of a recording; none without speech and motion, or if it is too short.

    A window's motion is compared with the sound at all offsets, and counts only if the recording
    has that sound. The range is therefore smaller in recordings shorter than 2 s and twice it.

    Args:
      expert: the judge.
      recording: sound and motion.
      mean: [72] of the person's channels; see `a2fjax.tasks.people.pooled`.
      deviation: [72] of them.
      search: largest offset, s, at most `LARGEST_SEARCH`.
    """
    if not 0 < search <= LARGEST_SEARCH:
        raise ValueError(f"search {search:g} s: expected more than 0, at most {LARGEST_SEARCH:g}")
    frames = min(len(recording.motion), -(-len(recording.audio) // HOP))
    # In steps, as every range is compiled by itself.
    room = (frames - measures.LONG - _HOP) // (2 * _HOP) * _HOP
    reach = min(round(search * rig.FPS), room)
    if reach < 1:
        return NO_VOTES
    statistics = Statistics(mean[None], deviation[None])
    offsets = tuple(range(-reach, reach + 1))
    curves = np.zeros((-(-frames // _STEP), len(offsets)))
    counts = np.zeros(len(curves), int)
    for batch, start, first, last in _pieces(expert, recording, frames, reach):
        mask = measures.counted(batch, statistics, measures.LONG, 0, reach)
        windows = np.flatnonzero(mask)
        windows = windows[(windows + start >= first) & (windows + start < last)]
        if not len(windows):
            continue
        vectors = expert.embed(batch, statistics)
        scores = measures.window_scores(expert, *vectors, measures.LONG, offsets)[:, windows]
        vote = (windows + start) // _STEP
        np.add.at(curves, vote, scores.T)
        np.add.at(counts, vote, 1)
    return Votes(curves[counts > 0])


def _pieces(
    expert: Expert, recording: Recording, frames: int, reach: int
) -> Iterator[tuple[Batch, int, int, int]]:
    """Yields pieces: a batch of one, its first frame, and the range of windows that it counts."""
    margin = -(-(reach + expert.audio_reach) // _HOP) * _HOP
    loudness = level.speech_level(recording.audio)
    room = SIZES[-1] - 2 * margin - measures.LONG
    core = room // _STEP * _STEP if frames > SIZES[-1] else frames
    for first in range(0, frames, core):
        start = max(0, first - margin)
        end = min(frames, first + core + measures.LONG + margin)
        if end - start < measures.LONG:
            return
        yield _batch(recording, loudness, start, end), start, first, first + core


def _batch(recording: Recording, loudness: float, start: int, end: int) -> Batch:
    length = end - start
    size = next(s for s in SIZES if s >= length)
    sound = np.zeros(size * HOP, np.float32)
    part = level.normalise(recording.audio[start * HOP : end * HOP], loudness)
    sound[: len(part)] = part
    place = slice(start, end)
    return clips.batch_of_one(
        sound, recording.motion[place], recording.frame_mask[place], recording.channel_mask
    )
