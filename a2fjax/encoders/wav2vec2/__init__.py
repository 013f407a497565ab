"""wav2vec 2.0 and HuBERT in JAX: checkpoints of the hub as features of motion frames."""

from a2fjax.encoders.wav2vec2.config import BASE, LARGE, Layout
from a2fjax.encoders.wav2vec2.encoder import (
    Encoded,
    Encoder,
    frozen,
    init_layer_mix,
    layer_mix,
    normalise,
    to_motion_frames,
)
from a2fjax.encoders.wav2vec2.hub import find, load, read_layout, save

__all__ = [
    "BASE",
    "LARGE",
    "Encoded",
    "Encoder",
    "Layout",
    "find",
    "frozen",
    "init_layer_mix",
    "layer_mix",
    "load",
    "normalise",
    "read_layout",
    "save",
    "to_motion_frames",
]
