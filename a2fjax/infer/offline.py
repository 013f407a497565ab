"""Predicts recordings of any length in bounded memory, by cross-fading overlapping chunks.

In a bidirectional network every frame depends on all others, but audio seconds away has little
effect. A recording is therefore cut into chunks of `CHUNK_SECONDS`, each with `CONTEXT_SECONDS` of
audio on both sides, and neighbouring chunks are cross-faded in the middle of the audio they share.
The speech level is measured over the whole recording first, so that quiet passages are not
amplified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from a2fjax import rig
from a2fjax.animation.emotion import EmotionTrack
from a2fjax.audio import HOP
from a2fjax.infer import live
from a2fjax.infer.inpainting import Inpainting
from a2fjax.infer.predictor import Mesh, Predictor
from a2fjax.infer.recording import RecordingStats

CHUNK_SECONDS = 24.72
"""With its context this is 1536 frames, one of the lengths that predictors pad to."""

CONTEXT_SECONDS = 3.0
"""With a bidirectional GRU of 256 units trained for 400 steps, 200 s of read speech cut into 6 s
chunks differ from the unchunked prediction by at most 0.0017 (RMS 0.00004) of a weight; with 2 s of
context by 0.0045, with 1 s by 0.019. Steps at joins are no larger than those inside chunks."""

FADE_FRAMES = 10


def predict(
    predictor: Predictor,
    blocks: Iterable[np.ndarray],
    stats: RecordingStats,
    *,
    identity: Mesh | np.ndarray | None = None,
    emotion: EmotionTrack | None = None,
    subject: str | None = None,
    sample_index: int = 0,
    inpainting: Inpainting | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    context_seconds: float = CONTEXT_SECONDS,
    progress: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yields the motion [n, 72] of a recording in consecutive parts, T frames in all.

    A recording that fits into one chunk with its context is predicted in one piece, with the same
    result as a direct call of the predictor. A model for live audio gives what its stream gives
    (`live`), without chunks. Memory does not grow with the length of the recording.

    Args:
      predictor: maps audio to motion.
      blocks: samples at 16 kHz, from the start of the recording.
      stats: statistics of the same blocks.
      identity: see `Predictor`; a mesh is sampled once.
      emotion: emotion track of the whole recording; None for neutral.
      subject: see `Predictor`.
      sample_index: index of the diffusion sample. Its noise is a function of the frame's position
        in the recording, so neighbouring chunks predict the same motion where they overlap.
      inpainting: given motion and the mask of the values to keep; None predicts everything.
      chunk_seconds: seconds of motion per chunk; longer than the context.
      context_seconds: seconds of audio on each side of a chunk.
      progress: called with the number of frames done.
    """
    if predictor.streams:
        yield from live.predict(
            predictor,
            blocks,
            identity=identity,
            emotion=emotion,
            subject=subject,
            progress=progress,
        )
        return
    core, context = round(chunk_seconds * rig.FPS), round(context_seconds * rig.FPS)
    if predictor.most_frames is not None:
        # Encode each chunk in one piece: an encoder's features disagree where its windows join.
        core = min(core, predictor.most_frames - 2 * context)
    # Chunks start at multiples of the stride, where the lower levels of a U-Net stay aligned.
    stride = predictor.stride
    if stride > 1:
        core = (core - stride) // stride * stride
    fade = min(FADE_FRAMES // 2, context)
    if core < max(context, 2 * FADE_FRAMES):
        raise ValueError(f"chunks of {chunk_seconds} s with {context_seconds} s of context")
    if isinstance(identity, tuple):
        identity = predictor.points(identity)
    total = stats.frames
    size = core + 2 * context
    stream = _Window(blocks)
    tail = np.zeros((0, rig.NUM_CHANNELS), np.float32)
    ends = [total] if total <= size else [*range(core, total - context, core), total]
    begin = 0
    for end in ends:
        # Every chunk has the same length, so one compiled program serves all of them.
        first = max(0, begin - context) // stride * stride
        if first + size > total:
            first = -(-max(0, total - size) // stride) * stride
        last = min(total, first + size)
        given = {}
        if inpainting is not None:
            given["inpaint_motion"], given["inpaint_mask"] = inpainting.part(first, last)
        motion = predictor(
            stream.read(first, last),
            sample_index=sample_index,
            start=first,
            **given,
            identity=identity,
            emotion=None if emotion is None else emotion.sample(last - first, first),
            speech_level=stats.speech_level,
            subject=subject,
        )
        # From here on, frame indices are relative to the end of the last part yielded.
        start = max(0, begin - fade)
        rising = (np.arange(len(tail), dtype=np.float32)[:, None] + 0.5) / max(1, len(tail))
        motion = motion[start - first :].copy()
        motion[: len(tail)] = tail * (1 - rising) + motion[: len(tail)] * rising
        stop = total if end == total else end - fade
        yield motion[: stop - start]
        tail = motion[stop - start : stop - start + 2 * fade]
        begin = end
        if progress is not None:
            progress(stop)


class _Window:
    """A sliding window over a stream of blocks; audio before the window is discarded."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks = iter(blocks)
        self._pieces: list[np.ndarray] = []
        self._first = 0
        self._count = 0

    def read(self, first: int, last: int) -> np.ndarray:
        """Returns the samples of frames `first` to `last` and discards earlier samples."""
        while self._first + self._count < last * HOP:
            block = next(self._blocks, None)
            if block is None:
                break
            self._pieces.append(block)
            self._count += len(block)
        joined = np.concatenate(self._pieces)[first * HOP - self._first :]
        self._pieces, self._first, self._count = [joined], first * HOP, len(joined)
        return joined[: (last - first) * HOP]
