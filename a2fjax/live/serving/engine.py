"""Speakers as rows of one compiled step: whoever has a hop of audio is computed together.

Every call takes one hop of each speaker that has one, so nobody waits behind a speaker who sent a
minute at once.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE, num_frames
from a2fjax.errors import InputError
from a2fjax.live.serving.counts import Counts
from a2fjax.streaming.compiled import CompiledStep
from a2fjax.streaming.stream import checked

MOST_AHEAD = 10 * SAMPLE_RATE
"""Samples that a speaker may be ahead; then its connection is read no further."""

MOST_HELD = 1500
"""Frames that wait for a speaker that does not read; then it is computed no further."""

Emotion = Callable[[int], np.ndarray]


class Full(Exception):
    """No row is free."""


class Speaker:
    """One row of an engine.

    Attributes:
      emotion: function from the number of a frame to weights [5].
      samples: heard so far.
    """

    def __init__(self, engine: Engine, row: int, emotion: Emotion):
        """Is made by `Engine.open`."""
        self._engine, self.row, self.emotion = engine, row, emotion
        self.samples = 0
        self.heard = 0  # Hops that the step has heard.
        self.pending = np.zeros(0, np.float32)
        self.frames: list[np.ndarray] = []
        self.sent = 0
        self.ended = self.closed = False
        self.fresh = True
        self.changed = asyncio.Event()

    async def push(self, samples: np.ndarray) -> None:
        """Hears samples [S] float32 at 16 kHz; waits while it is far ahead.

        Raises:
          InputError: as `Stream.push`.
        """
        self.pending = np.concatenate([self.pending, checked(samples)])
        self.samples += len(samples)
        self._engine.wake()
        while len(self.pending) > MOST_AHEAD and not self.closed:
            await self._wait()

    def end(self) -> None:
        """Says that no more audio comes."""
        self.ended = True
        self.changed.set()  # There may be no frame left to wait for.
        self._engine.wake()

    async def take(self) -> np.ndarray | None:
        """Returns the motion [N, 72] that is ready, at least a frame; None after the last."""
        while not self.frames:
            if self.closed or (self.ended and self.sent >= num_frames(self.samples)):
                return None
            await self._wait()
        out = np.stack(self.frames)
        self.frames = []
        self.sent += len(out)
        self._engine.counts.frames += len(out)
        self._engine.wake()
        return out

    def close(self) -> None:
        """Gives the row back."""
        if not self.closed:
            self.closed = True
            self.changed.set()
            self._engine.release(self)

    async def _wait(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    def has_hop(self, lookahead: int) -> bool:
        """Returns whether the step can hear a hop of this speaker, or silence after its end."""
        if self.closed or len(self.frames) >= MOST_HELD:
            return False
        if len(self.pending) >= HOP:
            return True
        total = num_frames(self.samples)
        return self.ended and self.heard < total + lookahead and total > 0

    def hop(self) -> np.ndarray:
        """Returns the next hop [320]."""
        out = np.zeros(HOP, np.float32)
        part = self.pending[:HOP]
        out[: len(part)] = part
        self.pending = self.pending[HOP:]
        return out


class Engine:
    """Runs the step for its speakers.

    Attributes:
      counts: for the metrics.
    """

    def __init__(
        self,
        step: CompiledStep,
        identity: np.ndarray,
        known_emotion: Callable[[np.ndarray], np.ndarray],
    ):
        """Starts without speakers; `run` serves them.

        Args:
          step: of one hop a call and as many rows as there may be speakers.
          identity: [E] of all speakers.
          known_emotion: replaces emotions [n, 5] that the model does not know.
        """
        if step.step.hop != 1:
            raise InputError(f"hop={step.step.hop}: expected a step of one frame")
        self._step, self._known = step, known_emotion
        self._state = step.start()
        self._identity = np.tile(np.asarray(identity, np.float32), (step.size, 1))
        self._free = list(range(step.size))[::-1]
        self._speakers: dict[int, Speaker] = {}
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "step")
        self.counts = Counts(step.size)

    @property
    def lookahead(self) -> int:
        """Frames heard before a frame leaves."""
        return self._step.step.lookahead

    def open(self, emotion: Emotion) -> Speaker:
        """Returns a new speaker.

        Raises:
          Full: no row is free.
        """
        if not self._free:
            self.counts.refused["full"] += 1
            raise Full(f"full: {self._step.size} speakers are connected")
        speaker = Speaker(self, self._free.pop(), emotion)
        self._speakers[speaker.row] = speaker
        self.counts.admitted += 1
        self.counts.speakers += 1
        return speaker

    def release(self, speaker: Speaker) -> None:
        """Frees a speaker's row; its state is reset by the next speaker's first hop."""
        del self._speakers[speaker.row]
        self._free.append(speaker.row)
        self.counts.speakers -= 1

    def wake(self) -> None:
        """Says that there may be work."""
        self._work.set()

    async def run(self) -> None:
        """Computes until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            ready = [s for s in self._speakers.values() if s.has_hop(self.lookahead)]
            if not ready:
                self._work.clear()
                await self._work.wait()
                # Whoever else has audio at this moment joins the same call.
                await asyncio.sleep(0)
                continue
            call = functools.partial(self._call, *self._inputs(ready))
            motion = await loop.run_in_executor(self._thread, call)
            for speaker in ready:
                self._deliver(speaker, motion[speaker.row, 0])

    def _inputs(self, ready: list[Speaker]) -> tuple[np.ndarray, ...]:
        size = self._step.size
        audio = np.zeros((size, HOP), np.float32)
        emotion = np.zeros((size, rig.NUM_EMOTIONS), np.float32)
        active, reset = np.zeros(size, bool), np.zeros(size, bool)
        for speaker in ready:
            row = speaker.row
            audio[row] = speaker.hop()
            emotion[row] = speaker.emotion(max(speaker.heard - self.lookahead, 0))
            active[row], reset[row] = True, speaker.fresh
            speaker.fresh = False
        return audio, self._known(emotion).astype(np.float32), active, reset

    def _call(
        self, audio: np.ndarray, emotion: np.ndarray, active: np.ndarray, reset: np.ndarray
    ) -> np.ndarray:
        start = time.perf_counter()
        motion, self._state = self._step(audio, self._state, self._identity, emotion, active, reset)
        self.counts.took(time.perf_counter() - start)
        return motion

    def _deliver(self, speaker: Speaker, motion: np.ndarray) -> None:
        speaker.heard += 1
        number = speaker.heard - 1 - self.lookahead
        # A speaker that closed meanwhile has given its row away.
        if number >= 0 and not speaker.closed:
            speaker.frames.append(np.array(motion))
        speaker.changed.set()
