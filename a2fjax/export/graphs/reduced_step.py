"""The graphs "step_fp16" and "step_int8": the default step with the network's products reduced."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from a2fjax.export.graph import Case, Graph
from a2fjax.export.graphs.step import StepGraph
from a2fjax.export.source import Source

if TYPE_CHECKING:
    import onnx


class ReducedStepGraph(StepGraph):
    """The default step in lower precision; signals, state and output stay in float32."""

    formats = ("onnx",)
    exact = False

    def variants(self, source: Source) -> Sequence[Graph]:
        """See `Graph`."""
        return (self,)

    def cases(self, source: Source, recordings: Sequence[np.ndarray]) -> Iterator[Case]:
        """Yields the cases of `StepGraph`; only frames of active rows count as valid."""
        for case in super().cases(source, recordings):
            yield dataclasses.replace(case, valid=case.inputs["active"].T)

    def example(self, source: Source) -> dict[str, np.ndarray]:
        """Returns nothing: the example is that of the exact step."""
        return {}


class HalfStepGraph(ReducedStepGraph):
    """The products in float16."""

    name = "step_fp16"

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import half, step

        return half.halved(super().onnx(source), step.NETWORK)


class Int8StepGraph(ReducedStepGraph):
    """The products in 8 bits."""

    name = "step_int8"

    def onnx(self, source: Source) -> onnx.ModelProto:
        """See `Graph`."""
        from a2fjax.export.onnx_graphs import int8, step

        return int8.quantised(super().onnx(source), step.NETWORK)
