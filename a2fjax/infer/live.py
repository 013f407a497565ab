"""Opens streams of a run for live audio, and predicts recordings with them.

Models for live audio go frame by frame, diffusion models in chunks. With the former a recording
goes through the same compiled step as live audio, so that both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from a2fjax.animation.emotion import EmotionTrack
from a2fjax.audio import SAMPLE_RATE
from a2fjax.batch import Batch
from a2fjax.data import subjects as subjects_lib
from a2fjax.errors import InputError
from a2fjax.infer.lookahead import check_can_stream, streams_in_chunks
from a2fjax.models.diffusion import Diffusion
from a2fjax.models.streaming import StreamingRegression
from a2fjax.streaming.chunks import Chunking, ChunkStep
from a2fjax.streaming.compiled import CompiledStep
from a2fjax.streaming.step import StreamingStep
from a2fjax.streaming.stream import Emotion, Stream

if TYPE_CHECKING:
    from a2fjax.infer.predictor import Mesh, Predictor


def compile_step(predictor: Predictor, *, size: int = 1, hop: int = 1) -> CompiledStep:
    """Compiles the step of a run at the look-ahead of its configuration.

    Args:
      predictor: of a run that streams.
      size: number of streams.
      hop: frames of a call.

    Raises:
      InputError: the run cannot stream, or a size or hop below 1.
    """
    check_can_stream(predictor.config)
    if size < 1 or hop < 1:
        raise InputError(f"size={size}, hop={hop}: expected at least 1 stream and 1 frame")
    model = predictor.task.model
    assert isinstance(model, StreamingRegression)
    step = StreamingStep(model, model.lookahead_frames, hop)
    return CompiledStep(step, predictor.params, size, fingerprint=predictor.fingerprint)


def compile_chunks(
    predictor: Predictor, *, size: int = 1, chunking: Chunking | None = None
) -> CompiledStep:
    """Compiles the step of a diffusion model, with the sampler of its configuration.

    Args:
      predictor: of a diffusion run.
      size: number of streams; row r draws sample r.
      chunking: lengths of the chunks.

    Raises:
      InputError: lengths that are inconsistent or do not fit the model, or a size below 1.
    """
    if size < 1:
        raise InputError(f"size={size}: expected at least 1 stream")
    model = predictor.task.model
    assert isinstance(model, Diffusion)
    step = ChunkStep(model, chunking or Chunking())
    return CompiledStep(step, predictor.params, size, fingerprint=predictor.fingerprint)


def embed_identity(
    predictor: Predictor,
    step: CompiledStep,
    identity: Mesh | np.ndarray | None,
    subject: str | None,
) -> np.ndarray:
    """Returns the identity [E] of a speaker for a step.

    Args:
      predictor: of the run.
      step: its step.
      identity: see `Request`; None for the mean.
      subject: see `Request`.

    Raises:
      InputError: not a mesh.
    """
    points = predictor.points(identity) if isinstance(identity, tuple) else identity
    config = predictor.config
    batch = Batch.zeros(1, 1, config.data.identity_points, normals=config.model.identity_normals)
    number = subjects_lib.number(subject, predictor.subjects)
    batch = batch.replace(subject=np.array([number], np.int32))
    if points is not None:
        batch = batch.replace(
            identity=np.asarray(points, np.float32)[None], identity_mask=np.ones(1, bool)
        )
    return step.embed_identity(batch)[0]


def open_stream(
    predictor: Predictor,
    *,
    identity: Mesh | np.ndarray | None = None,
    emotion: Emotion | None = None,
    subject: str | None = None,
    rate: float = SAMPLE_RATE,
    hop: int | None = None,
    chunking: Chunking | None = None,
) -> Stream:
    """Opens a stream; everything is compiled when this returns.

    Args:
      predictor: of a run for live audio, or of a diffusion run.
      identity: see `Request`.
      emotion: weights [5], or a function from the number of a frame to them; None for neutral.
      subject: see `Request`.
      rate: of the samples that will be pushed, in Hz.
      hop: frames that a model for live audio computes together; None for 1.
      chunking: lengths of a diffusion model's chunks; None for the default.

    Raises:
      InputError: the run cannot stream, another rate than 16 kHz, a wrong emotion, `hop` for a
        diffusion model or `chunking` for another.
    """
    if rate != SAMPLE_RATE:
        raise InputError(
            f"rate {rate:g}: a stream hears {SAMPLE_RATE} Hz; resample the blocks, for example "
            "with soxr.ResampleStream"
        )
    if streams_in_chunks(predictor.config):
        if hop is not None:
            raise InputError(f"hop={hop}: a diffusion model makes chunks; give chunking instead")
        step = predictor.compiled_chunks(chunking=chunking)
    elif chunking is not None:
        kind = predictor.config.model.kind
        raise InputError(f"chunking: model.kind={kind!r} makes no chunks; give hop instead")
    else:
        step = predictor.compiled_step(hop=1 if hop is None else hop)
    embedded = embed_identity(predictor, step, identity, subject)
    known = predictor.training.known_emotion
    return Stream(step, embedded, emotion, known_emotion=known)


def frame_weights(track: EmotionTrack | None) -> Emotion | None:
    """Returns the emotion of a track as a stream takes it."""
    if track is None:
        return None

    def weights(frame: int) -> np.ndarray:
        return np.asarray(track.sample(1, frame)[0], np.float32)

    return weights(0) if track.constant else weights


def predict(
    predictor: Predictor,
    blocks: Iterable[np.ndarray],
    *,
    identity: Mesh | np.ndarray | None = None,
    emotion: EmotionTrack | None = None,
    subject: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[np.ndarray]:
    """Yields the motion [n, 72] of a recording as a stream would; see `offline.predict`."""
    given = frame_weights(emotion)
    stream = open_stream(predictor, identity=identity, emotion=given, subject=subject)
    for block in blocks:
        stream.push(block)
        motion = stream.frames()
        if len(motion):
            yield motion
        if progress is not None:
            progress(stream.next_frame)
    yield stream.close()
    if progress is not None:
        progress(stream.next_frame)
