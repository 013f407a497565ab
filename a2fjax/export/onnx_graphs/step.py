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
from a2fjax.streaming.step import StateEntry, StreamingStep

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
    masks = _Masks(g)
    state = {
        name: g.where(masks("reset", entry), g.constant(0, np.dtype(entry.dtype)), f"in.{name}")
        for name, entry in step.entries.items()
    }
    scale, shift, head_scale, head_shift = _conditions(g, source, step, weights)

    live = step.model.live
    new, x = live_signals.advance(g, state, "audio", live.frontend)
    began = g.node("GreaterOrEqual", state["frames"], g.constant(step.lookahead, np.int32))
    moves = g.node("And", began, "active")
    counted = g.node("Min", state["frames"], g.constant(_LAST_COUNT - 1, np.int32))
    new["frames"] = g.add(counted, g.constant(1, np.int32))
    for i in range(step.model.config.conv_layers):
        kept = "ahead" if i == 0 else f"conv_{i}"
        if kept in state:
            frames, width = step.entries[kept].shape
            x = g.concat(g.reshape(state[kept], 0, frames * width), x, axis=1)
            new[kept] = g.reshape(g.slice(x, 1, width, None), 0, frames, width)
        y = _dense(g, x, weights, f"conv_{i}")
        norm = [g.constant(weights[f"norm_{i}.{k}"]) for k in ("scale", "bias")]
        y = g.node("LayerNormalization", y, *norm, axis=-1, epsilon=layers.LAYER_NORM_EPSILON)
        x = layers.gelu(g, str(y))
    x = g.add(g.mul(x, scale), shift)
    new["gru"] = _gru(g, x, state["gru"], weights)
    motion = g.add(g.mul(_dense(g, new["gru"], weights, "head"), head_scale), head_shift)
    motion = g.node("Min", g.node("Max", motion, g.constant(rig.MIN)), g.constant(rig.MAX))
    motion = g.where(g.expand(moves, 1), motion, g.constant(0.0))
    out = {"motion": g.expand(motion, 1)}
    for name, entry in step.entries.items():
        # Before a stream's first motion there is nothing for the layers behind the look-ahead.
        rows = moves if name == "gru" or name.startswith("conv_") else "active"
        out[f"out.{name}"] = g.where(masks(rows, entry), new[name], state[name])
    return out


class _Masks:
    """Masks [B] with the axes of an entry of the state, each made once."""

    def __init__(self, g: GraphBuilder) -> None:
        self._g, self._made = g, dict[tuple[str, int], str]()

    def __call__(self, rows: str, entry: StateEntry) -> str:
        rank = len(entry.shape)
        if rank == 0:
            return rows
        if (rows, rank) not in self._made:
            axes = self._g.ints(*range(1, 1 + rank))
            self._made[rows, rank] = str(self._g.node("Unsqueeze", rows, axes))
        return self._made[rows, rank]


def _conditions(
    g: GraphBuilder, source: Source, step: StreamingStep, weights: Mapping[str, np.ndarray]
) -> list[str]:
    """Returns scale and shift [B, C] of the network, then those of the motion in rig units.

    One product for all. The mean identity, the look-ahead and the statistics of the motion are
    constants, so they are in it.
    """
    kernel = weights["emotion.kernel"]
    if source.emotion_map is not None:
        kernel = source.emotion_map @ kernel
    emotion = g.node("MatMul", "emotion", g.constant(kernel))
    given = layers.gelu(g, g.add(emotion, g.constant(weights["emotion.bias"])))
    width, known = step.identity_width, step.model.config.lookahead_frames
    mean = source.mean_identity if width else np.zeros(0, np.float32)
    kernels, biases = [], []
    for name in ("film", "head_film"):
        who, how, ahead = np.split(
            weights[f"{name}.kernel"].astype(np.float64), [width, -len(known)]
        )
        bias = mean @ who + ahead[known.index(step.lookahead)]
        bias[: len(bias) // 2] += 1.0
        kernel = np.concatenate([who, how])
        if name == "head_film":
            scale = np.tile(weights["motion_std"].astype(np.float64), 2)
            kernel, bias = kernel * scale, bias * scale
            bias[len(bias) // 2 :] += weights["motion_mean"]
        kernels.append(kernel)
        biases.append(bias)
    if width:
        given = g.concat("identity", given, axis=1)
    total = g.node("MatMul", given, g.constant(np.concatenate(kernels, axis=1)))
    total = g.add(total, g.constant(np.concatenate(biases)))
    sizes = [len(bias) // 2 for bias in biases for _ in range(2)]
    return list(g.node("Split", total, g.ints(*sizes), outputs=4, axis=1))


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
