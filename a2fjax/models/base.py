"""What every model is to the rest of the house: two pure functions, whatever is behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jax import Array

from a2fjax.batch import Batch
from a2fjax.models.params import Params

if TYPE_CHECKING:
    from a2fjax.models.audio_features import AudioFeatureExtractor


class Model(Protocol):
    """Audio and conditions in, motion out.

    Attributes:
      audio_features: signals and encoders; its `pretrained` weights complete what `init` gives.
    """

    audio_features: AudioFeatureExtractor

    @property
    def frozen(self) -> tuple[str, ...]:
        """Patterns of the parameters that are not trained, for `params.split`."""
        ...

    @property
    def lookahead_frames(self) -> int | None:
        """Frames ahead that an output frame depends on; None when on the whole clip."""
        ...

    @property
    def lookahead_seconds(self) -> float | None:
        """The same in seconds, with the features' analysis window; None likewise."""
        ...

    def init(self, key: Array, batch: Batch) -> Params:
        """Returns parameters that start at random, and constants.

        The weights of encoders are added by `audio_features.with_pretrained`.
        Reads only the shapes of `batch`, so it runs under `eval_shape`.
        """
        ...

    def apply(
        self, params: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, 72]} in rig units.

        With `train=False` the motion is inside `rig.MIN` and `rig.MAX`. With `train=True` it is
        not clipped (a clipped channel would have no gradient), and `key` drives dropout.
        """
        ...
