"""The network's products of an ONNX graph in float16; all else stays as it is."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def halved(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Returns a model whose named products take and store float16.

    Args:
      model: the graph; it is changed.
      prefix: of the names of the MatMul nodes to change; their second inputs are initializers.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if not node.name.startswith(prefix):
            nodes.append(node)
            continue
        x, kernel = node.input
        (y,) = node.output
        weight = weights[kernel]
        if weight.data_type == TensorProto.FLOAT:
            half = numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(numpy_helper.from_array(half, kernel))
        names = f"{y}_half_in", f"{y}_half_out"
        nodes += [
            helper.make_node("Cast", [x], [names[0]], to=TensorProto.FLOAT16),
            helper.make_node("MatMul", [names[0], kernel], [names[1]], name=node.name),
            helper.make_node("Cast", [names[1]], [y], to=TensorProto.FLOAT),
        ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model
