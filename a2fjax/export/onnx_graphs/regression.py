"""The regression model in ONNX: waveform and conditions in, curves out."""

from __future__ import annotations

from a2fjax import rig
from a2fjax.export.onnx_graphs import backbone, layers
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder
from a2fjax.export.source import Source


def build(g: GraphBuilder, source: Source, half: bool = False) -> str:
    """Adds the model to a graph with the inputs of `graphs.model.ModelGraph`.

    Args:
      g: the graph.
      source: the model.
      half: compute the network in float16; signals, statistics and the output stay float32.

    Returns:
      The motion [B, T, 72].
    """
    params, constants = source.variables["params"], source.constants
    conditions = backbone.conditions(g, source)
    if half:
        conditions = [g.cast(value, "float16") for value in conditions]
    x, _ = backbone.build(g, source, conditions, half=half)
    x = g.transpose(layers.dense(g, x, params["head"]), 1, 0, 2)
    x = layers.film(g, x, conditions, params["head_film"])
    if half:
        x, g.real = g.cast(x, "float32"), "float32"
    x = g.add(g.mul(x, g.constant(constants["motion_std"])), g.constant(constants["motion_mean"]))
    return str(g.node("Min", g.node("Max", x, g.constant(rig.MIN)), g.constant(rig.MAX)))
