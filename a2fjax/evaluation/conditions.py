"""Altered conditions: measure how a prediction depends on identity, emotion and clean audio.

    mean_identity      without the neutral mesh
    shuffled_identity  the mesh of another subject
    shuffled_emotion   the emotion track of a clip of another emotion
    shuffled_both      both shuffles
    noise_20db         white noise 20 dB below the clip's speech level
    no_emotion         unspecified emotion (the zero vector); only for models trained with
                       `model.emotion_dropout`

Shuffling makes a model that uses its inputs worse and leaves one that ignores them unchanged.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from a2fjax import rig
from a2fjax.configuration import Config
from a2fjax.evaluation.baselines import fit_length
from a2fjax.evaluation.eval_clips import EvalClip
from a2fjax.infer.predictor import Request

NAMES = (
    "mean_identity",
    "shuffled_identity",
    "shuffled_emotion",
    "shuffled_both",
    "noise_20db",
)
NO_EMOTION = "no_emotion"
NOISE_DB = -20.0


def names(config: Config) -> tuple[str, ...]:
    """Returns the names of the conditions that apply to a model."""
    return (*NAMES, NO_EMOTION) if config.model.emotion_dropout > 0 else NAMES


def request(
    sample: EvalClip, points: Mapping[str, np.ndarray], trained: Mapping[str, str] | None = None
) -> Request:
    """Returns the prediction request of a clip under its true conditions.

    Args:
      sample: the clip.
      points: identity points [P, 3 or 6] by subject; a missing subject uses the mean identity.
      trained: name in the model's training set, by subject, for the subjects it contains.
    """
    return Request(
        audio=sample.clip.audio,
        identity=points.get(sample.subject),
        emotion=sample.clip.emotion,
        speech_level=sample.clip.speech_level,
        subject=(trained or {}).get(sample.subject),
    )


def altered_request(
    name: str,
    index: int,
    samples: Sequence[EvalClip],
    points: Mapping[str, np.ndarray],
    trained: Mapping[str, str] | None = None,
    *,
    seed: int,
) -> Request:
    """Returns the prediction request of a clip under an altered condition.

    Args:
      name: name of the condition, one of `names`.
      index: index of the clip in `samples`.
      samples: clips that provide the other emotions.
      points: identity points of all subjects, by subject.
      trained: as in `request`.
      seed: seed of the draws, which depend only on it and the clip's name.
    """
    sample = samples[index]
    true = request(sample, points, trained)
    audio, identity, emotion, subject = true.audio, true.identity, true.emotion, true.subject
    key = zlib.crc32(sample.clip.id.encode())
    if name == "mean_identity":
        identity = subject = None
    if name in ("shuffled_identity", "shuffled_both"):
        others = sorted(name for name in points if name != sample.subject)
        if others:
            draw = np.random.default_rng([seed, key, 1]).integers(len(others))
            other = others[int(draw)]
            identity, subject = points[other], (trained or {}).get(other)
    if name in ("shuffled_emotion", "shuffled_both"):
        emotion = _other_emotion(sample, samples, np.random.default_rng([seed, key, 2]))
    if name == "noise_20db":
        noise = np.random.default_rng([seed, key, 3]).standard_normal(len(audio))
        noise_level = sample.clip.speech_level * 10 ** (NOISE_DB / 20)
        audio = (audio + noise_level * noise).astype(np.float32)
    if name == NO_EMOTION:
        emotion = np.zeros(rig.NUM_EMOTIONS, np.float32)
    return Request(audio, identity, emotion, true.speech_level, subject)


def _other_emotion(
    sample: EvalClip, samples: Sequence[EvalClip], rng: np.random.Generator
) -> np.ndarray:
    others = [s for s in samples if s.emotion != sample.emotion]
    if others:
        track = others[int(rng.integers(len(others)))].clip.emotion
        return fit_length(track, sample.clip.frames)
    names = [e for e in range(rig.NUM_EMOTIONS) if rig.EMOTIONS[e] != sample.emotion]
    constant = np.zeros((sample.clip.frames, rig.NUM_EMOTIONS), np.float32)
    constant[:, names[int(rng.integers(len(names)))]] = 1.0
    return constant
