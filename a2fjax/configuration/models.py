"""Settings of the networks, one class a kind; the registry of models names the class of each kind.

A package's own kind has a frozen dataclass that extends `ModelConfig`, or one of the classes here.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

from a2fjax.configuration.bounds import (
    Choice,
    Depth,
    NonNegative,
    Positive,
    Range,
    Reach,
    Share,
    ShareBelowOne,
    Width,
)
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Settings that every kind of network has.

    The properties tell data loading, inference and evaluation which conditions a network has; a
    kind that has one overrides the property by a field of the same name.

    Attributes:
      kind: name under which the network is registered.
    """

    kind: str = ""

    @property
    def identity(self) -> str:
        """Source of the speaker's identity: "mesh" or "none"."""
        return "none"

    @property
    def identity_normals(self) -> bool:
        """Whether the mesh descriptor contains normals."""
        return False

    @property
    def identity_residual(self) -> bool:
        """Whether each training subject has a learned vector."""
        return False

    @property
    def emotion_dropout(self) -> float:
        """Share of training windows without an emotion."""
        return 0.0

    @property
    def condition_dropout(self) -> float:
        """Share of training windows without an identity."""
        return 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConditionedConfig(ModelConfig):
    """1-D convolutions and a GRU over audio features, with identity and emotion.

    Attributes:
      conv_layers: number of 1-D convolutions.
      conv_width: channels of each convolution.
      past_frames: past reach of the convolution stack in frames, shared over its layers.
      recurrent_width: units of each direction.
      identity: source of the speaker's identity.
      identity_width: size of the identity embedding.
      emotion_width: size of the emotion embedding.
      dropout: share of channels dropped after each convolution, for a whole window.
      condition_dropout: share of training windows whose identity is replaced by the mean one.
      identity_normals: adds normals to the mesh descriptor; meshes then need faces of one winding.
      identity_residual: learns a vector for each training subject that is added to the identity
        embedding, for what the mesh does not tell. Works without meshes as well; other speakers
        have none.
      residual_dropout: share of training windows without that vector, so that the network still
        reads the mesh.
      emotion_dropout: share of training windows whose emotion becomes the zero vector, "not given";
        a model trained without any has never seen it.
    """

    kind: str = ""
    conv_layers: Annotated[int, Depth] = 3
    conv_width: Annotated[int, Width] = 256
    past_frames: Annotated[int, Reach] = 5
    recurrent_width: Annotated[int, Width] = 256
    identity: Annotated[str, Choice("mesh", "none")] = "mesh"
    identity_width: Annotated[int, Width] = 32
    emotion_width: Annotated[int, Width] = 16
    dropout: Annotated[float, ShareBelowOne] = 0.1
    condition_dropout: Annotated[float, Share] = 0.0
    identity_normals: bool = False
    identity_residual: bool = False
    residual_dropout: Annotated[float, Share] = 0.5
    emotion_dropout: Annotated[float, Share] = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneConfig(ConditionedConfig):
    """The network over audio features that may read the whole clip.

    Attributes:
      future_frames: future reach of the convolution stack in frames, shared over its layers.
      recurrent: direction of the GRU: "bidirectional" (a frame depends on the whole clip) or
        "causal" (a frame then depends on `future_frames` and the features' own look-ahead, which
        `models.Model.lookahead_seconds` states).
    """

    future_frames: Annotated[int, Reach] = 5
    recurrent: Annotated[str, Choice("bidirectional", "causal")] = "bidirectional"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegressionConfig(BackboneConfig):
    """The regression network ("v2.3"): backbone and a linear head."""

    kind: str = "regression"


