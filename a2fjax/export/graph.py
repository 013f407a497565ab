"""Interface of a graph in any file format: tensors, a JAX function, cases of its parity check.

Graphs are registered by name in `registry.graphs`. A package adds one for its own model with

    registry.graphs.register("mine", "my_package.graph:MyGraph")

`formats` then write it: StableHLO from `function`, ONNX from `onnx`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

    from a2fjax.export.formats.base import Run
    from a2fjax.export.source import Source

Arrays = Mapping[str, Any]
"""Arrays by the name of the tensor."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
      name: of the tensor.
      dtype: "float32", "int32" or "bool".
      shape: a size, or the name of a dimension that may have any size; "320 T" is 320 times T.
      meaning: content, unit and range.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    meaning: str

    def describe(self) -> dict[str, Any]:
        """Returns the tensor as JSON values."""
        return {**dataclasses.asdict(self), "shape": list(self.shape)}


@dataclasses.dataclass(frozen=True)
class Case:
    """Inputs and what the product makes of them.

    Attributes:
      name: what is special about it, for the report.
      inputs: arrays by name.
      expected: outputs by name.
      valid: [B, T] bool, frames of the outputs that mean something; None for all.
    """

    name: str
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    valid: np.ndarray | None = None


class Graph(abc.ABC):
    """One function of a model, such as waveform to curves.

    Attributes:
      name: file name without its ending.
      formats: names of the formats that it is for; () for all.
      exact: whether its files must agree with the product within `parity.BOUND`. Otherwise they are
        of lower precision: the bundle reports what they lose.
    """

    name = ""
    formats: tuple[str, ...] = ()
    exact = True

    @abc.abstractmethod
    def unsupported(self, source: Source) -> str:
        """Returns why the model has no such graph, as the end of a sentence; "" if it has."""

    @abc.abstractmethod
    def inputs(self, source: Source) -> tuple[Tensor, ...]:
        """Returns the inputs in their order."""

    @abc.abstractmethod
    def outputs(self, source: Source) -> tuple[Tensor, ...]:
        """Returns the outputs in their order."""

    @abc.abstractmethod
    def function(self, source: Source) -> Callable[..., tuple[Any, ...]]:
        """Returns a JAX function of the inputs that returns the outputs, both in their order."""

    @abc.abstractmethod
    def cases(self, source: Source, recordings: Sequence[np.ndarray]) -> Iterator[Case]:
        """Yields the cases that a file of this graph must agree on with the product.

        Args:
          source: the model.
          recordings: [S] float32 each, 16 kHz.
        """

    def onnx(self, source: Source) -> onnx.ModelProto:
        """Returns the graph as an ONNX model.

        Raises:
          NotImplementedError: the graph has no such builder; other formats may have it.
        """
        raise NotImplementedError

    def columns(self, source: Source, output: str) -> Sequence[str]:
        """Returns names of the last axis of an output; () where it has none."""
        return ()

    def variants(self, source: Source) -> Sequence[Graph]:
        """Returns the graphs to write: this one, and others like it that were asked for."""
        return (self,)

    def facts(self, source: Source) -> dict[str, Any]:
        """Returns what the manifest says of this graph beside its tensors, as JSON values."""
        return {}

    def example(self, source: Source) -> dict[str, np.ndarray]:
        """Returns arrays for `example/NAME.npz`, of what was compared; {} for no file."""
        return {}

    def driven(self, source: Source, run: Run) -> Run:
        """Returns what makes the outputs of a case with a file of this graph."""
        return run
