"""One speaker: push audio in blocks of any size, take motion frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from a2fjax import budgets, files, rig
from a2fjax.audio import HOP, SAMPLE_RATE, num_frames
from a2fjax.errors import InputError
from a2fjax.streaming import snapshot
from a2fjax.streaming.compiled import CompiledStep

MOST_SECONDS = 60.0
"""Longest block of one push; longer audio is a file."""

Emotion: TypeAlias = "np.ndarray | Callable[[int], np.ndarray]"
"""Weights [5], or a function from the number of a motion frame to them."""

NEUTRAL = np.eye(1, rig.NUM_EMOTIONS, dtype=np.float32)[0]


class Stream:
    """A live audio stream; `Model.stream` opens one.

    What comes out depends on the samples alone, not on the blocks in which they came.

    Attributes:
      samples: number of samples heard.
      next_frame: number of the next frame that `frames` returns; its time is sample 320 times it.
    """

    def __init__(
        self,
        step: CompiledStep,
        identity: np.ndarray | None = None,
        emotion: Emotion | None = None,
        *,
        known_emotion: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        """Starts at sample 0.

        Args:
          step: a step for one stream.
          identity: [E] from `CompiledStep.embed_identity`; None for zeros, for models without one.
          emotion: None for neutral.
          known_emotion: replaces emotions [1, 5] that the model does not know.

        Raises:
          InputError: the model needs an identity, or the emotion is not one.
        """
        if step.size != 1:
            raise InputError(f"streams={step.size}: a Stream is one speaker")
        width = step.step.identity_width
        if identity is None:
            if width:
                raise InputError("identity: this model needs one; see CompiledStep.embed_identity")
            identity = np.zeros(0, np.float32)
        self._step = step
        self._identity = np.asarray(identity, np.float32).reshape(1, width)
        self._known_emotion = known_emotion
        self.emotion = NEUTRAL if emotion is None else emotion
        self.reset()

    @property
    def emotion(self) -> Emotion:
        """Emotion from the next frame on; may be changed at any time."""
        return self._emotion

    @emotion.setter
    def emotion(self, emotion: Emotion) -> None:
        self._emotion: Emotion = emotion
        self._weights = None if callable(emotion) else self._checked_emotion(emotion)

    def _checked_emotion(self, emotion: np.ndarray) -> np.ndarray:
        """Returns the weights [1, 5] of an emotion."""
        weights = np.asarray(emotion, np.float32)
        valid = weights.shape == (rig.NUM_EMOTIONS,)
        # Negated, so that NaN is refused as well.
        if not (valid and weights.min() >= -1e-4 and weights.sum() <= 1.0 + 1e-3):
            raise InputError(
                f"emotion: {np.array2string(weights.reshape(-1)[:8])}, expected {rig.NUM_EMOTIONS} "
                "weights of at least 0 that sum to at most 1"
            )
        weights = weights[None]
        return weights if self._known_emotion is None else self._known_emotion(weights)

    @property
    def delay_seconds(self) -> float:
        """Largest time from a frame's own time to its motion, without computation."""
        return (self._step.step.lookahead + self._step.step.hop) / rig.FPS

    def reset(self) -> None:
        """Starts anew at sample 0 and forgets frames that were not taken."""
        self._state: dict[str, Any] = self._step.start()
        self._pending = np.zeros(0, np.float32)
        self._ready: list[np.ndarray] = []
        self._heard = 0  # Frames that the step has heard.
        self.samples = self.next_frame = 0
        self._closed = False

    def push(self, audio: np.ndarray) -> int:
        """Hears samples [S] and returns the number of frames that `frames` now holds.

        Args:
          audio: floating point, 16 kHz mono, full scale 1, 1 sample to `MOST_SECONDS`.

        Raises:
          InputError: samples of another type or shape, not finite, none, or more than a minute;
            none of them is heard. Or the stream is closed.
        """
        if self._closed:
            raise InputError("stream: closed; reset() starts it anew")
        self._pending = np.concatenate([self._pending, checked(audio)])
        self.samples += len(audio)
        size = self._step.step.hop * HOP
        whole = len(self._pending) // size * size
        for begin in range(0, whole, size):
            self._hear(self._pending[begin : begin + size])
        self._pending = self._pending[whole:]
        return self._held()

    def frames(self) -> np.ndarray:
        """Returns the motion [N, 72] float32 in rig units that is ready, and lets go of it."""
        out = np.concatenate(self._ready) if self._ready else np.zeros((0, rig.NUM_CHANNELS))
        self._ready = []
        self.next_frame += len(out)
        return out.astype(np.float32, copy=False)

    def close(self) -> np.ndarray:
        """Ends the stream and returns the rest: ceil(samples / 320) frames in all.

        Silence follows the last sample.
        """
        if not self._closed:
            self._closed = True
            total = num_frames(self.samples)
            size = self._step.step.hop * HOP
            while self.next_frame + self._held() < total:
                block = np.zeros(size, np.float32)
                block[: len(self._pending)] = self._pending
                self._pending = self._pending[:0]
                self._hear(block)
            beyond = self.next_frame + self._held() - total
            if beyond > 0:
                self._ready[-1] = self._ready[-1][:-beyond]
        return self.frames()

    def to_bytes(self) -> bytes:
        """Returns the whole stream, frames that were not taken included, for `restore`."""
        more = {
            "pending": self._pending,
            "ready": np.concatenate([*self._ready, np.zeros((0, rig.NUM_CHANNELS), np.float32)]),
            "counts": np.array([self.samples, self.next_frame, self._heard], np.int64),
            "closed": np.array(self._closed),
        }
        return snapshot.pack(self._step, self._state, more)

    def restore(self, data: bytes, *, name: str = "state") -> None:
        """Goes on from bytes of `to_bytes`, on any machine with the same model.

        Args:
          data: the bytes.
          name: of the bytes, for errors.

        Raises:
          InputError: damaged, or of another model, rig, look-ahead or hop; nothing changes.
        """
        most = 2 * round(MOST_SECONDS) * rig.FPS * rig.NUM_CHANNELS * 4
        state, more = snapshot.unpack(self._step, data, most_more=most, name=name)
        try:
            pending = more["pending"].astype(np.float32, casting="safe").reshape(-1)
            ready = more["ready"].astype(np.float32, casting="safe")
            samples, next_frame, heard = (int(n) for n in more["counts"])
            closed = bool(more["closed"])
            fits = ready.shape == (len(ready), rig.NUM_CHANNELS) and len(pending) < (
                self._step.step.hop * HOP
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{name}: not the state of one stream ({error})") from None
        if not (fits and np.isfinite(pending).all() and np.isfinite(ready).all()):
            raise InputError(f"{name}: not the state of one stream")
        self._state = dict(state)
        self._pending, self._ready = pending, [ready]
        self.samples, self.next_frame, self._heard = samples, next_frame, heard
        self._closed = closed

    def save(self, path: str | Path) -> None:
        """Writes `to_bytes` to a file, whole or not at all."""
        with files.atomic_write(path) as temporary:
            temporary.write_bytes(self.to_bytes())

    def load(self, path: str | Path) -> None:
        """Goes on from a file of `save`.

        Raises:
          InputError: as `restore`, or the file cannot be read.
        """
        self.restore(budgets.read_bytes(path), name=str(path))

    def _held(self) -> int:
        return sum(len(part) for part in self._ready)

    def _hear(self, samples: np.ndarray) -> None:
        hop, lookahead = self._step.step.hop, self._step.step.lookahead
        first = self._heard - lookahead
        weights = self._weights
        if weights is None:
            assert callable(self._emotion)
            weights = self._checked_emotion(self._emotion(max(first, 0)))
        motion, self._state = self._step(samples[None], self._state, self._identity, weights)
        self._heard += hop
        early = min(max(-first, 0), hop)
        if early < hop:
            self._ready.append(motion[0, early:])


def checked(audio: np.ndarray) -> np.ndarray:
    """Returns samples [S] as float32.

    Example:
        >>> checked(np.zeros(3, np.int16))
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: audio: has type int16, expected floats in [-1, 1]; divide...

    Raises:
      InputError: not a vector of 1 to a minute of finite floating-point samples.
    """
    audio = np.asarray(audio)
    if not np.issubdtype(audio.dtype, np.floating):
        raise InputError(
            f"audio: has type {audio.dtype}, expected floats in [-1, 1]; divide 16-bit samples by "
            "32768"
        )
    most = round(MOST_SECONDS * SAMPLE_RATE)
    if audio.ndim != 1 or not 1 <= len(audio) <= most:
        raise InputError(
            f"audio: has shape {audio.shape}, expected [samples] with 1 to {most} samples; "
            "recordings are predicted with `a2fjax infer`"
        )
    audio = audio.astype(np.float32)
    finite = np.isfinite(audio)
    if not finite.all():
        raise InputError(f"audio: sample {int(np.argmin(finite))} of the block is not finite")
    return audio
