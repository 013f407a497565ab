"""wav2vec 2.0 and HuBERT in JAX: checkpoints of the hub as features of motion frames."""

from a2fjax.encoders.wav2vec2.config import BASE, LARGE, Wav2Vec2Config
from a2fjax.encoders.wav2vec2.encoder import (
    EncoderOutput,
    Wav2Vec2Encoder,
    frozen_patterns,
    init_layer_mix,
    layer_mix,
    normalise,
    to_motion_frames,
)
from a2fjax.encoders.wav2vec2.hub import find_file, load, read_config, save

__all__ = [
    "BASE",
    "LARGE",
    "EncoderOutput",
    "Wav2Vec2Config",
    "Wav2Vec2Encoder",
    "find_file",
    "frozen_patterns",
    "init_layer_mix",
    "layer_mix",
    "load",
    "normalise",
    "read_config",
    "save",
    "to_motion_frames",
]
