"""Recordings of any length in bounded memory: overlapping chunks, joined where both know the past
and the future.

A bidirectional network lets every frame depend on all others, but what is seconds away hardly
matters. So a recording is cut into chunks of `CHUNK_SECONDS`, each is given `CONTEXT_SECONDS` of
sound on both sides, and neighbours are cross-faded in the middle of what they share. The level of
the speech is measured over the whole recording first, so that a quiet passage is not raised.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

import numpy as np

from a2fjax import rig
from a2fjax.animation.emotion import EmotionTrack
from a2fjax.audio import HOP, level, num_frames
from a2fjax.infer.predictor import Mesh, Predictor
from a2fjax.infer.sampling import Inpainting

CHUNK_SECONDS = 24.72
"""With its context 1536 frames, one of the lengths that predictors pad to."""

CONTEXT_SECONDS = 3.0
"""With a bidirectional GRU of 256 units trained for 400 steps, 200 s of read speech cut into 6 s
chunks differ from the whole by at most 0.0017 (RMS 0.00004) of a weight; with 2 s of context by
0.0045, with 1 s by 0.019. No step at a join is larger than those inside."""

FADE_FRAMES = 10
BLOCK_SECONDS = 10.0
"""Of the blocks that recordings are read in; a whole number of motion frames."""


class RecordingStats:
    """What a first pass over a recording finds out, in bounded memory.

    Attributes:
      samples: at 16 kHz.
      speech_level: RMS of the speech, the same as `level.speech_level` of the whole recording.
      low, high: [frames] smallest and largest sample of each motion frame, for a drawing.
    """

    def __init__(self, blocks: Iterable[np.ndarray]):
        """Reads all blocks; each but the last holds whole motion frames."""
        levels, low, high = [], [], []
        self.samples = 0
        for block in blocks:
            # A last piece shorter than a frame has no say, unless it is all there is.
            if len(block) >= HOP or not self.samples:
                levels.append(level.frame_levels(block))
            self.samples += len(block)
            starts = np.arange(0, len(block), HOP)
            low.append(np.minimum.reduceat(block, starts))
            high.append(np.maximum.reduceat(block, starts))
        self.speech_level = level.speech_level_of_frames(np.concatenate(levels))
        self.low, self.high = np.concatenate(low), np.concatenate(high)

    @property
    def frames(self) -> int:
        """Motion frames that cover the recording."""
        return num_frames(self.samples)


def predict(
    predictor: Predictor,
    blocks: Iterable[np.ndarray],
    survey: RecordingStats,
    *,
    identity: Mesh | np.ndarray | None = None,
    emotion: EmotionTrack | None = None,
    subject: str | None = None,
    take: int = 0,
    edit: Inpainting | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yields the motion [n, 72] of a recording in consecutive parts, T frames in all.

    A recording that fits into one chunk with its context is predicted whole, which gives exactly
    what the predictor gives. Memory does not grow with the length of the recording.

    Args:
      predictor: audio to motion.
      blocks: the recording at 16 kHz, again from its start.
      survey: of the same blocks.
      identity: see `Predictor`; a mesh is sampled once.
      emotion: over the whole recording; None for neutral.
      subject: see `Predictor`.
      take: of a model that samples; its noise belongs to frames of the recording, so neighbouring
        chunks make the same motion where they overlap.
      edit: what stays of curves that were there; None for nothing.
      chunk_seconds: that a chunk contributes; longer than the context.
      context_seconds: given to each side of it.
      progress: called with the number of frames done.
    """
    core, context = round(chunk_seconds * rig.FPS), round(context_seconds * rig.FPS)
    if predictor.most_frames is not None:
        # A chunk is encoded at once: where an encoder's windows join, its features disagree.
        core = min(core, predictor.most_frames - 2 * context)
    # A chunk starts where lower levels of the model's rate fall on the same frames as before it.
    stride = predictor.stride
    if stride > 1:
        core = (core - stride) // stride * stride
    fade = min(FADE_FRAMES // 2, context)
    if core < max(context, 2 * FADE_FRAMES):
        raise ValueError(f"chunks of {chunk_seconds} s with {context_seconds} s of context")
    if isinstance(identity, tuple):
        identity = predictor.points(identity)
    total = survey.frames
    size = core + 2 * context
    stream = _Window(blocks)
    tail = np.zeros((0, rig.NUM_CHANNELS), np.float32)
    ends = [total] if total <= size else [*range(core, total - context, core), total]
    begin = 0
    for end in ends:
        # Every chunk has the same length, so one program serves all of them.
        first = max(0, begin - context) // stride * stride
        if first + size > total:
            first = -(-max(0, total - size) // stride) * stride
        last = min(total, first + size)
        more = {}
        if edit is not None:
            more["motion"], more["kept"] = edit.part(first, last)
        motion = predictor(
            stream.read(first, last),
            take=take,
            start=first,
            **more,
            identity=identity,
            emotion=None if emotion is None else emotion.sample(last - first, first),
            speech_level=survey.speech_level,
            subject=subject,
        )
        # From here on frames count from the end of what was yielded.
        start = max(0, begin - fade)
        rising = (np.arange(len(tail), dtype=np.float32)[:, None] + 0.5) / max(1, len(tail))
        motion = motion[start - first :].copy()
        motion[: len(tail)] = tail * (1 - rising) + motion[: len(tail)] * rising
        keep = total if end == total else end - fade
        yield motion[: keep - start]
        tail = motion[keep - start : keep - start + 2 * fade]
        begin = end
        if progress is not None:
            progress(keep)


class _Window:
    """The part of a stream of blocks that is needed now."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = iter(blocks)
        self._held: list[np.ndarray] = []
        self._first = 0
        self._count = 0

    def read(self, first: int, last: int) -> np.ndarray:
        """Returns the samples of frames `first` to `last`; what is before is dropped for good."""
        while self._first + self._count < last * HOP:
            block = next(self._blocks, None)
            if block is None:
                break
            self._held.append(block)
            self._count += len(block)
        joined = np.concatenate(self._held)[first * HOP - self._first :]
        self._held, self._first, self._count = [joined], first * HOP, len(joined)
        return joined[: (last - first) * HOP]


class Progress:
    """A line on the console with the time that is left, for recordings that take a while."""

    def __init__(self, frames: int, *, out: TextIO | None = None, after: float = 3.0):
        """Starts the clock.

        Args:
          frames: in all.
          out: standard error by default.
          after: seconds of work before the first line.
        """
        self._frames, self._after = frames, after
        self._out = sys.stderr if out is None else out
        self._start = time.monotonic()
        self._shown = self._start

    def __call__(self, done: int) -> None:
        """Says how far it is, at most once a second on a terminal and every 10 s elsewhere."""
        now = time.monotonic()
        terminal = self._out.isatty()
        spent = now - self._start
        if not done or spent < self._after:
            return
        if done < self._frames and now - self._shown < (1.0 if terminal else 10.0):
            return
        self._shown = now
        left = spent * (self._frames - done) / done
        line = (
            f"{_clock(done / rig.FPS)} of {_clock(self._frames / rig.FPS)} done "
            f"({100 * done / self._frames:.0f} %), {done / rig.FPS / spent:.0f} x real time, "
            f"{_clock(left)} left"
        )
        end = "\n" if not terminal or done >= self._frames else ""
        print(("\r" if terminal else "") + line + "   " * terminal, end=end, file=self._out)
        self._out.flush()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
