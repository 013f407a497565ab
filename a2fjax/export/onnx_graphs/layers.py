"""Layers of `a2fjax.models` in ONNX; weights come as Flax names and shapes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder

LAYER_NORM_EPSILON = 1e-6
"""Flax's default; that of ONNX and PyTorch is 1e-5."""


def dense(g: GraphBuilder, x: str, weights: Mapping[str, Any]) -> str:
    """Returns x [..., D] times the kernel [D, K], plus the bias if there is one."""
    out = str(g.node("MatMul", x, g.constant(weights["kernel"])))
    return g.add(out, g.constant(weights["bias"])) if "bias" in weights else out


def gelu(g: GraphBuilder, x: str) -> str:
    """Returns the GELU of x, in the tanh form that Flax uses."""
    return str(g.node("Gelu", x, approximate="tanh"))


def conv_norm_gelu(
    g: GraphBuilder, x: str, conv: Mapping[str, Any], norm: Mapping[str, Any]
) -> str:
    """Returns GELU(LayerNorm(conv(x))) [B, T - K + 1, C] of x [B, T, D]; kernel [K, D, C]."""
    kernel = np.transpose(conv["kernel"], (2, 1, 0))
    x = str(
        g.node(
            "Conv",
            g.transpose(x, 0, 2, 1),
            g.constant(kernel),
            g.constant(conv["bias"]),
            kernel_shape=[kernel.shape[2]],
        )
    )
    x = str(
        g.node(
            "LayerNormalization",
            g.transpose(x, 0, 2, 1),
            g.constant(norm["scale"]),
            g.constant(norm["bias"]),
            axis=-1,
            epsilon=LAYER_NORM_EPSILON,
        )
    )
    return gelu(g, x)


def film(g: GraphBuilder, x: str, conditions: Sequence[str], weights: Mapping[str, Any]) -> str:
    """Returns x [B, T, C] modulated by conditions [B, 1 or T, D]; see `conditioning.FiLM`."""
    total = ""
    for i, condition in enumerate(conditions):
        part = dense(g, condition, weights[f"condition_{i}"])
        total = g.add(total, part) if total else part
    scale, shift = g.node("Split", total, outputs=2, axis=-1, num_outputs=2)
    return g.add(g.mul(x, g.add(scale, g.constant(1.0))), shift)


def gru(g: GraphBuilder, x: str, directions: Sequence[Mapping[str, Any]], length: str) -> str:
    """Returns the states [T, B, directions * H] of x [T, B, D]; see `a2fjax.models.gru`.

    Args:
      g: the graph.
      x: time-major inputs.
      directions: weights of the forward and, for a bidirectional GRU, the backward direction.
      length: [B] int32, frames of each item; states after them mean nothing.
    """
    width = directions[0]["hr"]["kernel"].shape[0]

    def stack(make: Any) -> str:
        return g.constant(np.stack([make(weights) for weights in directions]))

    # ONNX orders the gates update, reset, candidate.
    both = g.node(
        "GRU",
        x,
        stack(lambda w: np.concatenate([w[n]["kernel"].T for n in ("iz", "ir", "in")])),
        stack(lambda w: np.concatenate([w[n]["kernel"].T for n in ("hz", "hr", "hn")])),
        stack(_gru_bias),
        length,
        hidden_size=width,
        direction="bidirectional" if len(directions) == 2 else "forward",
        linear_before_reset=1,  # The reset gate multiplies the recurrent term after its product.
    )
    return g.reshape(g.transpose(both, 0, 2, 1, 3), 0, 0, len(directions) * width)


def _gru_bias(weights: Mapping[str, Any]) -> np.ndarray:
    inputs = [weights[name]["bias"] for name in ("iz", "ir", "in")]
    zero = np.zeros_like(inputs[0])
    return np.concatenate([*inputs, zero, zero, weights["hn"]["bias"]])
