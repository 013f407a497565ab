"""Predicts motion from live audio with a fixed look-ahead and bounded state.

A chunk of motion is predicted as soon as its audio and the following `lookahead` frames have
arrived; the prediction also uses the preceding `context` frames. Neighbouring chunks are
cross-faded where they overlap. The motion of a frame is thus available at most
`StreamingPredictor.latency` seconds after its audio. Diffusion models draw noise that is a function
of the frame's position in the stream, so consecutive chunks of one sample join smoothly.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, level
from a2fjax.errors import InputError
from a2fjax.infer.predictor import Mesh, Predictor

LEVEL_SECONDS = 60.0
"""Duration of the latest audio used to measure the speech level, in seconds."""


@dataclasses.dataclass(frozen=True)
class Chunking:
    """Lengths of the chunks of a stream, in frames of 20 ms.

    Attributes:
      chunk: frames returned together.
      lookahead: frames of audio after a chunk that its prediction depends on.
      context: frames of audio before a chunk; each prediction covers the sum of all three.
      fade: frames over which neighbouring chunks are cross-faded, at most `lookahead`.
    """

    chunk: int = 8
    lookahead: int = 16
    context: int = 104
    fade: int = 4


class StreamingPredictor:
    """Predicts the motion of one live audio stream.

    The state holds `context + chunk + lookahead` frames of audio, `fade` frames of motion and the
    levels of the last minute, regardless of the length of the stream.

    Attributes:
      chunking: lengths of the chunks.
      emotion: [5], used for all following chunks; may be changed at any time.
    """

    def __init__(
        self,
        predictor: Predictor,
        chunking: Chunking | None = None,
        *,
        identity: Mesh | np.ndarray | None = None,
        emotion: np.ndarray | None = None,
        subject: str | None = None,
        sample_index: int = 0,
        speech_level: float | None = None,
    ):
        """Starts at frame 0.

        Args:
          predictor: maps audio to motion.
          chunking: lengths of the chunks.
          identity: see `Request`; a mesh is sampled once.
          emotion: [5]; None for neutral.
          subject: see `Request`.
          sample_index: see `Request`.
          speech_level: RMS of the speech as recorded; None measures it over the audio received so
            far, at most the last minute.

        Raises:
          InputError: a model that streams without chunks, or lengths that are inconsistent or do
            not fit the model.
        """
        if predictor.streams:
            raise InputError(
                f"model.kind={predictor.config.model.kind!r} streams frame by frame; open a stream "
                "with Model.stream instead of chunks"
            )
        self.chunking = lengths = chunking or Chunking()
        stride = predictor.stride
        if lengths.chunk < 1 or lengths.lookahead < 0 or lengths.context < 0 or lengths.fade < 0:
            raise InputError(
                f"{lengths}: expected a chunk of at least 1 frame and no negative number"
            )
        if lengths.chunk % stride or lengths.context % stride:
            raise InputError(
                f"chunk={lengths.chunk}, context={lengths.context}: this model's lower levels hold "
                f"{stride} frames each; expected multiples of {stride}"
            )
        if lengths.fade > min(lengths.lookahead, lengths.chunk):
            raise InputError(
                f"fade={lengths.fade}: expected at most lookahead={lengths.lookahead} and "
                f"chunk={lengths.chunk}: both chunks must know the frames"
            )
        self.emotion = emotion
        self._predictor, self._subject = predictor, subject
        self._sample_index = sample_index
        self._identity = predictor.points(identity) if isinstance(identity, tuple) else identity
        self._given_level = speech_level
        self._levels = np.zeros((0, 2))
        self._partial_frame = np.zeros(0, np.float32)
        self._audio = np.zeros(0, np.float32)
        self._first = 0  # First frame of `_audio`.
        self._next = 0  # Next frame to return.
        self._tail = np.zeros((0, rig.NUM_CHANNELS), np.float32)

    @property
    def latency(self) -> float:
        """Maximum delay from a frame's audio to its motion in seconds, excluding computation."""
        return (self.chunking.chunk + self.chunking.lookahead) / rig.FPS

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Adds samples [S] float, 16 kHz mono, and returns the motion [N, 72] they complete.

        Raises:
          InputError: the array is not one-dimensional or not finite.
        """
        audio = np.asarray(audio, np.float32)
        if audio.ndim != 1 or not np.isfinite(audio).all():
            raise InputError(f"audio has shape {audio.shape}, expected finite samples [S]")
        self._append(audio)
        lengths, out = self.chunking, []
        while self._complete_frames() >= self._next + lengths.chunk + lengths.lookahead:
            out.append(self._step(lengths.chunk, lengths.lookahead))
        return _joined(out)

    def finish(self) -> np.ndarray:
        """Ends the stream and returns the remaining motion, ceil(S / 320) frames in total."""
        out = []
        total = self._first + -(-len(self._audio) // HOP)
        while self._next < total:
            chunk = min(self.chunking.chunk, total - self._next)
            after = min(self.chunking.lookahead, total - self._next - chunk)
            out.append(self._step(chunk, after))
        return _joined(out)

    def _complete_frames(self) -> int:
        """Returns the number of frames whose audio is complete."""
        return self._first + len(self._audio) // HOP

    def _append(self, audio: np.ndarray) -> None:
        self._audio = np.concatenate([self._audio, audio])
        pending = np.concatenate([self._partial_frame, audio])
        count = len(pending) // HOP * HOP
        self._partial_frame = pending[count:]
        if count:
            window = round(LEVEL_SECONDS * rig.FPS)
            levels = level.frame_levels(pending[:count])
            self._levels = np.concatenate([self._levels, levels])[-window:]

    def _step(self, chunk: int, after: int) -> np.ndarray:
        lengths, stride = self.chunking, self._predictor.stride
        first = max(0, self._next - lengths.context) // stride * stride
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
            sample_index=self._sample_index,
            start=first,
        )[self._next - first :].copy()
        fade = min(len(self._tail), len(motion))
        rising = (np.arange(fade, dtype=np.float32)[:, None] + 0.5) / max(1, fade)
        motion[:fade] = self._tail[:fade] * (1 - rising) + motion[:fade] * rising
        self._tail = motion[chunk : chunk + lengths.fade]
        self._next += chunk
        # Discard audio that no later chunk depends on.
        unused = max(0, self._next - lengths.context) // stride * stride - self._first
        if unused > 0:
            self._audio, self._first = self._audio[unused * HOP :], self._first + unused
        return motion[:chunk]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros((0, rig.NUM_CHANNELS), np.float32)
