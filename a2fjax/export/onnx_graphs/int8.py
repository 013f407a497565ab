"""Products of an ONNX graph with weights of 8 bits, by ONNX Runtime's dynamic quantisation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx


def quantised(model: onnx.ModelProto, prefix: str) -> onnx.ModelProto:
    """Returns a model whose named products take integers.

    Weights have a scale for each column and 7 bits, so that sums do not saturate on processors
    without VNNI; inputs are quantised from their range in each call.

    Args:
      model: the graph.
      prefix: of the names of the MatMul nodes to change.
    """
    from onnxruntime import quantization

    names = [node.name for node in model.graph.node if node.name.startswith(prefix)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        quantization.quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_quantize=names,
            per_channel=True,
            reduce_range=True,
            weight_type=quantization.QuantType.QInt8,
        )
        return onnx.load(path)
