"""Motion from audio that is still coming, with a stated look-ahead and bounded state.

A chunk of motion is predicted once its audio and `lookahead` frames beyond have come, from those
and `context` frames before; of neighbouring chunks, what both predicted is cross-faded. The motion
of a frame is thus known `Stream.latency` seconds after its audio at most. Models that sample draw
noise that belongs to frames of the stream, so chunks of a take go on from one another.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, level
from a2fjax.errors import InputError
from a2fjax.infer.predictor import Mesh, Predictor

LEVEL_SECONDS = 60.0
"""Of the latest audio, over which the level of the speech is measured."""


@dataclasses.dataclass(frozen=True)
class Chunking:
    """How a stream is cut; frames of 20 ms.

    Attributes:
      chunk: frames that come out at once.
      lookahead: frames of audio beyond a chunk that its prediction hears.
      context: frames of audio before it; the sum of all three is predicted each time.
      fade: frames over which the chunk before goes over into this one, at most `lookahead`.
    """

    chunk: int = 8
    lookahead: int = 16
    context: int = 104
    fade: int = 4


class StreamingPredictor:
    """One recording, or one speaker's microphone, on its way.

    State is `context + chunk + lookahead` frames of audio, `fade` frames of motion and levels of
    the last minute, however long the stream.
    """

    def __init__(
        self,
        predictor: Predictor,
        chunking: Chunking | None = None,
        *,
        identity: Mesh | np.ndarray | None = None,
        emotion: np.ndarray | None = None,
        subject: str | None = None,
        take: int = 0,
        speech_level: float | None = None,
    ):
        """Starts at frame 0.

        Args:
          predictor: audio to motion.
          chunking: see `Chunking`.
          identity: see `Predictor`; a mesh is sampled once.
          emotion: [5], of the whole stream until `emotion` is set anew; None for neutral.
          subject: see `Predictor`.
          take: likewise.
          speech_level: RMS of the speech as recorded; None measures it over what has come, at most
            the last minute.

        Raises:
          InputError: numbers of frames that do not fit together.
        """
        self.chunking = chunking or Chunking()
        own = self.chunking
        stride = predictor.stride
        if own.chunk < 1 or own.lookahead < 0 or own.context < 0 or own.fade < 0:
            raise InputError(f"{own}: expected a chunk of at least 1 frame and no negative number")
        if own.chunk % stride or own.context % stride:
            raise InputError(
                f"chunk={own.chunk}, context={own.context}: this model's lower levels hold "
                f"{stride} frames each; expected multiples of {stride}"
            )
        if own.fade > min(own.lookahead, own.chunk):
            raise InputError(
                f"fade={own.fade}: expected at most lookahead={own.lookahead} and "
                f"chunk={own.chunk}: both chunks must know the frames"
            )
        self.emotion = emotion
        self._predictor, self._take, self._subject = predictor, take, subject
        self._identity = predictor.points(identity) if isinstance(identity, tuple) else identity
        self._given_level = speech_level
        self._levels = np.zeros((0, 2))
        self._rest = np.zeros(0, np.float32)
        self._audio = np.zeros(0, np.float32)
        self._first = 0  # Frame at which `_audio` starts.
        self._next = 0  # Frame that comes out next.
        self._tail = np.zeros((0, rig.NUM_CHANNELS), np.float32)

    @property
    def latency(self) -> float:
        """Seconds from a frame's audio to its motion at most, computing not counted."""
        return (self.chunking.chunk + self.chunking.lookahead) / rig.FPS

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Takes samples [S] float, 16 kHz, of any number and returns the motion [N, 72] now known.

        Raises:
          InputError: not samples, or not finite.
        """
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 1 or not np.isfinite(audio).all():
            raise InputError(f"audio has shape {audio.shape}, expected finite samples [S]")
        self._hear(audio)
        own, out = self.chunking, []
        while self._known() >= self._next + own.chunk + own.lookahead:
            out.append(self._step(own.chunk, own.lookahead))
        return _joined(out)

    def finish(self) -> np.ndarray:
        """Returns the motion of what is left, ceil(S / 320) frames in all; the stream has ended."""
        out = []
        total = self._first + -(-len(self._audio) // HOP)
        while self._next < total:
            chunk = min(self.chunking.chunk, total - self._next)
            after = min(self.chunking.lookahead, total - self._next - chunk)
            out.append(self._step(chunk, after))
        return _joined(out)

    def _known(self) -> int:
        """Returns the number of frames whose audio has come whole."""
        return self._first + len(self._audio) // HOP

    def _hear(self, audio: np.ndarray) -> None:
        self._audio = np.concatenate([self._audio, audio])
        whole = np.concatenate([self._rest, audio])
        count = len(whole) // HOP * HOP
        self._rest = whole[count:]
        if count:
            kept = round(LEVEL_SECONDS * rig.FPS)
            heard = level.frame_levels(whole[:count])
            self._levels = np.concatenate([self._levels, heard])[-kept:]

    def _step(self, chunk: int, after: int) -> np.ndarray:
        own, stride = self.chunking, self._predictor.stride
        first = max(0, self._next - own.context) // stride * stride
        begin, end = (first - self._first) * HOP, (self._next + chunk + after - self._first) * HOP
        speech_level = self._given_level
        if speech_level is None:
            speech_level = level.speech_level_of_frames(self._levels)
        motion = self._predictor(
            self._audio[begin:end],
            identity=self._identity,
            emotion=self.emotion,
            speech_level=speech_level,
            subject=self._subject,
            take=self._take,
            start=first,
        )[self._next - first :].copy()
        fade = min(len(self._tail), len(motion))
        rising = (np.arange(fade, dtype=np.float32)[:, None] + 0.5) / max(1, fade)
        motion[:fade] = self._tail[:fade] * (1 - rising) + motion[:fade] * rising
        self._tail = motion[chunk : chunk + own.fade]
        self._next += chunk
        # What no later chunk hears is dropped.
        gone = max(0, self._next - own.context) // stride * stride - self._first
        if gone > 0:
            self._audio, self._first = self._audio[gone * HOP :], self._first + gone
        return motion[:chunk]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, rig.NUM_CHANNELS), np.float32)
