"""Altered conditions: how much a prediction depends on identity, emotion and clean audio.

    mean_identity      without the neutral mesh
    shuffled_identity  the mesh of another subject
    shuffled_emotion   the emotion track of a clip of another emotion
    shuffled_both      both of these
    noise_20db         white noise 20 dB below the clip's speech level
    no_emotion         unspecified emotion (the zero vector); only for models trained with
                       `model.emotion_dropout`

A model that uses its inputs gets worse under the shuffles; one that ignores them does not.
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
    """Returns the conditions that a model is measured under."""
    return (*NAMES, NO_EMOTION) if config.model.emotion_dropout > 0 else NAMES


def request(
    sample: EvalClip, points: Mapping[str, np.ndarray], trained: Mapping[str, str] | None = None
) -> Request:
    """Returns the request of a clip under its true conditions.

    Args:
      sample: the clip.
      points: identity points [P, 3 or 6] by subject; a subject without gets the mean identity.
      trained: name in the model's training set by subject, of those that are in it.
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
    """Returns the request of a clip under a condition of `NAMES`.

    Args:
      name: of the condition, one of `names`.
      index: of the clip in `samples`.
      samples: clips whose emotions may be used.
      points: identity points by subject, of all subjects.
      trained: as `request`.
      seed: of the draws; the draws of a clip depend on nothing but its name.
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
