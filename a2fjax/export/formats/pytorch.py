"""The model in PyTorch: one readable file that reads the bundle's own model.safetensors."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.export import description
from a2fjax.export.formats.base import Format, Run
from a2fjax.export.graph import Graph
from a2fjax.export.graphs.model import ModelGraph
from a2fjax.export.source import Source

TWIN = Path(__file__).parents[1] / "pytorch_twin.py"


class PyTorch(Format):
    """A copy of `a2fjax.export.pytorch_twin`."""

    name = "pytorch"
    ending = ".py"
    packages = ("torch",)
    extra = "torch"

    def unsupported(self, graph: Graph, source: Source) -> str:
        """See `Format`."""
        if not isinstance(graph, ModelGraph):
            return f"graph {graph.name!r} is part of a2fjax only"
        why = graph.unsupported(source)
        if not why and source.config.audio.features != ("mel",):
            why = f"audio.features={','.join(source.config.audio.features)}: expected mel alone"
        return why

    def write(
        self, graph: Graph, source: Source, path: Path, description: Mapping[str, Any]
    ) -> None:
        """See `Format`."""
        shutil.copyfile(TWIN, path)

    def load(self, path: Path, graph: Graph, source: Source) -> Run:
        """See `Format`; the weights are those of the folder that the file's folder is in."""
        import torch

        manifest = description.describe(source, description.UNSTATED, {})
        model = runpy.run_path(str(path))["build"](path.parents[1], manifest)
        names = [tensor.name for tensor in graph.inputs(source)]
        if "identity" not in names:
            names.insert(3, "identity")

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            given = [torch.from_numpy(inputs[n]) if n in inputs else None for n in names]
            with torch.no_grad():
                return [model(*given).numpy()]

        return run