FRAME_MS = 20
"""Milliseconds of a motion frame."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamingConfig(ConditionedConfig):
    """The regression network for live audio: one set of weights for several look-aheads.

    Attributes:
      lookaheads_ms: look-aheads in ms that training draws from, one for each window; multiples of
        20. The audio of a frame itself takes 20 ms more.
      lookahead_ms: look-ahead wherever none is chosen, one of `lookaheads_ms`.
    """

    kind: str = "streaming"
    lookaheads_ms: Annotated[tuple[int, ...], Range(low=0, high=2000)] = (0, 40, 100, 160, 320)
    lookahead_ms: Annotated[int, Range(low=0, high=2000)] = 100

    def validate(self, where: str) -> None:
        """Checks the look-aheads.

        Raises:
          InputError: not multiples of a frame, not ascending, or a choice that is not trained.
        """
        given = list(self.lookaheads_ms)
        if not given or any(ms % FRAME_MS for ms in given) or given != sorted(set(given)):
            raise InputError(
                f"{where}: model.lookaheads_ms={self.lookaheads_ms}: expected ascending multiples "
                f"of {FRAME_MS}, such as (0, 40, 100)"
            )
        self.check_lookahead(self.lookahead_ms, where=f"{where}: model.lookahead_ms")

    def check_lookahead(self, ms: int, *, where: str) -> None:
        """Checks that a look-ahead was trained.

        Raises:
          InputError: it was not; names the nearest one.
        """
        if ms not in self.lookaheads_ms:
            near = min(self.lookaheads_ms, key=lambda own: abs(own - ms))
            known = ", ".join(map(str, self.lookaheads_ms))
            raise InputError(
                f"{where}={ms}: the model has the look-aheads {known} ms; the nearest is {near}"
            )

    @property
    def lookahead_frames(self) -> tuple[int, ...]:
        """`lookaheads_ms` in frames."""
        return tuple(ms // FRAME_MS for ms in self.lookaheads_ms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How a diffusion model samples; may differ from training as far as the model allows it.

    Attributes:
      sampler: "angle" (second order at any number of steps), "dpm" (DPM-Solver++ 2M), "ddim",
        "ddpm" (ancestral), or "consistency" (distilled models only).
      steps: calls of the network.
      eta: share of fresh noise in each step of "ddim".
      seed: seed of the noise that samples start from; each seed gives another sample.
      audio, emotion, identity: guidance strength of the condition; 1 is no guidance. Each other
        than 1 costs one more prediction a step and needs a model that was trained without the
        condition at times (`model.audio_dropout`, `model.emotion_dropout`,
        `model.condition_dropout`).
    """

    sampler: Annotated[str, Choice("angle", "dpm", "ddim", "ddpm", "consistency")] = "angle"
    steps: Annotated[int, Depth] = 8
    eta: Annotated[float, Share] = 0.0
    seed: int = 0
    audio: Annotated[float, NonNegative] = 1.0
    emotion: Annotated[float, NonNegative] = 1.0
    identity: Annotated[float, NonNegative] = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The diffusion U-Net (`a2fjax.models.unet`).

    Attributes:
      widths: channels of each level; each level has half the rate of the one before.
      blocks: residual blocks of a level on the way down; on the way up there is one.
      heads: attention heads; divides the widths.
      window: frames, at a level's own rate, that attention reaches to either side.
      reach: frames at 50 a second within which attention to the audio is free; beyond, each frame
        costs a learned amount.
      dropout: share of channels dropped inside residual blocks, for a whole window.
      remat: recomputes the inside of blocks for gradients instead of keeping it.
    """

    widths: Annotated[tuple[int, ...], Width] = (96, 128, 192)
    blocks: Annotated[int, Depth] = 1
    heads: Annotated[int, Depth] = 4
    window: Annotated[int, Positive] = 32
    reach: Annotated[int, Reach] = 5
    dropout: Annotated[float, ShareBelowOne] = 0.0
    remat: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionConfig(BackboneConfig):
    """The diffusion network ("v3.0"): the regression's backbone and a U-Net that removes noise.

    Attributes:
      unet: the U-Net.
      sample: how motion is sampled.
      schedule: noise schedule; both reach zero terminal signal.
      target: what the U-Net predicts: velocity "v", clean motion "x0", or noise "eps", which starts
        from a little signal, as it must.
      snr_limit: weights squared errors of the clean motion by min(1 + SNR, this).
      pure_noise: share of training windows at pure noise, where every sample begins; the others
        are spread evenly over the noise levels.
      coarse: loss weight of the coarse prediction, a regression from the audio that the U-Net
        corrects; its errors are in rig units, whatever `loss.balance`.
      audio_dropout: share of training windows without audio.
      distill_steps: 0 trains on data. Otherwise `init_from` is the teacher, and the student learns
        to make in one call what its teacher's sampler makes in this many: the end of the path from
        any noise level.
      distill_levels: noise levels that the student learns to start from: 1 and evenly below.
    """

    kind: str = "diffusion"
    unet: UNetConfig = dataclasses.field(default_factory=UNetConfig)
    sample: SampleConfig = dataclasses.field(default_factory=SampleConfig)
    schedule: Annotated[str, Choice("cosine", "linear")] = "cosine"
    target: Annotated[str, Choice("v", "x0", "eps")] = "v"
    snr_limit: Annotated[float, Positive] = 5.0
    pure_noise: Annotated[float, Share] = 0.1
    coarse: Annotated[float, NonNegative] = 1.0
    audio_dropout: Annotated[float, Share] = 0.1
    distill_steps: Annotated[int, NonNegative] = 0
    distill_levels: Annotated[int, Depth] = 4
