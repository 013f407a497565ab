"""The reference of a clip: true motion that predictions are compared with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from a2fjax import rig
from a2fjax.metrics import energy, lips, silence, sounds
from a2fjax.metrics.face import Face, dynamics
from a2fjax.metrics.phones import gestures, labels
from a2fjax.metrics.phones.alignment import Phone


class Judged(Protocol):
    """A clip before a judge of lip sync; see `metrics.sync`."""

    @property
    def truth_scores(self) -> np.ndarray:
        """`scores` of the true motion."""
        ...

    def scores(self, motion: np.ndarray) -> np.ndarray:
        """Returns the scores [41, N] of a motion [T, 72]: lateness -20 ... 20 frames, windows."""
        ...


@dataclasses.dataclass(frozen=True)
class Reference:
    """A clip's true motion with quantities that metrics derive from it, computed once.

    Attributes:
      motion: [T, 72] in rig units.
      channel_mask: [72] bool.
      frame_mask: [T] bool.
      aperture: [T]; see `lips.aperture`.
      speech, rest: [T] bool; see `silence.segment`.
      loudness: [T] dB; see `energy.log_level`.
      level: linear RMS level of the sound of the valid frames; NaN without any.
      audio: [samples] at 16 kHz, and speech_level: linear RMS level of its speech.
      threshold: closure threshold of the subject; NaN if unknown.
      bounds: bounds of the subject's gestures by class of phones; see `phones.gestures`.
      phones: the clip's alignment; empty if unknown.
      face: for metrics of vertices; None if there is none.
      judged: for metrics of lip sync; None without a judge.
    """

    motion: np.ndarray
    channel_mask: np.ndarray
    frame_mask: np.ndarray
    aperture: np.ndarray
    speech: np.ndarray
    rest: np.ndarray
    loudness: np.ndarray
    level: float
    audio: np.ndarray
    speech_level: float
    threshold: float = float("nan")
    bounds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    phones: tuple[Phone, ...] = ()
    face: Face | None = None
    judged: Judged | None = None

    @property
    def aperture_mask(self) -> np.ndarray:
        """[T] bool, frames with a valid aperture; all false if jawOpen is not observed."""
        if lips.has_aperture(self.channel_mask):
            return self.frame_mask
        return np.zeros_like(self.frame_mask)

    @functools.cached_property
    def upper_dynamics(self) -> np.ndarray:
        """std_t |g_tv - n_v|^2 [U] of the face's upper vertices over valid frames.

        Raises:
          ValueError: there is no face.
        """
        if self.face is None:
            raise ValueError("there is no face")
        valid = self.motion[self.frame_mask]
        return dynamics(self.face.upper, valid, self.channel_mask)

    @functools.cached_property
    def nonspeech(self) -> dict[str, np.ndarray]:
        """Frames [T] bool of "hum", "breath" and "laugh", by sound and labels; see `nonspeech`."""
        frames = len(self.motion)
        out = sounds.find(self.audio, frames, self.speech_level)
        out["laugh"] = np.zeros(frames, bool)
        for phone in self.phones:
            kind = labels.nonspeech_kind(phone.label)
            if kind:
                out[kind][round(phone.start * rig.FPS) : round(phone.end * rig.FPS)] = True
        return out


def reference(
    motion: np.ndarray,
    audio: np.ndarray,
    *,
    channel_mask: np.ndarray,
    frame_mask: np.ndarray,
    speech_level: float,
) -> Reference:
    """Returns the reference of a clip, still without the subject's closure threshold.

    Args:
      motion: [T, 72] in rig units.
      audio: [samples] at 16 kHz; frame t lies at sample 320 * t.
      channel_mask: [72] bool, observed channels.
      frame_mask: [T] bool, frames that count.
      speech_level: linear RMS level of the speech in `audio`.
    """
    level = silence.frame_level(audio, len(motion))
    speech, rest = silence.segment(level, speech_level)
    return Reference(
        motion=np.asarray(motion),
        channel_mask=np.asarray(channel_mask, bool),
        frame_mask=np.asarray(frame_mask, bool),
        aperture=lips.aperture(motion, channel_mask),
        speech=speech,
        rest=rest,
        loudness=energy.log_level(level, speech_level),
        level=silence.valid_level(audio, frame_mask),
        audio=audio,
        speech_level=speech_level,
    )


def with_thresholds(references: list[Reference], subjects: list[str]) -> list[Reference]:
    """Returns the references with thresholds and bounds computed from all clips of each subject.

    More clips of a subject give a better threshold: a single sentence may have no closure.

    Args:
      references: reference of each clip.
      subjects: subject of each clip.
    """
    thresholds, bounds = {}, {}
    for subject in set(subjects):
        own = [r for r, name in zip(references, subjects, strict=True) if name == subject]
        clips = [r for r in own if lips.has_aperture(r.channel_mask)]
        thresholds[subject] = (
            lips.closure_threshold(
                np.concatenate([r.aperture[r.frame_mask] for r in clips]),
                np.concatenate([r.speech[r.frame_mask] for r in clips]),
            )
            if clips
            else float("nan")
        )
        spoken = [gestures.curves(r.motion[r.frame_mask & r.speech], r.channel_mask) for r in own]
        bounds[subject] = gestures.bounds(spoken, thresholds[subject])
    return [
        dataclasses.replace(r, threshold=thresholds[name], bounds=bounds[name])
        for r, name in zip(references, subjects, strict=True)
    ]
