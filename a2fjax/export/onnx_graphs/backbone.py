"""`models.backbone.Backbone` in ONNX: waveform and conditions to frame vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from a2fjax.audio import HOP
from a2fjax.configuration import BackboneConfig
from a2fjax.export.onnx_graphs import layers, level, mel, pitch
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder
from a2fjax.export.source import Source

_SIGNALS = {"mel": mel.features, "pitch": pitch.features}


def conditions(g: GraphBuilder, source: Source) -> list[str]:
    """Adds the embeddings of the inputs `identity` and `emotion`: [B, 1, E] if used, [B, T, E]."""
    out = []
    if source.has_identity:
        identity = g.add("identity", g.constant(source.mean_identity))
        out.append(g.expand(identity, 1))
    emotion = "emotion"
    if source.emotion_map is not None:
        emotion = str(g.node("MatMul", emotion, g.constant(source.emotion_map)))
    hidden = source.backbone_params["emotion"]["hidden"]
    return [*out, layers.gelu(g, layers.dense(g, emotion, hidden))]


def inside(g: GraphBuilder, like: str, length: str) -> str:
    """Returns [B, T, 1] float32: 1 in frames before `length` [B] int64 of `like` [B, T, ...]."""
    found = g.node("Less", g.count(like, 1), g.expand(length, 1))
    return g.expand(g.cast(str(found), "float32"), 2)


def build(
    g: GraphBuilder, source: Source, embedded: Sequence[str], *, half: bool = False
) -> tuple[str, str]:
    """Adds the backbone to a graph with the inputs of `graphs.model.ModelGraph`.

    Args:
      g: the graph.
      source: the model.
      embedded: from `conditions`; float16 if `half`.
      half: compute the network in float16 from here on (`g.real`); signals stay float32.

    Returns:
      Frame vectors [T, B, W], and the number of frames [B] int64 of each recording.
    """
    config, backbone = source.backbone, source.backbone_params
    assert isinstance(config, BackboneConfig)
    audio = level.normalise(g, "audio", "samples", "speech_level")
    frontend = source.model.audio_features.frontend
    parts = [_SIGNALS[name](g, audio, frontend) for name in frontend.signals]
    x = parts[0] if len(parts) == 1 else g.concat(*parts, axis=2)
    silence = g.constant(np.asarray(source.model.audio_features.silence()))

    samples = g.add(g.cast("samples", "int64"), g.constant(HOP - 1, np.int64))
    length = g.div(samples, g.constant(HOP, np.int64))
    x = g.mul(g.sub(x, silence), inside(g, x, length))
    x = g.add(g.pad(x, (0, config.past_frames, 0), (0, config.future_frames, 0)), silence)
    if half:
        x, g.real = g.cast(x, "float16"), "float16"
    for i in range(config.conv_layers):
        x = layers.conv_norm_gelu(g, x, backbone[f"conv_{i}"], backbone[f"norm_{i}"])
    x = layers.film(g, x, embedded, backbone["film"])
    gru = backbone["gru"]
    directions = [gru[n] for n in ("forward", "backward")] if "forward" in gru else [gru]
    return layers.gru(g, g.transpose(x, 1, 0, 2), directions, g.cast(length, "int32")), length
