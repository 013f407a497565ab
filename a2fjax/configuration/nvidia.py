"""Settings of NVIDIA's two networks; the defaults are the released sizes.

The terms of `loss` keep their meaning with both heads: position is their "mse" (diffusion:
"simple") and velocity their "motion", of the numbers that the head gives. Weights of terms that
only these networks have are here; 0 leaves a term out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from a2fjax.configuration.bounds import (
    Choice,
    Depth,
    Keys,
    NonNegative,
    Positive,
    Range,
    Reach,
    ShareBelowOne,
    Width,
)
from a2fjax.configuration.models import ModelConfig
from a2fjax.errors import InputError

PARTS = ("skin", "tongue", "jaw", "eyes")
"""Parts of the numbers that a geometry head gives."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NvidiaConfig(ModelConfig):
    """Settings that both networks have.

    Attributes:
      head: "rig" gives the 72 channels; "geometry" gives what NVIDIA's does: skin, tongue, jaw and
        eyes, from which the channels are solved. Keys of the other head are not read.
      rig: .npz file of shapes for the geometry head; see `models.nvidia.geometry.shapes`.
      tongue_rig: .npz file of the tongue's shapes where they are in a file of their own.
      solve_error: error to expect of a geometry's numbers, as a share of their RMS deviation over
        the training frames: the larger, the more the channels solved from them keep to what
        training motion looks like.
      standardise: brings encoders' hidden states to mean 0 and deviation 1 of the training data, as
        Whisper's need it; NVIDIA's are used as they are.
      width: width of most layers.
      lip_dist: loss weight of the distance of the lips' vertices; geometry head only.
    """

    kind: str = ""
    head: Annotated[str, Choice("rig", "geometry")] = "rig"
    rig: str = ""
    tongue_rig: str = ""
    solve_error: Annotated[float, Positive] = 0.1
    standardise: bool = False
    width: Annotated[int, Width] = 256
    lip_dist: Annotated[float, NonNegative] = 0.0

    @property
    def actors(self) -> int:
        """Number of one-hot identities; 1 is one for everybody."""
        return 1

    @property
    def implicit_emotion(self) -> bool:
        """Whether an emotion vector is learned for each training frame."""
        return False

    @property
    def term_weights(self) -> dict[str, float]:
        """Weights of the loss terms that only these networks have, by name."""
        return {"lip_dist": self.lip_dist}

    def validate(self, where: str = "config") -> None:
        """Checks that the lips' distance has a head with lips.

        Raises:
          InputError: names the key, its value and what was expected.
        """
        if self.head == "rig" and self.lip_dist:
            raise InputError(
                f"{where}: model.lip_dist={self.lip_dist}: the distance of the lips' vertices "
                "needs model.head='geometry'; for the rig's channels use loss.closure"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvW2vAutocorrConfig(NvidiaConfig):
    """conv_w2v_autocorr ("v2.3"): convolutions along the lags of encoders' hidden states.

    Attributes:
      skin, tongue: PCA coefficients of the geometry head; those beyond what the training frames
        span stay 0.
      lag_widths: channels of the four convolutions along the lags.
      implicit_emotion: learns an emotion vector for each training frame; inference uses their mean.
      normalise: divides the normalised terms (position, velocity, emo_reg) by their own size to a
        power that falls from 1 to 0 over the run.
      vol_stab: loss weight of movement in silence.
      emo_reg: loss weight of change between neighbouring emotion vectors.
    """

    kind: str = "conv_w2v_autocorr"
    skin: Annotated[int, Width] = 140
    tongue: Annotated[int, Range(low=0, high=65_536)] = 10
    lag_widths: Annotated[tuple[int, int, int, int], Width] = (72, 108, 162, 243)
    implicit_emotion: bool = False
    normalise: bool = False
    vol_stab: Annotated[float, NonNegative] = 0.0
    emo_reg: Annotated[float, NonNegative] = 1.0

    @property
    def term_weights(self) -> dict[str, float]:
        """Weights of the loss terms that only this network has, by name."""
        return {**super().term_weights, "vol_stab": self.vol_stab, "emo_reg": self.emo_reg}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiffusionRnnConfig(NvidiaConfig):
    """diffusion_rnn ("v3.0"): a GRU that denoises; with the geometry head it gives vertices.

    Attributes:
      actors: number of one-hot identities: 1 is one for everybody, 0 one for each training subject;
        otherwise the number of these.
      whole_encoder: trains, with audio.encoder.train_from at 0 or more, also what NVIDIA trains of
        HuBERT: positional convolution and first norm. The gradient then runs through the frozen
        layers.
      recurrent_width: units of the GRU.
      recurrent_layers: layers of the GRU.
      recurrent_dropout: share of channels dropped between the GRU's layers.
      diffusion_steps: steps of the diffusion.
      sampler: "ddpm" (NVIDIA's) or "ddim", which draws no noise on the way.
      sample_steps: calls of the network for a sample; NVIDIA deploys 2.
      sample_seed: seed of the noise that every sample starts from.
      part_weights: factor of the error by part in NVIDIA's "simple" term; 1 where it is missing.
      exp_smooth: loss weight of the upper face's frame difference; NVIDIA's is 25.
    """

    kind: str = "diffusion_rnn"
    actors: Annotated[int, Reach] = 1
    whole_encoder: bool = False
    recurrent_width: Annotated[int, Width] = 256
    recurrent_layers: Annotated[int, Depth] = 2
    recurrent_dropout: Annotated[float, ShareBelowOne] = 0.3
    diffusion_steps: Annotated[int, Range(low=1, high=100_000)] = 1000
    sampler: Annotated[str, Choice("ddpm", "ddim")] = "ddpm"
    sample_steps: Annotated[int, Depth] = 2
    sample_seed: int = 0
    part_weights: Annotated[Mapping[str, float], Keys("part", *PARTS)] = dataclasses.field(
        default_factory=lambda: {"tongue": 0.1}
    )
    exp_smooth: Annotated[float, NonNegative] = 0.0

    @property
    def term_weights(self) -> dict[str, float]:
        """Weights of the loss terms that only this network has, by name."""
        return {**super().term_weights, "exp_smooth": self.exp_smooth}

    def validate(self, where: str = "config") -> None:
        """Checks the number of steps too.

        Raises:
          InputError: names the key, its value and what was expected.
        """
        super().validate(where)
        if self.sample_steps > self.diffusion_steps:
            raise InputError(
                f"{where}: model.sample_steps={self.sample_steps}: expected at most "
                f"model.diffusion_steps={self.diffusion_steps}"
            )
