"""Maps audio, identity and emotion to motion with one checkpoint of a run.

The API, evaluation and streaming share this predictor. Clips are padded to a few lengths so that
few programs are compiled; models respect `length`, so padding does not change the result.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from a2fjax import configuration as config_lib
from a2fjax import rig, tasks
from a2fjax.audio import HOP, level, num_frames
from a2fjax.batch import Batch
from a2fjax.bundle import manifest
from a2fjax.data import subjects as subjects_lib
from a2fjax.data.identity import points as identity_lib
from a2fjax.errors import InputError
from a2fjax.infer import live, lookahead, sampling
from a2fjax.infer.run_config import read_config
from a2fjax.infer.training_conditions import TrainingConditions
from a2fjax.models import conditioning, pretrained
from a2fjax.models.base import Model
from a2fjax.sharding import compilation_cache
from a2fjax.streaming.chunks import Chunking
from a2fjax.streaming.compiled import CompiledStep
from a2fjax.training import checkpoints

MIN_BUCKET = 64
MAX_BATCH_FRAMES = 16_384
"""Maximum number of frames in a padded batch; limits the memory of `Predictor.batch`."""

Mesh = tuple[np.ndarray, np.ndarray | None]


class Task(Protocol):
    """The part of the task interface that a predictor uses.

    Attributes:
      model: the network; its encoders and stride determine how recordings are cut into chunks.
    """

    model: Model

    def predict(self, params: Any, batch: Batch) -> Any:
        """Returns the predicted motion [B, T, 72] of a batch in rig units."""


@dataclasses.dataclass(frozen=True)
class Request:
    """One clip to animate.

    Attributes:
      audio: [S] float, 16 kHz mono, as recorded (without level normalisation).
      identity: neutral mesh (vertices [V, 3], faces [F, 3] or None), or points [P, 3 or 6] that
        `Predictor.points` returned; None for the mean identity of training.
      emotion: [5], or [T, 5] per frame: non-negative weights that sum to at most 1, as in training;
        all zero for an unspecified emotion (see `model.emotion_dropout`); None for neutral.
      speech_level: RMS of the speech; estimated from `audio` if None.
      subject: name of a subject of the training set with a learned residual
        (`Predictor.subjects`); None, or any other name, for an unknown subject.
      sample_index: index of the sample that a diffusion model draws: 0, 1, 2, ...
      start: index of the clip's first frame in its recording, a multiple of `Predictor.stride`, so
        that the chunks of a sample agree where they overlap.
      inpaint_motion: [T, 72] in rig units, given motion for a diffusion model; only values under
        `inpaint_mask` are used.
      inpaint_mask: [T, 72] bool, true where `inpaint_motion` is kept; the rest is predicted to fit.
    """

    audio: np.ndarray
    identity: Mesh | np.ndarray | None = None
    emotion: np.ndarray | None = None
    speech_level: float | None = None
    subject: str | None = None
    sample_index: int = 0
    start: int = 0
    inpaint_motion: np.ndarray | None = None
    inpaint_mask: np.ndarray | None = None


def padded_length(frames: int, most: int | None = None) -> int:
    """Returns the padded length of a clip: 64, 96, 128, 192, 256, 384, ... frames.

    Args:
      frames: length of the clip in frames.
      most: longest clip that the model encodes in one piece; shorter clips are not padded beyond
        it.
    """
    size = MIN_BUCKET
    while size < frames:
        if size * 3 // 2 >= frames:
            size = size * 3 // 2
            break
        size *= 2
    return most if most is not None and frames <= most < size else size


class Predictor:
    """Maps audio to motion with one checkpoint.

    Attributes:
      config: the run's configuration.
      step: training step of the checkpoint.
      fingerprint: fingerprint of configuration and step: 16 hex digits and the step.
      params: parameters, including constants.
      task: task of the run; see `a2fjax.tasks`.
      most_frames: longest clip that the model's encoders accept in one piece; None for no limit.
      stride: chunks of a recording start at multiples of this number of frames.
    """

    def __init__(self, config: config_lib.Config, task: Task, params: Any, *, step: int = 0):
        """Wraps a task and its parameters; `load` reads both from a run folder."""
        self.config = config
        self.task = task
        # Transfer to the device once: host arrays would be copied on every call.
        self.params = jax.device_put(params)
        self.step = step
        self.fingerprint = f"{config_lib.fingerprint(config)}@{step}"
        self._predict = jax.jit(task.predict)
        self.most_frames: int | None = task.model.audio_features.most_frames
        self.stride: int = task.model.stride

    @classmethod
    def load(
        cls,
        run: str | Path,
        step: int | None = None,
        *,
        sample: Mapping[str, Any] | None = None,
        lookahead_ms: int | None = None,
    ) -> Predictor:
        """Loads a predictor from a run folder.

        Args:
          run: folder with config.json and checkpoints.
          step: training step of the checkpoint; the newest if None.
          sample: values by name that replace those of `model.sample`.
          lookahead_ms: look-ahead of a model for live audio; None for the configuration's.

        Raises:
          InputError: not a run folder, no such step, a checkpoint of another rig, `sample` for a
            model other than a diffusion model, or a look-ahead that the model does not have.
        """
        compilation_cache.enable()
        config = sampling.with_sampling(read_config(run).config, sample or {})
        config = lookahead.with_lookahead(config, lookahead_ms)
        step, params, meta = checkpoints.load_params(run, step, item="ema")
        found = pretrained.restore(run, config.audio)
        task: Any = tasks.build(config, params["constants"], found)
        if not hasattr(task, "predict"):
            raise InputError(
                f"run {run}: holds a {config.model.kind!r}, which predicts no motion; expected a "
                "run of another kind"
            )
        loaded = cls(config, task, task.model.audio_features.with_pretrained(params), step=step)
        if manifest.is_bundle(run):
            loaded._check_weights(f"bundle {run}")
        if not sample:
            # A bundle may hold weights that were trained on elsewhere.
            loaded.fingerprint = meta.get("fingerprint", loaded.fingerprint)
        return loaded

    def _check_weights(self, name: str) -> None:
        """Checks that the weights are those of the configuration's model, from shapes alone.

        A checkpoint's are as its run made them; a bundle's may have been trained elsewhere.

        Raises:
          InputError: they are not.
        """
        try:
            silence = self._row(Request(np.zeros(HOP, np.float32)), MIN_BUCKET, False)
            jax.eval_shape(self._predict, self.params, Batch.stack([silence]))
        except Exception as error:  # noqa: BLE001 - layers fail in many ways
            why = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"{name}: the weights are of another model than config.json ({why[0][:200]})"
            ) from None

    def points(self, mesh: Mesh, name: str = "identity") -> np.ndarray:
        """Returns the identity points [P, 3] of a neutral mesh, for use with many clips.

        They are [P, 6] with normals if `model.identity_normals` is set. A mesh unlike those of the
        training is turned and cropped as they were, see `alignment.align`; what remains unlike
        them counts less, down to the mean identity. Each is logged as a warning of one line.

        Args:
          mesh: vertices [V, 3] and faces [F, 3] or None.
          name: of the mesh, for the warning.

        Raises:
          InputError: not a mesh.
        """
        vertices, faces = self.training.like_training(mesh, name)
        return identity_lib.sample_points(
            vertices,
            faces,
            self.config.data.identity_points,
            normals=self.config.model.identity_normals,
        )

    @functools.cached_property
    def training(self) -> TrainingConditions:
        """The conditions that the model was trained with."""
        return TrainingConditions(self.params.get("constants", {}))

    @property
    def sampled(self) -> bool:
        """True if the model draws different samples for one recording."""
        return sampling.is_sampled(self.config)

    @functools.cached_property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects with a learned residual; empty without `identity_residual`."""
        names = self.params.get("constants", {}).get("subjects")
        return () if names is None else conditioning.decode_names(names)

    @property
    def streams(self) -> bool:
        """True if the model hears live audio frame by frame."""
        return lookahead.can_stream(self.config)

    @functools.cache  # noqa: B019 - a predictor lives as long as its compiled programs
    def compiled_step(self, *, size: int = 1, hop: int = 1) -> CompiledStep:
        """Returns the compiled step of the model; see `live.compile_step`."""
        return live.compile_step(self, size=size, hop=hop)

    @functools.cache  # noqa: B019 - as above
    def compiled_chunks(self, *, size: int = 1, chunking: Chunking | None = None) -> CompiledStep:
        """Returns the compiled step of a diffusion model; see `live.compile_chunks`."""
        return live.compile_chunks(self, size=size, chunking=chunking)

    def __call__(
        self,
        audio: np.ndarray,
        *,
        identity: Mesh | np.ndarray | None = None,
        emotion: np.ndarray | None = None,
        speech_level: float | None = None,
        subject: str | None = None,
        sample_index: int = 0,
        start: int = 0,
        inpaint_motion: np.ndarray | None = None,
        inpaint_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Returns the motion [T, 72] float32 in rig units, T = ceil(S / 320); see `Request`.

        Raises:
          InputError: as for `batch`.
        """
        request = Request(
            audio,
            identity,
            emotion,
            speech_level,
            subject,
            sample_index,
            start,
            inpaint_motion,
            inpaint_mask,
        )
        return self.batch([request])[0]

    def batch(self, requests: Sequence[Request]) -> list[np.ndarray]:
        """Returns the motion [T, 72] of each clip; clips of similar length share a padded batch.

        Raises:
          InputError: a clip that has no samples or non-finite samples, or an emotion of the wrong
            shape.
        """
        groups: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            _check(request, i)
            if request.inpaint_mask is not None and not self.sampled:
                raise InputError(
                    f"clip {i}: inpaint_mask: only a diffusion model can inpaint motion"
                )
            length = num_frames(len(request.audio))
            groups.setdefault(padded_length(length, self.most_frames), []).append(i)
        out: dict[int, np.ndarray] = {}
        for frames, members in sorted(groups.items()):
            most = max(1, MAX_BATCH_FRAMES // frames)
            for start in range(0, len(members), most):
                part = members[start : start + most]
                motion = self._run([requests[i] for i in part], frames)
                out.update(zip(part, motion, strict=True))
        return [out[i] for i in range(len(requests))]

    def _run(self, requests: Sequence[Request], frames: int) -> list[np.ndarray]:
        # Batch sizes are powers of two, padded with the last clip, so that few shapes are compiled.
        size = 1 << (len(requests) - 1).bit_length()
        filled = [*requests, *[requests[-1]] * (size - len(requests))]
        batch = self.stacked(filled, frames)
        motion = np.asarray(self._predict(self.params, batch), np.float32)
        return [motion[i, : batch.length[i]] for i in range(len(requests))]

    def stacked(self, requests: Sequence[Request], frames: int) -> Batch:
        """Returns the batch of clips, padded to `frames` frames, as the model gets it."""
        inpainted = any(request.inpaint_mask is not None for request in requests)
        return Batch.stack([self._row(request, frames, inpainted) for request in requests])

    def _row(self, request: Request, frames: int, inpainted: bool) -> Batch:
        audio = np.asarray(request.audio, np.float32)
        length = num_frames(len(audio))
        speech_level = request.speech_level
        if speech_level is None:
            speech_level = level.speech_level(audio)
        padded = np.zeros(frames * HOP, np.float32)
        # A stream does not know the level of its recording; its model measures it on the way.
        padded[: len(audio)] = audio if self.streams else level.normalise(audio, speech_level)
        if request.identity is None:
            width = 6 if self.config.model.identity_normals else 3
            points = np.zeros((self.config.data.identity_points, width), np.float32)
        elif isinstance(request.identity, tuple):
            points = self.points(request.identity)
        else:
            points = np.asarray(request.identity, np.float32)
        emotion = np.zeros((frames, rig.NUM_EMOTIONS), np.float32)
        emotion[:, 0] = 1.0
        if request.emotion is not None:
            emotion[:length] = request.emotion
        emotion = self.training.known_emotion(emotion)
        extra: dict[str, Any] = {}
        if self.sampled:
            extra["sample_index"] = np.int32(request.sample_index)
        if inpainted:
            inpaint_mask = np.zeros((frames, rig.NUM_CHANNELS), bool)
            inpaint_motion = np.zeros((frames, rig.NUM_CHANNELS), np.float32)
            if request.inpaint_mask is not None and request.inpaint_motion is not None:
                inpaint_mask[:length] = request.inpaint_mask
                inpaint_motion[:length] = np.where(
                    request.inpaint_mask, request.inpaint_motion, 0.0
                )
            extra |= {"inpaint_mask": inpaint_mask, "inpaint_motion": inpaint_motion}
        return Batch(
            audio=padded,
            motion=np.zeros((frames, rig.NUM_CHANNELS), np.float32),
            channel_mask=np.ones(rig.NUM_CHANNELS, bool),
            frame_mask=np.arange(frames) < length,
            length=np.asarray(length, np.int32),
            identity=points,
            identity_mask=np.asarray(request.identity is not None),
            subject=np.asarray(subjects_lib.number(request.subject, self.subjects), np.int32),
            emotion=emotion,
            clip=np.zeros((), np.int32),
            start=np.asarray(request.start, np.int32),
            **extra,
        )


def batch_shapes(config: config_lib.Config, size: int, frames: int) -> Batch:
    """Returns the `Batch.spec` of `size` clips padded to `frames` frames."""
    return Batch.spec(
        size, frames, config.data.identity_points, normals=config.model.identity_normals
    )


def _check(request: Request, i: int) -> None:
    audio = np.asarray(request.audio)
    if audio.ndim != 1 or not len(audio):
        raise InputError(f"clip {i}: audio has shape {audio.shape}, expected [samples]")
    if not np.isfinite(audio).all():
        raise InputError(f"clip {i}: audio has samples that are not finite")
    if (request.inpaint_mask is None) != (request.inpaint_motion is None):
        raise InputError(
            f"clip {i}: inpaint_motion and inpaint_mask belong together; give both or neither"
        )
    if request.inpaint_mask is not None and request.inpaint_motion is not None:
        expected = (num_frames(len(audio)), rig.NUM_CHANNELS)
        shapes = np.shape(request.inpaint_motion), np.shape(request.inpaint_mask)
        if shapes != (expected, expected):
            raise InputError(
                f"clip {i}: inpaint_motion and inpaint_mask have shapes {shapes}, "
                f"expected {expected}"
            )
    if request.emotion is not None:
        shape = np.shape(request.emotion)
        allowed = ((rig.NUM_EMOTIONS,), (num_frames(len(audio)), rig.NUM_EMOTIONS))
        if shape not in allowed:
            raise InputError(f"clip {i}: emotion has shape {shape}, expected one of {allowed}")
        weights = np.asarray(request.emotion)
        # The comparisons are negated so that NaN is rejected as well.
        if not (weights.min() >= -1e-4 and weights.sum(-1).max() <= 1.0 + 1e-3):
            raise InputError(
                f"clip {i}: emotion weights from {weights.min():g}, sums up to "
                f"{weights.sum(-1).max():g}; expected weights of at least 0 that sum to at most 1"
            )
