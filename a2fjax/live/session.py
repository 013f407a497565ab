"""One live speaker: audio in, frames with the audio that they belong to out."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.live.idle import IdleMotion
from a2fjax.live.one_euro import OneEuro
from a2fjax.live.voice import VoiceActivity

FADE_FRAMES = 8
"""Frames in which an interrupted mouth comes to rest: 160 ms."""
EMOTION_FRAMES = 15
"""Frames in which an emotion changes: 0.3 s, as in the tracks of the training."""


class Stream(Protocol):
    """What a session uses of `a2fjax.streaming.stream.Stream`."""

    emotion: Any
    next_frame: int

    @property
    def delay_seconds(self) -> float:
        """Largest time from a frame's own time to its motion."""

    def push(self, audio: np.ndarray) -> int:
        """Hears samples [S]."""

    def frames(self) -> np.ndarray:
        """Returns the motion [N, 72] that is ready."""

    def close(self) -> np.ndarray:
        """Returns the rest."""

    def reset(self) -> None:
        """Starts anew."""

    def to_bytes(self) -> bytes:
        """Returns the stream's memory."""

    def restore(self, data: bytes, *, name: str = "state") -> None:
        """Goes on from bytes of `to_bytes`."""


@dataclasses.dataclass(frozen=True)
class Frame:
    """A frame of motion and its audio.

    Attributes:
      number: of the frame in its session, from 0; its time is number / 50 s.
      motion: [72] float32 in rig units.
      head: [3] yaw, pitch and roll of the head in degrees, see `idle.HEAD`.
      audio: [320] float32 at 16 kHz that is heard while the frame is shown.
      speaks: whether the audio has a voice.
    """

    number: int
    motion: np.ndarray
    head: np.ndarray
    audio: np.ndarray
    speaks: bool

    @property
    def seconds(self) -> float:
        """Time of the frame in its session."""
        return self.number / rig.FPS


def rest_pose(stream: Stream) -> np.ndarray:
    """Returns the motion [72] of a stream that hears silence; the stream is as new afterwards."""
    stream.reset()
    stream.push(np.zeros(SAMPLE_RATE, np.float32))
    motion = stream.close()[-1]
    stream.reset()
    return motion


class Session:
    """A stream with everything around it; the same samples and calls give the same frames.

    Without idle motion and smoothing, frames are those of the stream, bit for bit.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        idle: IdleMotion | None = None,
        smoothing: OneEuro | None = None,
        rest: np.ndarray | None = None,
    ):
        """Takes over a new stream.

        Args:
          stream: of a2fjax.load(...).stream(...).
          idle: motion to add; None for none.
          smoothing: of the motion; None for none.
          rest: [72] what an interrupted mouth comes to; None for `rest_pose` of the stream.
        """
        self._stream, self._idle, self._smoothing = stream, idle, smoothing
        self._voice = VoiceActivity()
        self._pending = np.zeros(0, np.float32)
        self._heard: collections.deque[np.ndarray] = collections.deque()
        self._last: np.ndarray | None = None  # The motion that left last, before idle motion.
        self._fade: np.ndarray | None = None  # The motion at the interruption.
        self._faded = self._fillers = 0
        self._emotion: np.ndarray | None = None  # What a change leads to.
        self._rest = rest_pose(stream) if rest is None else rest
        self.next_number = 0

    @property
    def delay_seconds(self) -> float:
        """From a sample to the frame that shows it: stream and smoothing; audio waits as long."""
        smoothing = 0.0 if self._smoothing is None else self._smoothing.delay_seconds
        return self._stream.delay_seconds + smoothing

    def push(self, samples: np.ndarray) -> list[Frame]:
        """Hears samples [S] float32 at 16 kHz and returns the frames that they complete.

        Raises:
          InputError: as `Stream.push`.
        """
        self._pending = np.concatenate([self._pending, samples])
        out: list[Frame] = []
        while len(self._pending) >= HOP:
            hop, self._pending = self._pending[:HOP], self._pending[HOP:]
            self._stream.push(hop)
            self._heard.append(hop)
            motion = self._stream.frames()
            if not len(motion) and self._fillers:
                self._fillers -= 1
                out.append(self._frame(self._rest, np.zeros(HOP, np.float32)))
            out.extend(self._frames(motion))
        return out

    def flush(self) -> list[Frame]:
        """Ends an utterance: returns the frames of all that was heard, and starts anew.

        A last part of a hop is filled up with silence.
        """
        if len(self._pending):
            self._stream.push(self._pending)
            self._heard.append(np.pad(self._pending, (0, HOP - len(self._pending))))
            self._pending = self._pending[:0]
        out = self._frames(self._stream.close()) if self._heard else []
        self._restart()
        return out

    def interrupt(self) -> None:
        """Forgets what was heard and not yet shown; the mouth comes to rest in 160 ms.

        Until new audio has passed the stream, a frame leaves with each hop of audio, with silence
        as its audio.
        """
        self._fade = self._last
        self._faded = 0
        self._pending = self._pending[:0]
        self._restart()
        self._fillers = round(self._stream.delay_seconds * rig.FPS) - 1

    def set_emotion(self, weights: np.ndarray) -> None:
        """Goes to another emotion [5] within 0.3 s, from the next frame on.

        Raises:
          InputError: not weights of at least 0 that sum to at most 1.
        """
        first, before = self._stream.next_frame, self._stream.emotion
        start = np.asarray(before(first) if callable(before) else before, np.float32)
        target = np.asarray(weights, np.float32)
        self._stream.emotion = target  # Checked here, rather than within a frame.

        def ramp(frame: int) -> np.ndarray:
            share = min(1.0, max(0.0, (frame - first + 1) / EMOTION_FRAMES))
            return ((1 - share) * start + share * target).astype(np.float32)

        self._stream.emotion = ramp
        self._emotion = target

    def set_identity(self, open_stream: Callable[[], Stream]) -> None:
        """Goes on as somebody else: moves the memory to a stream opened with another identity.

        Args:
          open_stream: returns a new stream of the same run and look-ahead.

        Raises:
          InputError: of another run or look-ahead; nothing changes.
        """
        new = open_stream()
        rest = rest_pose(new)
        new.restore(self._stream.to_bytes())
        new.emotion = self._stream.emotion
        self._stream, self._rest = new, rest

    def _restart(self) -> None:
        self._stream.reset()
        if self._emotion is not None:
            # A change counts the frames of the stream, which begin again.
            self._stream.emotion, self._emotion = self._emotion, None
        self._heard.clear()
        self._fillers = 0

    def _frames(self, motion: np.ndarray) -> list[Frame]:
        return [self._frame(row, self._heard.popleft()) for row in motion]

    def _frame(self, motion: np.ndarray, audio: np.ndarray) -> Frame:
        speaks = self._voice(audio)
        if self._fade is not None:
            self._faded += 1
            share = min(1.0, self._faded / FADE_FRAMES)
            motion = (share * motion + (1 - share) * self._fade).astype(np.float32)
            if share == 1.0:
                self._fade = None
        if self._smoothing is not None:
            motion = self._smoothing(motion)
        self._last = motion
        head = np.zeros(3)
        if self._idle is not None:
            motion, head = self._idle(motion, speaks=speaks)
        number, self.next_number = self.next_number, self.next_number + 1
        return Frame(number, motion, head, audio, speaks)
