"""ONNX files: written by the graphs' own builders, run by ONNX Runtime on one core."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.export.formats.base import Format, Run
from a2fjax.export.graph import Graph
from a2fjax.export.source import Source


class Onnx(Format):
    """ONNX, operator set 20."""

    name = "onnx"
    ending = ".onnx"
    packages = ("onnx", "onnxruntime")

    def unsupported(self, graph: Graph, source: Source) -> str:
        """See `Format`."""
        if type(graph).onnx is Graph.onnx:
            return f"graph {graph.name!r} has no ONNX builder"
        return graph.unsupported(source)

    def write(
        self, graph: Graph, source: Source, path: Path, description: Mapping[str, Any]
    ) -> None:
        """See `Format`; the description becomes `metadata_props`, a JSON text for each key."""
        from onnx import helper

        model = graph.onnx(source)
        tensors = {
            "inputs": [tensor.describe() for tensor in graph.inputs(source)],
            "outputs": [tensor.describe() for tensor in graph.outputs(source)],
            **graph.facts(source),
        }
        helper.set_model_props(
            model, {key: json.dumps(value) for key, value in {**description, **tensors}.items()}
        )
        path.write_bytes(model.SerializeToString(deterministic=True))

    def load(self, path: Path, graph: Graph, source: Source) -> Run:
        """See `Format`."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            return list(session.run(None, dict(inputs)))

        return run
