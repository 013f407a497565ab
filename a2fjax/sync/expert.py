"""What an expert is: two sequences of vectors whose windows are compared."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax
import numpy as np

from a2fjax.batch import Batch
from a2fjax.models.syncnet.channels import Statistics
from a2fjax.models.syncnet.model import SyncModel


class Expert(Protocol):
    """A judge of whether motion and speech are in step."""

    @property
    def name(self) -> str:
        """What the expert is called."""
        ...

    @property
    def similarity(self) -> str:
        """Kind of the score, of `a2fjax.models.syncnet.similarity.KINDS`."""
        ...

    @property
    def audio_reach(self) -> int:
        """Frames of audio that a vector hears before and after its own."""
        ...

    @property
    def motion_reach(self) -> int:
        """Frames of motion that a vector sees before and after its own."""
        ...

    def embed(self, batch: Batch, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
        """Returns the vectors of the audio's and the motion's frames, each [B, T, D].

        Args:
          batch: audio, motion and masks; no other field is read.
          statistics: of each item's person, from the truth.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NetworkExpert:
    """The network of a run.

    Attributes:
      model: the network.
      variables: its averaged variables.
      name: kind of the network.
    """

    model: SyncModel
    variables: Any
    name: str

    def __post_init__(self) -> None:
        """Compiles on first use."""

        def apply(variables: Any, batch: Batch, statistics: Statistics) -> dict[str, jax.Array]:
            return self.model.apply(variables, batch, statistics=statistics)

        object.__setattr__(self, "_apply", jax.jit(apply))

    @property
    def similarity(self) -> str:
        """Kind of the score."""
        return self.model.similarity

    @property
    def audio_reach(self) -> int:
        """Frames of audio heard on both sides."""
        return self.model.config.audio_reach

    @property
    def motion_reach(self) -> int:
        """Frames of motion seen on both sides."""
        return self.model.config.motion_reach

    def embed(self, batch: Batch, statistics: Statistics) -> tuple[np.ndarray, np.ndarray]:
        """Returns the vectors of audio and motion; see `Expert.embed`."""
        apply: Any = getattr(self, "_apply")  # noqa: B009 - set in __post_init__
        out = apply(self.variables, batch, statistics)
        return np.asarray(out["heard"]), np.asarray(out["seen"])
