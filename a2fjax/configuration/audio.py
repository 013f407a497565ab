"""Settings of the audio features: signals and pretrained speech encoders."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

from a2fjax import registry
from a2fjax.configuration.bounds import (
    Choice,
    NonNegative,
    Positive,
    Range,
    Rule,
    Share,
    ShareBelowOne,
    Width,
)
from a2fjax.errors import nearest

SIGNALS = ("mel", "pitch")
"""Features that are computed from the waveform alone."""


def _feature_problem(name: str) -> str:
    kind, colon, path = name.partition(":")
    encoders = registry.encoders.names()
    if kind in (encoders if colon else SIGNALS) and not (colon and not path):
        return ""
    # Only an encoder's kind is compared: a path has no nearest valid choice.
    near = nearest(kind, [*(() if colon else SIGNALS), *encoders])
    near = re.sub(f"\\b({'|'.join(map(re.escape, encoders))})\\b", r"\1:PATH", near)
    near = near.replace("PATH", path or "PATH")
    if not colon:
        return near
    return f"{near}; a package that registers another encoder is named in config.plugins"


def _least(lowest: int, expected: str) -> Rule:
    return Rule(expected, lambda value: "" if value >= lowest else f": expected {expected}")


Feature = Rule('"mel", "pitch" or "ENCODER:PATH"', _feature_problem)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """How speech encoders among the features are used; all of them alike.

    Attributes:
      layers: number of transformer layers that run, from the first; -1 runs all.
      mix: uses a learned mix of all hidden states, from the input of the first layer on, instead
        of the last one.
      width: width that each feature is projected to, signals included, once an encoder is among
        the features.
      train_from: first transformer layer that is trained with the model, counted from 0; -1 also
        trains what precedes the layers; None keeps the encoder frozen, which costs neither
        gradients nor optimiser memory.
      learning_rate: learning rate of the encoder's trained layers, as a factor of the model's.
      precision: precision of the encoder's activations.
      remat: recomputes the inside of layers for gradients instead of keeping it.
      noise: standard deviation of the noise that training adds to the standardised hidden states.
      dropout: share of an encoder's channels dropped for a whole window while training.
      time_mask: share of frames that SpecAugment's spans of `time_mask_frames` would cover if none
        overlapped; drawn for each feature separately.
      time_mask_frames: frames of a span.
      feature_dropout: share of training windows from which one feature is left out; never the only
        one.
    """

    layers: Annotated[int, _least(-1, "-1 (all layers) or at least 0")] = -1
    mix: bool = False
    width: Annotated[int, Width] = 128
    train_from: Annotated[
        int | None,
        _least(
            -1,
            "None (frozen), a layer from 0 on, or -1 for what comes before the layers as well",
        ),
    ] = None
    learning_rate: Annotated[float, NonNegative] = 0.1
    precision: Annotated[str, Choice("float32", "bfloat16")] = "float32"
    remat: bool = False
    noise: Annotated[float, NonNegative] = 0.0
    dropout: Annotated[float, ShareBelowOne] = 0.0
    time_mask: Annotated[float, ShareBelowOne] = 0.0
    time_mask_frames: Annotated[int, Positive] = 10
    feature_dropout: Annotated[float, Share] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Audio features that the model is conditioned on.

    Attributes:
      features: names of the features: "mel" (80 log-mel bins), "pitch" (F0, voicing, log energy)
        and pretrained encoders "KIND:PATH", such as "wav2vec2:PATH", "hubert:PATH",
        "whisper:PATH". Signals are concatenated; with an encoder among them every feature is
        projected first.
      mel_floor_db: floor of log-mel below the clip's speech level, in dB. Recorded rooms are never
        silent, and what lies below the floor must look like silence.
      encoder: how encoders are used.
    """

    features: Annotated[tuple[str, ...], Feature] = ("mel",)
    mel_floor_db: Annotated[float, Range(low=-200, high=0, below=True)] = -60.0
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
