"""`conv_w2v_autocorr` as a model with a speech encoder as input and a rig head as output."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jax import Array

from a2fjax.batch import Batch
from a2fjax.configuration import AudioConfig, ConvW2vAutocorrConfig
from a2fjax.errors import InputError
from a2fjax.models.nvidia.conv_w2v_autocorr.network import Size, implicit_emotions
from a2fjax.models.nvidia.conv_w2v_autocorr.on_features import ConvW2vAutocorrOnFeatures
from a2fjax.models.nvidia.model import NvidiaModel, network_inputs
from a2fjax.models.params import Params
from a2fjax.models.pretrained import Encoders
from a2fjax.models.rngs import named_keys


class ConvW2vAutocorr(NvidiaModel):
    """`conv_w2v_autocorr` ("v2.3"); see `a2fjax.models.base.Model` and `NvidiaModel`.

    It mixes the outputs of the encoder's layers (`audio.encoder.layers`, with `audio.encoder.mix`;
    NVIDIA: 1 or 4 of wav2vec 2.0 base). The learned emotions of training frames form a separate
    collection, "implicit".

    Attributes:
      on_features: the network on features.
    """

    def __init__(
        self,
        config: ConvW2vAutocorrConfig,
        audio: AudioConfig,
        *,
        precision: str = "float32",
        constants: Mapping[str, np.ndarray] | None = None,
        encoders: Encoders | None = None,
    ) -> None:
        """Creates the model; arguments as in `NvidiaModel`.

        Raises:
          InputError: contradictory settings, or an unreadable file.
        """
        super().__init__(config, audio, precision=precision, constants=constants, encoders=encoders)
        self.config = config
        layers = self.encoder.num_states
        if audio.encoder.mix:
            # NVIDIA mixes the outputs of layers; the first hidden state is the input of the first
            # layer.
            layers -= 1
        if layers < 1:
            raise InputError(
                f"audio.encoder.layers={audio.encoder.layers}: conv_w2v_autocorr mixes the outputs "
                "of layers; expected at least 1"
            )
        size = Size(
            self.layout,
            encoder_layers=layers,
            encoder_width=self.encoder.width,
            width=config.width,
            lag_widths=config.lag_widths,
        )
        self.on_features = ConvW2vAutocorrOnFeatures(size, {}, precision)

    def init(self, key: Array, batch: Batch) -> Params:
        """Initialises the collections "params", "constants" and, if learned, "implicit"."""
        keys = named_keys(key, ("params", "implicit"))
        items, frames = batch.emotion.shape[:2]
        size = self.on_features.size
        features = jnp.zeros((items, frames, size.encoder_layers, size.encoder_width))
        inputs = network_inputs(batch, features=features)
        variables = self.on_features.init(keys["params"], inputs)
        variables["constants"] = self.device_constants()
        if self.config.implicit_emotion:
            rows = int(np.asarray(self.constants["clip_offset"])[-1])
            table = implicit_emotions(keys["implicit"], rows, size.implicit)
            variables["implicit"] = {"table": table}
        return variables

    def apply(
        self, variables: Params, batch: Batch, *, key: Array | None = None, train: bool = False
    ) -> dict[str, Array]:
        """Returns "motion" [B, T, 72], "frames" [B, T, D] of the head and, if learned, "implicit".

        The head's values are normalised; those of the rig are in standard deviations about the
        mean.

        Raises:
          ValueError: training without a key.
        """
        rngs = self.streams(key, train)
        features = self.encoder_features(variables, batch, rngs.get("encoders"))
        features = features[:, :, -self.on_features.size.encoder_layers :]
        inputs = network_inputs(batch, features=features)
        if self.config.implicit_emotion:
            inputs["implicit_emotion"] = self._implicit(variables, batch, train)
        out = self.on_features.run(variables["params"], inputs, rngs=rngs if train else None)
        frames = out["frames"]
        motion = self.motion(variables["constants"], frames, train=train)
        outputs = {"motion": motion, "frames": frames}
        if self.config.implicit_emotion:
            outputs["implicit"] = inputs["implicit_emotion"]
        return outputs

    def _implicit(self, variables: Params, batch: Batch, train: bool) -> Array:
        """Returns the learned emotion of training frames, or otherwise their mean [B, T, E]."""
        table = variables["implicit"]["table"]
        items, frames = batch.emotion.shape[:2]
        if not train:
            return jnp.broadcast_to(table.mean(axis=0), (items, frames, table.shape[1]))
        offset = variables["constants"]["clip_offset"]
        first, end = offset[batch.clip], offset[batch.clip + 1]
        row = (first + batch.start)[:, None] + jnp.arange(frames)
        return table[jnp.clip(row, first[:, None], end[:, None] - 1)]
