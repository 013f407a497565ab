"""StableHLO by `jax.export`: one file for cpu, cuda, rocm and tpu, with any batch and length.

A process with nothing but jax runs it:

    from jax import export
    with open("stablehlo/model.stablehlo", "rb") as file:
        model = export.deserialize(file.read())
    (motion,) = model.call(audio, samples, speech_level, identity, emotion)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from a2fjax.export.formats.base import Format, Run
from a2fjax.export.graph import Graph
from a2fjax.export.source import Source

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


class StableHlo(Format):
    """StableHLO with the weights inside."""

    name = "stablehlo"
    ending = ".stablehlo"

    def write(
        self, graph: Graph, source: Source, path: Path, description: Mapping[str, Any]
    ) -> None:
        """See `Format`; the format has no place for the description."""
        from jax import export

        tensors = graph.inputs(source)
        scope = export.SymbolicScope()
        specs = [
            jax.ShapeDtypeStruct(
                export.symbolic_shape(", ".join(map(_dimension, tensor.shape)), scope=scope),
                np.dtype(tensor.dtype),
            )
            for tensor in tensors
        ]
        exported = export.export(jax.jit(graph.function(source)), platforms=PLATFORMS)(*specs)
        path.write_bytes(exported.serialize())

    def load(self, path: Path, graph: Graph, source: Source) -> Run:
        """See `Format`."""
        from jax import export

        exported = export.deserialize(bytearray(path.read_bytes()))
        names = [tensor.name for tensor in graph.inputs(source)]
        call = jax.jit(exported.call)

        def run(inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
            return [np.asarray(value) for value in call(*(inputs[name] for name in names))]

        return run


def _dimension(size: int | str) -> str:
    """Returns a dimension as `symbolic_shape` writes it.

    Example:
        >>> _dimension("320 T"), _dimension(72)
        ('320*t', '72')
    """
    return str(size).lower().replace(" ", "*")
