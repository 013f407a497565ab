"""NVIDIA's networks on batches of this package, behind `init` and `apply`.

They read, beside what every batch has (`a2fjax.models.base.Batch`), `features`: what the speech
encoder makes of the audio, cached or live, at 50 frames a second, frame t centred on sample 320 t.

Assumptions [?], because their data is not ours: 50 frames a second rather than 30 or 60; the
network hears features of an encoder that saw the whole clip; audio at `level.TARGET` counts as
normalised unless a batch says what its track's peak is; without a table of learned emotions these
are zero, their mean at the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.models.nvidia.conv_w2v_autocorr import network as regression
from a2fjax.models.nvidia.diffusion_rnn import network as diffusion
from a2fjax.models.nvidia.frame_layout import EMOTION_TO_NVIDIA, RIG
from a2fjax.models.params import Params

Inputs = Mapping[str, Array]
"""Arrays by the names that each network's class lists."""

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def explicit_emotion(emotion: Array, width: int) -> Array:
    """Returns emotions as a network of that many explicit ones hears them.

    Args:
      emotion: [..., 5] of `rig.EMOTIONS`, or [..., width].
      width: explicit emotions of the network.

    Raises:
      ValueError: neither fits.
    """
    if emotion.shape[-1] == width:
        return emotion
    if emotion.shape[-1] == rig.NUM_EMOTIONS and width == len(rig.NVIDIA_EMOTIONS):
        return emotion @ EMOTION_TO_NVIDIA
    raise ValueError(f"emotions have {emotion.shape[-1]} numbers, the network hears {width}")


