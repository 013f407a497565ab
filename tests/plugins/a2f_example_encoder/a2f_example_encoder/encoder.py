"""Speech encoder "filters:PATH": log magnitudes of 40 ms filters, kept as "kernel" [640, D]."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from a2fjax.encoders.speech_encoder import SpeechEncoder
from a2fjax.errors import InputError

HOP, TAPS = 320, 640


@dataclasses.dataclass(frozen=True)
class FilterEncoder(SpeechEncoder):
    """One strided convolution; see `SpeechEncoder` for what each method must return."""

    filters: int

    kind = "filters"

    @property
    def width(self):
        return self.filters

    @classmethod
    def load(cls, path, config):
        try:
            kernel = np.load(path)["kernel"].astype(np.float32)
        except (OSError, KeyError, ValueError) as error:
            raise InputError(f"{path}: no filters ({error})") from None
        return cls(kernel.shape[1]), {"kernel": kernel}

    @classmethod
    def from_description(cls, description, config):
        return cls(description["filters"])

    def describe(self):
        return {"kind": self.kind, "filters": self.filters}

    def init(self, key):
        return {"kernel": jax.random.normal(key, (TAPS, self.filters))}

    def encode(self, params, audio, lengths, *, key=None):
        padded = jnp.pad(audio, ((0, 0), (HOP, 0))).reshape(audio.shape[0], -1, HOP)
        windows = jnp.concatenate([padded[:, :-1], padded[:, 1:]], axis=-1)  # Centred on 320 t.
        return jnp.log(1e-3 + jnp.abs(windows @ params["kernel"]))[:, :, None]
