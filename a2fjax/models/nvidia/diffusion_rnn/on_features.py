"""One denoising step of `diffusion_rnn` on precomputed features of a speech encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.models import rngs as rngs_lib
from a2fjax.models.audio_model import DTYPES
from a2fjax.models.nvidia.diffusion_rnn.network import Network, Size, resample, stacked
from a2fjax.models.nvidia.emotions import explicit_emotion
from a2fjax.models.nvidia.frame_layout import RIG
from a2fjax.models.params import Params

Inputs = Mapping[str, Array]
"""Arrays by name; see `DiffusionRnnOnFeatures`."""


class DiffusionRnnOnFeatures:
    """Model interface of `Network` (`init` and `apply`): the function that a sampler calls.

    Inputs are `length` [B], `emotion` [B, T, 5] or [B, T, explicit], and `features`
    [B, F, encoder_width] with `feature_length` [B] valid frames (default `length`, since this
    package has one feature frame per frame of motion). `actor` [B, actors] is one-hot, or a mixture
    that sums to 1; it is optional with a single actor.
    """

    def __init__(
        self,
        size: Size | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        precision: str = "float32",
    ) -> None:
        """Creates the model.

        Args:
          size: widths of the network; None for NVIDIA's with one actor and the rig's 72 channels.
          constants: "mean_geometry" [actors, D] in the units of the normalised motion; None for
            zero.
          precision: precision of activations, "float32" or "bfloat16".
        """
        self.size = size or Size(RIG)
        shape = (self.size.actors, self.size.layout.width)
        self.constants = dict(
            {"mean_geometry": np.zeros(shape, np.float32)} if constants is None else constants
        )
        self.network = Network(self.size, DTYPES[precision])

    def init(self, key: Array, inputs: Inputs) -> Params:
        """Returns {"params": ..., "constants": ...}; only the input shapes matter."""
        constants = {name: jnp.asarray(value) for name, value in self.constants.items()}
        items, frames = inputs["emotion"].shape[:2]
        noisy = jnp.zeros((items, frames, self.size.layout.width))
        step = jnp.zeros(items, jnp.int32)
        conditions = self._conditions(inputs, frames)
        mean = constants["mean_geometry"]
        variables: Any = self.network.init(key, noisy, step, *conditions, mean)
        return {"params": variables["params"], "constants": constants}

    def apply(
        self,
        variables: Params,
        noisy: Array,
        step: Array,
        inputs: Inputs,
        *,
        state: Array | None = None,
        key: Array | None = None,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Predicts clean motion from noisy motion.

        Args:
          variables: variables from `init`.
          noisy: [B, T, D] normalised motion with noise.
          step: [B] int, diffusion step of each item.
          inputs: inputs; see the class.
          state: [recurrent_layers, B, recurrent_width] after the preceding frames, at the same
            step.
          key: random key of dropout.
          train: enables dropout.

        Returns:
          The prediction [B, T, D], normalised, and the state after frame `length - 1`.

        Raises:
          ValueError: training without a key, or several actors and no `actor` in the inputs.
        """
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        streams = rngs_lib.streams(key) if train and key is not None else None
        mean = variables["constants"]["mean_geometry"]
        return self.run(variables["params"], mean, noisy, step, inputs, state=state, rngs=streams)

    def run(
        self,
        params: Params,
        mean: Array,
        noisy: Array,
        step: Array,
        inputs: Inputs,
        *,
        state: Array | None = None,
        rngs: dict[str, Array] | None = None,
    ) -> tuple[Array, Array]:
        """Computes `apply` with separate parameters and mean frame.

        Args:
          params: parameters of the network.
          mean: [actors, D], each actor's mean frame.
          noisy: as in `apply`.
          step: as in `apply`.
          inputs: as in `apply`.
          state: as in `apply`.
          rngs: result of `rngs.streams` for training; None otherwise.
        """
        out: Any = self.network.apply(
            {"params": params},
            noisy,
            step,
            *self._conditions(inputs, noisy.shape[1]),
            mean,
            jnp.asarray(inputs["length"]),
            state,
            train=rngs is not None,
            rngs=rngs or {},
        )
        prediction, state = out
        return prediction, state

    def _conditions(self, inputs: Inputs, frames: int) -> tuple[Array, Array, Array]:
        length = jnp.asarray(inputs["length"])
        stack = self.size.stack
        features = resample(
            jnp.asarray(inputs["features"]),
            jnp.asarray(inputs.get("feature_length", length)),
            stack * length,
            stack * frames,
        )
        emotion = explicit_emotion(jnp.asarray(inputs["emotion"]), self.size.explicit)
        actor = inputs.get("actor")
        if actor is None:
            if self.size.actors != 1:
                raise ValueError(f"the inputs do not say which of {self.size.actors} actors")
            actor = jnp.ones((length.shape[0], 1))
        return stacked(features, self.size), jnp.asarray(actor), emotion
