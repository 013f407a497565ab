"""A trained model: audio, emotion and identity in, motion out."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

import numpy as np

from a2fjax import rig
from a2fjax.animation import emotion as emotion_lib
from a2fjax.animation import formats
from a2fjax.animation.emotion import Emotion
from a2fjax.animation.tracks import Track
from a2fjax.api import export as export_lib
from a2fjax.api import hub, motion_files
from a2fjax.api.motion import Motion
from a2fjax.api.prediction import Prediction, Progress
from a2fjax.errors import InputError
from a2fjax.infer import identity as identity_lib
from a2fjax.infer import inpainting as inpainting_lib
from a2fjax.infer import lookahead, postprocess, sampling
from a2fjax.infer.chosen import Chosen
from a2fjax.infer.identity import Identity
from a2fjax.infer.inpainting import Inpainting
from a2fjax.infer.recording import Audio, Recording
from a2fjax.infer.run_config import read_config

if TYPE_CHECKING:
    from a2fjax.infer.predictor import Predictor
    from a2fjax.streaming.chunks import Chunking
    from a2fjax.streaming.stream import Stream

_log = logging.getLogger("a2fjax")


def load(run: str | Path, step: int | None = None, *, lookahead_ms: int | None = None) -> Model:
    """Returns the model of a run.

    Reads the configuration only; weights are read, and JAX is imported, by the first prediction.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: run runs/none does not exist; expected a folder that...

    Args:
      run: folder that `a2f.train` or `a2fjax train` wrote, or a bundle.
      step: of the checkpoint; None for the newest.
      lookahead_ms: look-ahead of a model for live audio, one of `model.lookaheads_ms`; None for
        `model.lookahead_ms`.

    Raises:
      InputError: not a run folder, no such step, or a look-ahead that the model does not have.
    """
    return Model(run, step, lookahead_ms=lookahead_ms)


class PredictOptions(TypedDict, total=False):
    """The keywords of `Model.predict`, which documents them."""

    emotion: Emotion
    identity: Identity | None
    shards: Sequence[str | Path]
    sampler: str | None
    sample_steps: int | None
    sample_seed: int | None
    guidance: str | Mapping[str, float] | None
    inpaint: str | Path | Motion | None
    inpaint_channels: Sequence[str]
    inpaint_range: tuple[float, float] | None
    gain: postprocess.Settings
    offset: postprocess.Settings
    smooth_ms: float
    adjust: postprocess.Spec | None


class Model:
    """A checkpoint of a run that predicts motion from audio.

    Example:
        >>> model = load("runs/a")  # doctest: +SKIP
        >>> motion = model.predict("in.wav", emotion="happy=0.7")  # doctest: +SKIP
        >>> motion.save("out.csv", fps=60)  # doctest: +SKIP

    Attributes:
      run: folder of the run.
      config: its configuration.
      name: last part of the run's path.
    """

    def __init__(
        self, run: str | Path, step: int | None = None, *, lookahead_ms: int | None = None
    ) -> None:
        """Reads the configuration of a run; see `load`."""
        self.run = Path(run)
        self.name = self.run.name
        self.config = lookahead.with_lookahead(read_config(run).config, lookahead_ms)
        self._chosen = Chosen(self.run, step, lookahead_ms)
        self._predictors: dict[tuple[tuple[str, Any], ...], Predictor] = {}

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, lookahead_ms: int | None = None, **options: Any
    ) -> Model:
        """Returns the model of a bundle: a folder, or "owner/repository" on the hub.

        Args:
          name: of the bundle.
          lookahead_ms: as for `load`.
          **options: keywords of `a2fjax.api.hub.fetch`, such as `revision="v1"`.

        Raises:
          InputError: as `a2fjax.api.hub.fetch` and `load`.
        """
        model = cls(hub.fetch(name, **options), lookahead_ms=lookahead_ms)
        model.name = Path(name).name
        return model

    def save_pretrained(
        self, folder: str | Path, **options: Unpack[export_lib.ExportOptions]
    ) -> Path:
        """Writes the checkpoint as a bundle and returns its folder; see `a2fjax.api.export.export`.

        Raises:
          InputError, WorkFailed: as `a2fjax.export.writer.export`.
        """
        return export_lib.export(self, folder, **options)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Uploads the checkpoint as a bundle; see `a2fjax.api.hub.push`.

        Returns:
          URL of the commit.

        Raises:
          InputError, WorkFailed: as `a2fjax.api.hub.push`.
        """
        return hub.push(self, repository, **options)

    @property
    def chosen(self) -> Chosen:
        """The run with the step and the look-ahead that `load` was given."""
        return self._chosen

    @property
    def step(self) -> int:
        """Step of the checkpoint; reads the checkpoint where `load` named no step.

        Raises:
          InputError: the run has no checkpoint, or not this one.
        """
        return self.predictor().step if self._chosen.step is None else self._chosen.step

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of training subjects with a learned residual, which `identity` may name."""
        return self.predictor().subjects

    @property
    def is_sampled(self) -> bool:
        """Whether the model is a diffusion model, which draws different samples of a motion."""
        return sampling.is_sampled(self.config)

    def __repr__(self) -> str:
        """Returns kind, run and step."""
        chosen = self._chosen.step
        step = "newest step" if chosen is None else f"step {chosen}"
        return f"<Model {self.config.model.kind} of {self.run}, {step}>"

    def predictor(self, **sample: Any) -> Predictor:
        """Returns the predictor of arrays, for batches and live audio.

        Args:
          **sample: values that replace those of `model.sample`, such as `steps=4`.

        Raises:
          InputError: as `a2fjax.infer.predictor.Predictor.load`.
        """
        key = tuple(sorted(sample.items()))
        if key not in self._predictors:
            predictor = self._chosen.load(sample=sample)
            # A run that is still trained gets newer checkpoints; this model stays with one.
            self._chosen = dataclasses.replace(self._chosen, step=predictor.step)
            self._predictors[key] = predictor
        return self._predictors[key]

    def stream(
        self,
        *,
        emotion: Emotion = None,
        identity: Identity | None = None,
        shards: Sequence[str | Path] = (),
        rate: float = 16_000,
        hop: int | None = None,
        chunking: Chunking | None = None,
        sample_steps: int | None = None,
        sample_seed: int | None = None,
    ) -> Stream:
        """Opens a stream of live audio; everything is compiled when this returns.

        Example:
            >>> stream = load("runs/live", lookahead_ms=40).stream()  # doctest: +SKIP
            >>> stream.push(samples)  # doctest: +SKIP
            >>> motion = stream.frames()  # doctest: +SKIP

        Args:
          emotion: see `predict`; may be changed later, see `Stream.emotion`.
          identity: see `predict`.
          shards: see `predict`.
          rate: of the samples that will be pushed, in Hz; only 16000.
          hop: frames that are computed together; more is cheaper and later. None for 1.
          chunking: lengths of the chunks of a diffusion model, which have this instead of `hop`.
          sample_steps: see `predict`.
          sample_seed: see `predict`.

        Raises:
          InputError: the run cannot stream (the message says what to train), or as `predict`.
        """
        values = {"steps": sample_steps, "seed": sample_seed}
        sample = {k: v for k, v in values.items() if v is not None}
        if not lookahead.streams_in_chunks(self.config):
            lookahead.check_can_stream(self.config)
            self._check_not_sampled(sample)
        from a2fjax.infer import live

        track = emotion_lib.as_track(emotion)
        emotion_lib.check_unspecified(track, self.config.model.emotion_dropout)
        predictor, points, subject = self._speaker(identity, shards, sample)
        return live.open_stream(
            predictor,
            identity=points,
            emotion=live.frame_weights(track),
            subject=subject,
            rate=rate,
            hop=hop,
            chunking=chunking,
        )

    def _check_not_sampled(self, options: Mapping[str, Any]) -> None:
        """Refuses options of diffusion models that were given to another.

        Raises:
          InputError: one of them is not None.
        """
        for name, value in options.items():
            if value is not None:
                raise InputError(
                    f"{name}: {self.run} is no diffusion run; it predicts one motion for a "
                    "recording"
                )

    def _speaker(
        self,
        identity: Identity | None,
        shards: Sequence[str | Path],
        sample: Mapping[str, Any] | None = None,
    ) -> tuple[Predictor, np.ndarray | None, str | None]:
        """Returns (predictor, points, training subject); reads the mesh before the weights."""
        mesh = subject = None
        if identity is not None and self.config.model.identity == "mesh":
            mesh = identity_lib.load_mesh(identity, shards or self.config.data.shards)
        predictor = self.predictor(**(sample or {}))
        if identity is not None:
            subject = identity_lib.training_subject(identity, predictor.subjects)
            if self.config.model.identity == "none" and subject is None:
                message = identity_lib.unused_identity_message(
                    identity, str(self.run), predictor.subjects
                )
                raise InputError(message)
        points = None if mesh is None else predictor.points(mesh, _name(identity))
        return predictor, points, subject

    @overload
    def predict(
        self,
        audio: Audio,
        *,
        samples: None = None,
        progress: Progress | None = None,
        **options: Unpack[PredictOptions],
    ) -> Motion: ...

    @overload
    def predict(
        self,
        audio: Audio,
        *,
        samples: int,
        progress: Progress | None = None,
        **options: Unpack[PredictOptions],
    ) -> list[Motion]: ...

    def predict(
        self,
        audio: Audio,
        *,
        emotion: Emotion = None,
        identity: Identity | None = None,
        shards: Sequence[str | Path] = (),
        samples: int | None = None,
        sampler: str | None = None,
        sample_steps: int | None = None,
        sample_seed: int | None = None,
        guidance: str | Mapping[str, float] | None = None,
        inpaint: str | Path | Motion | None = None,
        inpaint_channels: Sequence[str] = (),
        inpaint_range: tuple[float, float] | None = None,
        gain: postprocess.Settings = (),
        offset: postprocess.Settings = (),
        smooth_ms: float = 0.0,
        adjust: postprocess.Spec | None = None,
        progress: Progress | None = None,
    ) -> Motion | list[Motion]:
        """Predicts the motion of a recording of any length, at 50 frames a second.

        Recordings of more than about 30 s are predicted in overlapping chunks; the same call gives
        the same motion every time.

        Args:
          audio: path of a WAV, FLAC, OGG or MP3 file or a film, at any rate and with any number of
            channels, or a pair (samples, rate): samples [S] or [S, channels], float in [-1, 1], at
            `rate` Hz. A film needs the extra `captures`.
          emotion: "happy", "happy=0.7,sad=0.3", the path of a track over time (.json, .csv),
            {"happy": 0.7}, weights [5] in the order of `a2fjax.rig.EMOTIONS`, or weights [T, 5] of
            each frame. What is missing to a sum of 1 is neutral. None for neutral; "none" leaves
            the emotion to a model that was trained with `model.emotion_dropout`.
          identity: path of a neutral mesh (.npz, .npy, .obj, .ply), name of a subject, vertices
            [V, 3], or (vertices [V, 3], faces [F, 3]), in any unit. None for the mean identity.
          shards: folders in which subjects are looked up; () for those of the training.
          samples: number of samples a diffusion model draws; None for one, without a list.
          sampler: "angle", "dpm", "ddim", "ddpm" or "consistency"; None for the run's.
          sample_steps: calls of the network a sample, at least 1; None for the run's.
          sample_seed: seed of the noise; None for the run's.
          guidance: strength of conditions, "audio=1.5,emotion=2" or {"audio": 1.5}; 1 is no
            guidance.
          inpaint: motion, or an animation file, that a diffusion model keeps except for
            `inpaint_channels` or `inpaint_range`, which are predicted to fit it.
          inpaint_channels: channels, or groups of `a2fjax.rig.GROUPS`, to predict.
          inpaint_range: (start, end) in seconds to predict.
          gain: factor of at least 0 by channel or group, {"jawOpen": 1.2} or ["jawOpen=1.2"].
          offset: value added after the gain, likewise, in rig units.
          smooth_ms: standard deviation of a Gaussian over time in ms, 0 to 500.
          adjust: gain, offset, limits and smoothing by channel or group, as JSON or a dictionary;
            see `a2fjax.infer.postprocess`.
          progress: called with (frames done, frames in all).

        Returns:
          The motion, or a list of `samples` motions.

        Raises:
          InputError: names what is wrong with the audio, emotion, identity or an option; options of
            diffusion models given to another model.
        """
        plan = self.plan(
            audio,
            samples=samples,
            emotion=emotion,
            identity=identity,
            shards=shards,
            sampler=sampler,
            sample_steps=sample_steps,
            sample_seed=sample_seed,
            guidance=guidance,
            inpaint=inpaint,
            inpaint_channels=inpaint_channels,
            inpaint_range=inpaint_range,
            gain=gain,
            offset=offset,
            smooth_ms=smooth_ms,
            adjust=adjust,
        )
        motions = [plan.motion(index, progress) for index in range(samples or 1)]
        return motions[0] if samples is None else motions

    def predict_to_files(
        self,
        audio: Audio,
        outputs: str | Path | Sequence[str | Path],
        *,
        fps: float | str | Fraction = rig.FPS,
        timecode: str = "00:00:00:00.000",
        figure: str | Path | None = None,
        figure_range: tuple[float, float] | None = None,
        samples: int | None = None,
        order: str | None = None,
        names_map: str | Path | None = None,
        mouth_close: str | None = None,
        head: str | Path | None = None,
        progress: Progress | None = None,
        **options: Unpack[PredictOptions],
    ) -> motion_files.Written:
        """Predicts the motion of a recording and writes it as it comes, in bounded memory.

        Args:
          audio: see `predict`; hours long if need be.
          outputs: files to write, see `Motion.save`; () for the figure only. With `samples=3`,
            NAME.csv becomes NAME.sample0.csv, NAME.sample1.csv and NAME.sample2.csv.
          fps: frames a second of the files.
          timecode: HH:MM:SS:FF.fff of the first frame, in Live Link Face files.
          figure: .png, .pdf or .svg to draw the main curves to; None for none.
          figure_range: (start, end) in seconds to draw; None for all.
          samples: see `predict`.
          order: see `Motion.save`.
          names_map: see `Motion.save`.
          mouth_close: see `Motion.save`.
          head: see `Motion.save`.
          progress: see `predict`.
          **options: the other keywords of `predict`.

        Returns:
          The files, and what is in them.

        Raises:
          InputError: as `predict` and `Motion.save`; no file is left behind.
          WorkFailed: the disk is full or fails.
        """
        targets = motion_files.Targets(
            [outputs] if isinstance(outputs, str | Path) else outputs,
            audio,
            fps=fps,
            timecode=timecode,
            figure=figure,
            figure_range=figure_range,
            samples=samples,
            order=order,
            names_map=names_map,
            mouth_close=mouth_close,
            head=head,
        )
        prediction = self.plan(audio, samples=samples, **options)
        return motion_files.write(prediction, targets, progress)

    def plan(
        self, audio: Audio, *, samples: int | None = None, **given: Unpack[PredictOptions]
    ) -> Prediction:
        """Checks everything that `predict` is given and returns the prediction, not yet made.

        Args:
          audio: see `predict`.
          samples: see `predict`.
          **given: the other keywords of `predict`.

        Raises:
          InputError: as `predict`.
        """
        if samples is not None and samples < 1:
            raise InputError(f"samples={samples}: expected at least 1")
        values: dict[str, Any] = {
            "sampler": given.get("sampler"),
            "seed": given.get("sample_seed"),
            "steps": given.get("sample_steps"),
        }
        sample = {k: v for k, v in values.items() if v is not None}
        sample |= sampling.parse_guidance(given.get("guidance"))
        inpaint = _inpainting(given)
        adjustment = postprocess.adjustment(
            given.get("gain", ()),
            given.get("offset", ()),
            given.get("smooth_ms", 0.0),
            given.get("adjust"),
        )
        track = emotion_lib.as_track(given.get("emotion"))
        recording = Recording(audio)
        if not self.is_sampled:
            self._check_not_sampled({"samples": samples, "inpaint": inpaint, **sample})
        emotion_lib.check_unspecified(track, self.config.model.emotion_dropout)
        predictor, points, subject = self._speaker(
            given.get("identity"), given.get("shards", ()), sample
        )
        for text in recording.warnings:
            _log.warning("warning: %s: %s", recording.name, text)
        stats = recording.stats
        predictor.training.check_sound(stats.band_levels, stats.speech_level, recording.name)
        return Prediction(
            predictor,
            recording,
            track,
            points,
            subject,
            inpaint,
            adjustment,
            samples,
            title=f"{recording.name}  ·  {self.name} step {predictor.step}",
        )


def _name(identity: Identity | None) -> str:
    return f"identity {identity}" if isinstance(identity, str | Path) else "identity"


def _inpainting(options: PredictOptions) -> Inpainting | None:
    given = options.get("inpaint")
    channels = options.get("inpaint_channels", ())
    seconds = options.get("inpaint_range")
    if given is None:
        if channels or seconds:
            raise InputError(
                "inpaint_channels and inpaint_range: name what is predicted anew of a motion; give "
                "the motion as inpaint (--inpaint FILE)"
            )
        return None
    if isinstance(given, Motion):
        observed = np.ones(rig.NUM_CHANNELS, bool) if given.observed is None else given.observed
        track = Track(given.curves, given.times, observed)
        return inpainting_lib.from_track(track, channels, seconds)
    return inpainting_lib.from_track(formats.read(given), channels, seconds, name=str(given))
