"""The identity encoder in ONNX: points of a neutral mesh in, its vector out."""

from __future__ import annotations

import numpy as np

from a2fjax import mesh_descriptor
from a2fjax.export.onnx_graphs import layers
from a2fjax.export.onnx_graphs.graph_builder import GraphBuilder
from a2fjax.export.source import Source
from a2fjax.models import conditioning


def build(g: GraphBuilder, source: Source) -> tuple[str, str, str]:
    """Adds the encoder of the input "points" [B, P, 3 or 6].

    Returns:
      Offset of the embedding from that of the mean identity [B, E], components [B, 16] and how much
      they count [B].
    """
    constants, width = source.constants, mesh_descriptor.WIDTH
    found = _descriptor(g, source.config.model.identity_normals)
    mean = np.asarray(constants["identity_mean"])
    centred = g.sub(found, g.constant(mean))
    components = g.node("MatMul", centred, g.constant(constants["identity_projection"]))
    limit = g.constant(conditioning.LIMIT)
    code = g.mul(limit, g.node("Tanh", g.div(components, limit)))
    if "identity_bounds" in constants:
        near, far = (float(b) for b in constants["identity_bounds"])
        scaled = g.div(g.slice(centred, 1, 0, width), g.constant(constants["identity_deviation"]))
        distance = g.node("Sqrt", g.mean(g.mul(scaled, scaled), 1))
        # In float32 as the product: a slope would lose the digits of large bounds.
        counts = g.div(g.sub(g.constant(far), distance), g.constant(np.float32(far - near + 1e-9)))
        counts = g.at_most(g.at_least(counts, 0.0), 1.0)
        code = g.mul(code, g.expand(counts, 1))
    else:
        zero = g.mul(g.sum(components, 1), g.constant(0.0))
        counts = g.add(zero, g.constant(1.0))
    weights = source.backbone_params["identity"]
    hidden = layers.gelu(g, layers.dense(g, code, weights["hidden"]))
    vector = layers.dense(g, hidden, weights["out"])
    return g.sub(vector, g.constant(source.mean_identity)), components, counts


def _descriptor(g: GraphBuilder, normals: bool) -> str:
    """Returns [B, D]; see `mesh_descriptor.descriptor`."""
    positions = g.slice("points", 2, 0, 3)
    centres = mesh_descriptor.CENTRES
    cross = g.node("MatMul", positions, g.constant(-2.0 * centres.T))
    square = g.add(g.sum(g.mul(positions, positions), 2, True), cross)
    square = g.add(square, g.constant((centres**2).sum(-1)))
    wide = g.node("Exp", g.mul(square, g.constant(-0.5 * mesh_descriptor.kernel_precisions()[1])))
    squared = g.mul(wide, wide)
    axes = [g.slice(positions, 2, i, i + 1) for i in range(3)]
    moments = []
    for powers in mesh_descriptor.MONOMIALS:
        product = axes[powers[0]]
        for i in powers[1:]:
            product = g.mul(product, axes[i])
        moments.append(g.mean(product, 1))
    parts = [g.mean(g.mul(squared, squared), 1), g.mean(wide, 1), *moments]
    if normals:
        means = g.node("MatMul", g.transpose(wide, 0, 2, 1), g.slice("points", 2, 3, 6))
        count = g.cast(g.size("points", 1), "float32")
        parts.append(g.reshape(g.div(means, count), 0, -1))
    return g.concat(*parts, axis=1)
