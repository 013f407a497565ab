"""`conv_w2v_autocorr` on precomputed features of a speech encoder.

Assumptions [?] made because the data differ from NVIDIA's: 50 frames per second instead of 30 or
60; the features come from an encoder that reads the whole clip; audio at `level.TARGET` counts as
normalised unless the peak of its track is given; missing learned emotions are zero, their initial
mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.models import rngs as rngs_lib
from a2fjax.models.audio_model import DTYPES
from a2fjax.models.nvidia.conv_w2v_autocorr import autocorrelation
from a2fjax.models.nvidia.conv_w2v_autocorr.network import Network, Size
from a2fjax.models.nvidia.emotions import explicit_emotion
from a2fjax.models.nvidia.frame_layout import RIG
from a2fjax.models.params import Params

Inputs = Mapping[str, Array]
"""Arrays by name; see `ConvW2vAutocorrOnFeatures`."""


class ConvW2vAutocorrOnFeatures:
    """Model interface of `Network` (`init` and `apply`), on features at 50 frames per second.

    Inputs are `audio` [B, T * 320], `length` [B], `emotion` [B, T, 5] or [B, T, explicit] and
    `features` [B, T, encoder_layers, encoder_width] (or [B, T, encoder_width] for one layer), with
    frame t centred on sample 320 t. Optional inputs are `norm_factor` [B]
    (`autocorrelation.norm_factor` of the track) and `implicit_emotion` [B, T, implicit].
    """

    def __init__(
        self,
        size: Size | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        precision: str = "float32",
    ) -> None:
        """Creates the model.

        Args:
          size: widths of the network; None for NVIDIA's with the rig's 72 channels as output.
          constants: "motion_mean" and "motion_std" [D]: the network's output is in units of the
            deviation about the mean. None uses 0 and 1, as NVIDIA does.
          precision: precision of activations, "float32" or "bfloat16".
        """
        self.size = size or Size(RIG)
        width = self.size.layout.width
        default = {
            "motion_mean": np.zeros(width, np.float32),
            "motion_std": np.ones(width, np.float32),
        }
        self.constants = dict(default if constants is None else constants)
        self.network = Network(self.size, DTYPES[precision])

    def init(self, key: Array, inputs: Inputs) -> Params:
        """Returns {"params": ..., "constants": ...}; only the input shapes matter."""
        constants = {name: jnp.asarray(value) for name, value in self.constants.items()}
        variables: Any = self.network.init(key, *self._arguments(inputs), method=Network.track)
        return {"params": variables["params"], "constants": constants}

    def apply(
        self, variables: Params, inputs: Inputs, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, D]}.

        With phonemes in `size` and `train=True`, the result also has the logits [B, T, 25, count]
        of each language as "phonemes_0" and so on. Motion of the rig is clipped to its ranges
        unless training.

        Raises:
          ValueError: training without a key.
        """
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        streams = rngs_lib.streams(key) if train and key is not None else None
        out = self.run(variables["params"], inputs, rngs=streams)
        constants = variables["constants"]
        motion = constants["motion_mean"] + constants["motion_std"] * out["frames"]
        if self.size.layout == RIG and not train:
            motion = jnp.clip(motion, rig.MIN, rig.MAX)
        logits = out["phonemes"] if train else ()
        return {"motion": motion} | {f"phonemes_{i}": x for i, x in enumerate(logits)}

    def run(
        self, params: Params, inputs: Inputs, *, rngs: dict[str, Array] | None = None
    ) -> dict[str, Any]:
        """Returns the network's output in normalised units; see `Network.track`.

        Args:
          params: parameters of the network.
          inputs: inputs; see the class.
          rngs: result of `rngs.streams` for training; None otherwise.
        """
        out: Any = self.network.apply(
            {"params": params},
            *self._arguments(inputs),
            train=rngs is not None,
            rngs=rngs or {},
            method=Network.track,
        )
        return out

    def _arguments(self, inputs: Inputs) -> tuple[Array, Array, Array, Array]:
        audio, length = jnp.asarray(inputs["audio"]), jnp.asarray(inputs["length"])
        valid = jnp.arange(audio.shape[1]) < HOP * length[:, None]
        lags = autocorrelation.track_autocorrelation(
            jnp.where(valid, audio, 0.0), inputs.get("norm_factor")
        )
        features = jnp.asarray(inputs["features"])
        if features.ndim == 3:
            features = features[:, :, None]
        # Beyond its ends, a clip repeats its first and last frame: an encoder's features of silence
        # are not available, and they are never zero.
        reach = autocorrelation.REACH
        index = jnp.arange(-reach, features.shape[1] + reach)
        index = jnp.clip(index, 0, jnp.maximum(length[:, None] - 1, 0))
        features = jnp.take_along_axis(features, index[..., None, None], axis=1)
        emotion = explicit_emotion(jnp.asarray(inputs["emotion"]), self.size.explicit)
        implicit = inputs.get("implicit_emotion")
        if implicit is None:
            implicit = jnp.zeros((*emotion.shape[:2], self.size.implicit))
        return lags, features, jnp.asarray(implicit), emotion
