"""The regression model in ONNX: waveform and conditions in, curves out."""

from __future__ import annotations

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP
from a2fjax.configuration import RegressionConfig
from a2fjax.export.graph import Tensor
from a2fjax.export.onnx_graphs import layers, level, mel, pitch
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder
from a2fjax.export.source import Source

_SIGNALS = {"mel": mel.features, "pitch": pitch.features}


def build(
    g: GraphBuilder,
    source: Source,
    inputs: tuple[Tensor, ...],
    silence: np.ndarray,
    half: bool = False,
) -> str:
    """Adds the model to a graph with the inputs of `graphs.model.ModelGraph`.

    Args:
      g: the graph.
      source: the model.
      inputs: of the graph.
      silence: [F] signals of a silent frame.
      half: compute the network in float16; signals, statistics and the output stay float32.

    Returns:
      The motion [B, T, 72].
    """
    config, params, constants = source.config.model, source.variables["params"], source.constants
    assert isinstance(config, RegressionConfig)
    backbone = params["backbone"]
    audio = level.normalise(g, "audio", "samples", "speech_level")
    frontend = source.model.audio_features.frontend
    parts = [_SIGNALS[name](g, audio, frontend) for name in frontend.signals]
    x = parts[0] if len(parts) == 1 else g.concat(*parts, axis=2)

    conditions = []
    if any(tensor.name == "identity" for tensor in inputs):
        identity = g.add("identity", g.constant(source.mean_identity))
        conditions.append(g.expand(identity, 1))
    emotion = "emotion"
    if source.emotion_map is not None:
        emotion = str(g.node("MatMul", emotion, g.constant(source.emotion_map)))
    conditions.append(layers.gelu(g, layers.dense(g, emotion, backbone["emotion"]["hidden"])))

    samples = g.cast("samples", "int64")
    hops = g.add(samples, g.constant(HOP - 1, np.int64))
    length = g.div(hops, g.constant(HOP, np.int64))
    inside = g.node("Less", g.count(x, 1), g.expand(length, 1))
    inside = g.expand(g.cast(inside, "float32"), 2)
    x = g.mul(g.sub(x, g.constant(silence)), inside)
    x = g.pad(x, (0, config.past_frames, 0), (0, config.future_frames, 0))
    x = g.add(x, g.constant(silence))
    if half:
        x, *conditions = (g.cast(value, "float16") for value in (x, *conditions))
        g.real = "float16"
    for i in range(config.conv_layers):
        x = layers.conv_norm_gelu(g, x, backbone[f"conv_{i}"], backbone[f"norm_{i}"])
    x = layers.film(g, x, conditions, backbone["film"])
    gru = backbone["gru"]
    directions = [gru[n] for n in ("forward", "backward")] if "forward" in gru else [gru]
    x = layers.gru(g, g.transpose(x, 1, 0, 2), directions, g.cast(length, "int32"))
    x = g.transpose(layers.dense(g, x, params["head"]), 1, 0, 2)
    x = layers.film(g, x, conditions, params["head_film"])
    if half:
        x, g.real = g.cast(x, "float32"), "float32"
    x = g.add(g.mul(x, g.constant(constants["motion_std"])), g.constant(constants["motion_mean"]))
    return str(g.node("Min", g.node("Max", x, g.constant(rig.MIN)), g.constant(rig.MAX)))
