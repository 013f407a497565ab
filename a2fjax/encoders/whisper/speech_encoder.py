"""Whisper's encoder as a `SpeechEncoder`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

import jax.numpy as jnp
from jax import Array

from a2fjax.audio import HOP
from a2fjax.configuration import EncoderConfig
from a2fjax.encoders.hub_cache import find_file
from a2fjax.encoders.param_paths import Params
from a2fjax.encoders.speech_encoder import SpeechEncoder, resolve_layers
from a2fjax.encoders.whisper.encoder import WhisperEncoder, load
from a2fjax.errors import InputError

_DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class WhisperSpeechEncoder(SpeechEncoder):
    """Whisper's encoder; see `SpeechEncoder`.

    Attributes:
      network: architecture.
      layers: transformer layers that run.
      all_states: returns all `layers + 1` hidden states rather than the last one.
      precision: of activations, "float32" or "bfloat16".
      remat: whether gradients recompute the inside of layers.
    """

    network: WhisperEncoder
    layers: int
    all_states: bool = False
    precision: str = "float32"
    remat: bool = False

    kind = "whisper"

    @classmethod
    def load(cls, path: str, config: EncoderConfig) -> tuple[Self, Params]:
        """See `SpeechEncoder.load`; `path`: as `whisper.load`, or a model in the hub's cache."""
        network, params = load(_weights_path(path))
        layers = resolve_layers(config.layers, network.layers, f"whisper:{path}")
        encoder = cls._make(network, network.layers if layers is None else layers, config)
        return encoder, encoder._used(params)

    @classmethod
    def from_description(cls, description: dict[str, Any], config: EncoderConfig) -> Self:
        """See `SpeechEncoder.from_description`."""
        return cls._make(WhisperEncoder(**description["network"]), description["layers"], config)

    @classmethod
    def _make(cls, network: WhisperEncoder, layers: int, config: EncoderConfig) -> Self:
        return cls(network, layers, config.mix, config.precision, config.remat)

    @property
    def width(self) -> int:
        """See `SpeechEncoder.width`."""
        return self.network.width

    @property
    def num_states(self) -> int:
        """See `SpeechEncoder.num_states`."""
        return self.layers + 1 if self.all_states else 1

    @property
    def num_layers(self) -> int:
        """See `SpeechEncoder.num_layers`."""
        return self.layers

    @property
    def max_frames(self) -> int | None:
        """See `SpeechEncoder.max_frames`: 1500, which is 30 s."""
        return self.network.positions

    def init(self, key: Array) -> Params:
        """See `SpeechEncoder.init`."""
        return self._used(self.network.init(key))

    def _used(self, params: Params) -> Params:
        """Returns the parameters without those of layers that do not run."""
        if self.layers == self.network.layers:
            return params
        unused = {f"layers_{i}" for i in range(self.layers, self.network.layers)} | {"final_norm"}
        return {name: value for name, value in params.items() if name not in unused}

    def encode(
        self, params: Params, audio: Array, lengths: Array, *, key: Array | None = None
    ) -> Array:
        """See `SpeechEncoder.encode`; Whisper has neither dropout nor masking."""
        del key
        states = self.network.apply(
            params,
            audio,
            length=HOP * lengths,
            layers=self.layers,
            all_layers=self.all_states,
            dtype=_DTYPES[self.precision],
            remat=self.remat,
        )
        return jnp.moveaxis(states, 0, 2) if self.all_states else states[:, :, None]

    def frozen_patterns(self, train_from: int | None, prefix: str = "") -> tuple[str, ...]:
        """See `SpeechEncoder.frozen_patterns`; convolutions and positions stay frozen.

        -1 is therefore the same as 0.
        """
        self.check_train_from(train_from, range(-1, self.layers) if self.layers else range(0))
        if train_from is None:
            return (f"^{prefix}",)
        patterns = tuple(f"^{prefix}{name}" for name in ("conv1/", "conv2/", "positions$"))
        return patterns + tuple(f"^{prefix}layers_{i}/" for i in range(max(train_from, 0)))

    def describe(self) -> dict[str, Any]:
        """See `SpeechEncoder.describe`."""
        network = dataclasses.asdict(self.network)
        return {"kind": self.kind, "layers": self.layers, "network": network}

    def identity(self) -> dict[str, Any]:
        """See `SpeechEncoder.identity`."""
        return {**self.describe(), "precision": self.precision}


def _weights_path(path: str) -> str | Path:
    """Returns a path of weights as given, or the folder of a model in the hub's cache.

    Raises:
      InputError: neither exists.
    """
    if Path(path).exists():
        return path
    for name in ("model.safetensors", "model.safetensors.index.json"):
        cached = find_file(path, name)
        if cached is not None:
            return cached.parent
    raise InputError(
        f"{path}: no such file or folder, and no model in the hub's cache; fetch it where there is "
        f"a network with `hf download {path}`"
    )
