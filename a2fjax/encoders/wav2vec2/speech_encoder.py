"""wav2vec 2.0 and HuBERT as a `SpeechEncoder`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP
from a2fjax.configuration import EncoderConfig
from a2fjax.encoders.param_paths import Params
from a2fjax.encoders.speech_encoder import SpeechEncoder, resolve_layers
from a2fjax.encoders.wav2vec2 import hub
from a2fjax.encoders.wav2vec2.config import Wav2Vec2Config
from a2fjax.encoders.wav2vec2.encoder import Wav2Vec2Encoder, frozen_patterns
from a2fjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Wav2Vec2SpeechEncoder(SpeechEncoder):
    """wav2vec 2.0 or HuBERT; see `SpeechEncoder`.

    Attributes:
      network: architecture, layers that run, precision.
      all_states: returns all `num_layers + 1` hidden states rather than the last one.
    """

    network: Wav2Vec2Encoder
    all_states: bool = False

    @classmethod
    def load(cls, path: str, config: EncoderConfig) -> tuple[Self, Params]:
        """See `SpeechEncoder.load`; `path` is a folder or the name of a model in the hub's cache.

        Raises:
          InputError: as `hub.load`, or frames that are not 320 samples apart.
        """
        if Path(path).is_file():
            raise InputError(
                f"{path}: is a file; expected a folder with config.json and model.safetensors "
                "(a file can be read as whisper:PATH)"
            )
        architecture = hub.read_config(path)
        name = f"{architecture.model_type}:{path}"
        layers = resolve_layers(config.layers, architecture.num_hidden_layers, name)
        if architecture.hop != HOP:
            raise InputError(
                f"feature {name!r}: a frame every {architecture.hop} samples, expected {HOP} "
                f"(conv_stride {architecture.conv_stride})"
            )
        _, params, _ = hub.load(path, layers=layers)
        return cls._make(architecture, layers, config), params

    @classmethod
    def from_description(cls, description: dict[str, Any], config: EncoderConfig) -> Self:
        """See `SpeechEncoder.from_description`."""
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in description["network"].items()
        }
        return cls._make(Wav2Vec2Config(**values), description["layers"], config)

    @classmethod
    def _make(cls, architecture: Wav2Vec2Config, layers: int | None, config: EncoderConfig) -> Self:
        network = Wav2Vec2Encoder(
            architecture, layers=layers, precision=config.precision, remat=config.remat
        )
        return cls(network, config.mix)

    @property
    def kind(self) -> str:
        """See `SpeechEncoder.kind`: wav2vec2 or hubert."""
        return self.network.config.model_type

    @property
    def width(self) -> int:
        """See `SpeechEncoder.width`."""
        return self.network.width

    @property
    def num_states(self) -> int:
        """See `SpeechEncoder.num_states`."""
        return self.num_layers + 1 if self.all_states else 1

    @property
    def num_layers(self) -> int:
        """See `SpeechEncoder.num_layers`."""
        layers = self.network.layers
        return self.network.config.num_hidden_layers if layers is None else layers

    def init(self, key: Array) -> Params:
        """See `SpeechEncoder.init`."""
        return self.network.init(key)

    def encode(
        self, params: Params, audio: Array, lengths: Array, *, key: Array | None = None
    ) -> Array:
        """See `SpeechEncoder.encode`; dropout and masking are those of config.json."""
        output = self.network.motion_features(
            params,
            audio,
            lengths=HOP * lengths,
            layers=self.num_layers,
            all_layers=self.all_states,
            key=key,
            train=key is not None,
        )
        if output.hidden_states is None:
            return output.features[:, :, None]
        return jnp.moveaxis(output.hidden_states, 0, 2)

    def frozen_patterns(self, train_from: int | None, prefix: str = "") -> tuple[str, ...]:
        """See `SpeechEncoder.frozen_patterns`; the convolutions on the waveform stay frozen."""
        self.check_train_from(train_from, range(-1, self.num_layers))
        config = self.network.config
        patterns = frozen_patterns(config, train_from, prefix)
        if self.num_layers < config.num_hidden_layers and config.do_stable_layer_norm:
            # The final norm comes after the last layer, which does not run.
            patterns += (f"^{prefix}encoder/layer_norm/",)
        return patterns

    def describe(self) -> dict[str, Any]:
        """See `SpeechEncoder.describe`."""
        network = dataclasses.asdict(self.network.config)
        return {"kind": self.kind, "layers": self.num_layers, "network": network}

    def identity(self) -> dict[str, Any]:
        """See `SpeechEncoder.identity`."""
        return {**self.describe(), "precision": self.network.precision}