class ConvW2vAutocorr:
    """`regression.Network` as a `a2fjax.models.base.Model`.

    A batch brings `features` [B, T, encoder_layers, encoder_width] (or [B, T, encoder_width] of
    one layer), and may bring `norm_factor` [B] (`regression.norm_factor` of its track) and
    `implicit_emotion` [B, T, implicit].
    """

    def __init__(
        self,
        size: regression.Size | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        precision: str = "float32",
    ) -> None:
        """Makes the model.

        Args:
          size: widths; None for NVIDIA's with the rig's 72 channels as output.
          constants: "motion_mean" and "motion_std" [D]: the network's output is in units of the
            deviation about the mean. None for 0 and 1, which is NVIDIA's.
          precision: of activations, "float32" or "bfloat16".
        """
        self.size = size or regression.Size(RIG)
        width = self.size.layout.width
        default = {
            "motion_mean": np.zeros(width, np.float32),
            "motion_std": np.ones(width, np.float32),
        }
        self.constants = dict(default if constants is None else constants)
        self.network = regression.Network(self.size, _DTYPES[precision])

    @property
    def lookahead_frames(self) -> int | None:
        """None: the encoder hears the whole clip."""
        return None

    @property
    def lookahead_seconds(self) -> float | None:
        """None likewise."""
        return None

    def init(self, key: Array, batch: Inputs) -> Params:
        """Returns parameters, with the constants under "constants"; reads only shapes."""
        constants = {name: jnp.asarray(value) for name, value in self.constants.items()}
        variables: Any = self.network.init(
            key, *self._inputs(batch), method=regression.Network.track
        )
        return {**variables["params"], "constants": constants}

    def apply(
        self, params: Params, batch: Inputs, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns {"motion": [B, T, D]}.

        With phonemes in `size` and `train=True` there are their logits [B, T, 25, count] of each
        language as "phonemes_0" and so on. Motion of the rig is clipped to its ranges unless
        training.

        Raises:
          ValueError: training without a key.
        """
        out = self.run(params, batch, key=key, train=train)
        constants = params["constants"]
        motion = constants["motion_mean"] + constants["motion_std"] * out["frames"]
        if self.size.layout == RIG and not train:
            motion = jnp.clip(motion, rig.MIN, rig.MAX)
        spoken = out["phonemes"] if train else ()
        return {"motion": motion} | {f"phonemes_{i}": x for i, x in enumerate(spoken)}

    def run(
        self, params: Params, batch: Inputs, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Any]:
        """Returns what the network gives in its own units; see `regression.Network.track`.

        Raises:
          ValueError: training without a key.
        """
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        weights = {name: value for name, value in params.items() if name != "constants"}
        out: Any = self.network.apply(
            {"params": weights},
            *self._inputs(batch),
            key if train else None,
            method=regression.Network.track,
        )
        return out

    def _inputs(self, batch: Inputs) -> tuple[Array, Array, Array, Array]:
        audio, length = jnp.asarray(batch["audio"]), jnp.asarray(batch["length"])
        heard = jnp.arange(audio.shape[1]) < HOP * length[:, None]
        lags = regression.track_autocorrelation(
            jnp.where(heard, audio, 0.0), batch.get("norm_factor")
        )
        features = jnp.asarray(batch["features"])
        if features.ndim == 3:
            features = features[:, :, None]
        # Beyond its ends a clip goes on as it is there: an encoder's answer to silence is not at
        # hand, and zero is none that it ever gives.
        index = jnp.arange(-regression.REACH, features.shape[1] + regression.REACH)
        index = jnp.clip(index, 0, jnp.maximum(length[:, None] - 1, 0))
        features = jnp.take_along_axis(features, index[..., None, None], axis=1)
        emotion = explicit_emotion(jnp.asarray(batch["emotion"]), self.size.explicit)
        implicit = batch.get("implicit_emotion")
        if implicit is None:
            implicit = jnp.zeros((*emotion.shape[:2], self.size.implicit))
        return lags, features, jnp.asarray(implicit), emotion


class DiffusionRnn:
    """`diffusion.Network` behind `init` and `apply`: what a sampler calls.

    A batch brings `features` [B, F, encoder_width], of which `feature_length` [B] are valid
    (`length` where it is missing: features of this package have a frame of motion each). `actor`
    [B, actors] is one-hot, or a mixture that sums to 1; it may be missing with one actor.
    """

    def __init__(
        self,
        size: diffusion.Size | None = None,
        constants: Mapping[str, np.ndarray] | None = None,
        precision: str = "float32",
    ) -> None:
        """Makes the model.

        Args:
          size: widths; None for NVIDIA's with one actor and the rig's 72 channels.
          constants: "mean_geometry" [actors, D] in the units of the motion, which is normalised;
            None for zero.
          precision: of activations, "float32" or "bfloat16".
        """
        self.size = size or diffusion.Size(RIG)
        shape = (self.size.actors, self.size.layout.width)
        self.constants = dict(
            {"mean_geometry": np.zeros(shape, np.float32)} if constants is None else constants
        )
        self.network = diffusion.Network(self.size, _DTYPES[precision])

    def init(self, key: Array, batch: Inputs) -> Params:
        """Returns parameters, with the constants under "constants"; reads only shapes."""
        constants = {name: jnp.asarray(value) for name, value in self.constants.items()}
        items, frames = batch["emotion"].shape[:2]
        noisy = jnp.zeros((items, frames, self.size.layout.width))
        step = jnp.zeros(items, jnp.int32)
        conditions = self._conditions(batch, frames)
        mean = constants["mean_geometry"]
        variables: Any = self.network.init(key, noisy, step, *conditions, mean)
        return {**variables["params"], "constants": constants}

    def apply(
        self,
        params: Params,
        noisy: Array,
        step: Array,
        batch: Inputs,
        *,
        state: Array | None = None,
        key: Array | None = None,
        train: bool = False,
    ) -> tuple[Array, Array]:
        """Predicts the clean motion of noisy motion.

        Args:
          params: of `init`.
          noisy: [B, T, D] normalised motion with noise.
          step: [B] int, the step of each item's noise.
          batch: conditions; `emotion` is [B, T, 5] or [B, T, explicit].
          state: [recurrent_layers, B, recurrent_width] of the frames before, at the same step.
          key: of the dropout.
          train: whether to drop.

        Returns:
          The prediction [B, T, D], normalised, and the state after frame `length - 1`.

        Raises:
          ValueError: training without a key, or several actors and no `actor` in the batch.
        """
        if train and key is None:
            raise ValueError("apply(train=True) needs a key")
        weights = {name: value for name, value in params.items() if name != "constants"}
        out: Any = self.network.apply(
            {"params": weights},
            noisy,
            step,
            *self._conditions(batch, noisy.shape[1]),
            params["constants"]["mean_geometry"],
            jnp.asarray(batch["length"]),
            state,
            key if train else None,
        )
        prediction, state = out
        return prediction, state

    def _conditions(self, batch: Inputs, frames: int) -> tuple[Array, Array, Array]:
        length = jnp.asarray(batch["length"])
        stack = self.size.stack
        features = diffusion.resample(
            jnp.asarray(batch["features"]),
            jnp.asarray(batch.get("feature_length", length)),
            stack * length,
            stack * frames,
        )
        emotion = explicit_emotion(jnp.asarray(batch["emotion"]), self.size.explicit)
        actor = batch.get("actor")
        if actor is None:
            if self.size.actors != 1:
                raise ValueError(f"the batch does not say which of {self.size.actors} actors")
            actor = jnp.ones((length.shape[0], 1))
        return diffusion.stacked(features, self.size), jnp.asarray(actor), emotion
