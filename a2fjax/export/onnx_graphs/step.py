"""The step of the streaming model in ONNX: `a2fjax.streaming.step`.

The recurrence is written as MatMul, not as the operator GRU, which quantisers leave alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from a2fjax import rig
from a2fjax.export.onnx_graphs import layers, live_signals
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder
from a2fjax.export.source import Source
from a2fjax.streaming.step import StreamingStep

NETWORK = "network."
"""Prefix of the names of the network's products; those of signals have none."""

_LAST_COUNT = 2**31 - 1


def build(g: GraphBuilder, source: Source, step: StreamingStep) -> dict[str, str]:
    """Adds one frame to a graph with the inputs of `graphs.step.StepGraph`.

    Args:
      g: the graph.
      source: the model.
      step: at its look-ahead, with a hop of one frame.

    Returns:
      The outputs by name.
    """
    weights = {k: np.asarray(v, np.float32) for k, v in step.weights(source.variables).items()}
    state = _after_reset(g, step)
    conditions = _conditions(g, source, step, weights)

    live = step.model.live
    new, x = live_signals.advance(g, state, "audio", live.frontend)
    began = g.node("GreaterOrEqual", state["frames"], g.constant(step.lookahead, np.int32))
    counted = g.node("Min", state["frames"], g.constant(_LAST_COUNT - 1, np.int32))
    new["frames"] = g.add(counted, g.constant(1, np.int32))
    for i in range(step.model.config.conv_layers):
        kept = "ahead" if i == 0 else f"conv_{i}"
        window = g.expand(x, 1)
        if kept in state:
            window = g.concat(state[kept], window, axis=1)
            moved = g.slice(window, 1, 1, None)
            new[kept] = moved if i == 0 else g.where(_rows(g, began, 3), moved, state[kept])
        y = _dense(g, g.reshape(window, 0, -1), weights, f"conv_{i}")
        norm = [g.constant(weights[f"norm_{i}.{k}"]) for k in ("scale", "bias")]
        y = g.node("LayerNormalization", y, *norm, axis=-1, epsilon=layers.LAYER_NORM_EPSILON)
        x = layers.gelu(g, str(y))
    x = _film(g, x, conditions["film"])
    hidden = _gru(g, x, state["gru"], weights)
    new["gru"] = g.where(_rows(g, began, 2), hidden, state["gru"])
    y = _film(g, _dense(g, hidden, weights, "head"), conditions["head_film"])
    y = g.mul(y, g.constant(weights["motion_std"]))
    motion = g.add(y, g.constant(weights["motion_mean"]))
    motion = g.node("Min", g.node("Max", motion, g.constant(rig.MIN)), g.constant(rig.MAX))
    moves = g.node("And", began, "active")
    motion = g.where(_rows(g, moves, 2), motion, g.constant(0.0))
    out = {"motion": g.expand(motion, 1)}
    for name, entry in step.entries.items():
        rows = _rows(g, "active", 1 + len(entry.shape))
        out[f"out.{name}"] = g.where(rows, new[name], state[name])
    return out


def _after_reset(g: GraphBuilder, step: StreamingStep) -> dict[str, str]:
    out = {}
    for name, entry in step.entries.items():
        zero = g.constant(0, np.dtype(entry.dtype))
        out[name] = g.where(_rows(g, "reset", 1 + len(entry.shape)), zero, f"in.{name}")
    return out


def _conditions(
    g: GraphBuilder, source: Source, step: StreamingStep, weights: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """Returns scale and shift [B, 2 C] of each FiLM.

    The mean identity, the look-ahead and the map of emotions are constants, so they are in biases.
    """
    kernel = weights["emotion.kernel"]
    if source.emotion_map is not None:
        kernel = source.emotion_map @ kernel
    emotion = g.node("MatMul", "emotion", g.constant(kernel))
    embedded = layers.gelu(g, g.add(emotion, g.constant(weights["emotion.bias"])))
    width, known = step.identity_width, step.model.config.lookahead_frames
    mean = source.mean_identity if width else np.zeros(0, np.float32)
    out = {}
    for name in ("film", "head_film"):
        who, how, ahead = np.split(weights[f"{name}.kernel"], [width, -len(known)])
        bias = mean @ who + ahead[known.index(step.lookahead)]
        total = g.add(g.node("MatMul", embedded, g.constant(how)), g.constant(bias))
        if width:
            total = g.add(total, g.node("MatMul", "identity", g.constant(who)))
        out[name] = total
    return out


def _film(g: GraphBuilder, x: str, total: str) -> str:
    scale, shift = g.node("Split", total, outputs=2, axis=-1, num_outputs=2)
    return g.add(g.mul(x, g.add(scale, g.constant(1.0))), shift)


def _gru(g: GraphBuilder, x: str, h: str, weights: Mapping[str, np.ndarray]) -> str:
    """One step of `a2fjax.models.gru.GRU`."""
    inputs = _product(g, x, weights, "gru.i")
    # Reset and update gates have one bias, the candidate one on each side of the reset.
    inputs = g.add(inputs, g.constant(weights["gru.i_bias"]))
    recurrent = _product(g, h, weights, "gru.h")
    x_r, x_z, x_n = g.node("Split", inputs, outputs=3, axis=-1, num_outputs=3)
    h_r, h_z, h_n = g.node("Split", recurrent, outputs=3, axis=-1, num_outputs=3)
    r, z = (g.node("Sigmoid", g.add(a, b)) for a, b in ((x_r, h_r), (x_z, h_z)))
    candidate = g.mul(r, g.add(h_n, g.constant(weights["gru.hn_bias"])))
    n = g.node("Tanh", g.add(x_n, candidate))
    return g.add(n, g.mul(z, g.sub(h, n)))


def _dense(g: GraphBuilder, x: str, weights: Mapping[str, np.ndarray], name: str) -> str:
    y = _product(g, x, weights, f"{name}.kernel")
    return g.add(y, g.constant(weights[f"{name}.bias"]))


def _product(g: GraphBuilder, x: str, weights: Mapping[str, np.ndarray], name: str) -> str:
    """Returns x times a kernel; the node has the kernel's name, for `int8`."""
    return str(g.node("MatMul", x, g.constant(weights[name]), name=NETWORK + name))


def _rows(g: GraphBuilder, rows: str, rank: int) -> str:
    """Returns a mask [B] with the given number of axes."""
    if rank == 1:
        return rows
    return str(g.node("Unsqueeze", rows, g.ints(*range(1, rank))))
