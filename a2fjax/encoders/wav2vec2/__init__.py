"""wav2vec 2.0 and HuBERT in JAX: checkpoints of the hub as features on the motion's frames."""

from a2fjax.encoders.wav2vec2.config import BASE, LARGE, Wav2Vec2Config
from a2fjax.encoders.wav2vec2.encoder import (
    EncoderOutput,
    Wav2Vec2Encoder,
    frozen_patterns,
    normalise,
)
from a2fjax.encoders.wav2vec2.hub import load, read_config, save

__all__ = [
    "BASE",
    "LARGE",
    "EncoderOutput",
    "Wav2Vec2Config",
    "Wav2Vec2Encoder",
    "frozen_patterns",
    "load",
    "normalise",
    "read_config",
    "save",
]
