"""Builds an ONNX graph by method calls: each call adds a node and returns its output's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from a2fjax.export.graph import Tensor

OPSET = 20
"""Gelu needs 20; ONNX Runtime 1.32 runs every operator used here at it."""

IR_VERSION = 9
"""The lowest that goes with the operator set, so that older runtimes read the file."""

_TYPES = {
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
}


class GraphBuilder:
    """A graph under construction; values are names of tensors.

    Attributes:
      nodes: so far.
      real: type of constants that are added without one, "float32" or "float16".
    """

    def __init__(self, name: str) -> None:
        """Starts an empty graph."""
        self.name = name
        self.real = "float32"
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: dict[tuple[Any, ...], onnx.TensorProto] = {}

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Adds a node; returns the name of its output, or a list of them if there are several."""
        names = [f"{op.lower()}_{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Returns the name of an initializer with `value`; equal ones are stored once."""
        array = np.ascontiguousarray(value, dtype or self.real).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._initializers:
            name = f"constant_{len(self._initializers)}"
            self._initializers[key] = numpy_helper.from_array(array, name)
        return str(self._initializers[key].name)

    def ints(self, *values: int) -> str:
        """Returns a constant [N] int64, as shapes, axes and indices are given."""
        return self.constant(list(values), np.int64)

    def add(self, a: str, b: str) -> str:
        """Returns a + b."""
        return str(self.node("Add", a, b))

    def sub(self, a: str, b: str) -> str:
        """Returns a - b."""
        return str(self.node("Sub", a, b))

    def mul(self, a: str, b: str) -> str:
        """Returns a * b."""
        return str(self.node("Mul", a, b))

    def div(self, a: str, b: str) -> str:
        """Returns a / b."""
        return str(self.node("Div", a, b))

    def cast(self, x: str, dtype: str) -> str:
        """Returns x as "float16", "float32", "int32", "int64" or "bool"."""
        return str(self.node("Cast", x, to=_TYPES[dtype]))

    def where(self, condition: str, a: str, b: str) -> str:
        """Returns a where the condition is true, b elsewhere."""
        return str(self.node("Where", condition, a, b))

    def at_least(self, x: str, bound: float) -> str:
        """Returns max(x, bound)."""
        return str(self.node("Max", x, self.constant(bound)))

    def at_most(self, x: str, bound: float) -> str:
        """Returns min(x, bound)."""
        return str(self.node("Min", x, self.constant(bound)))

    def clip(self, x: str, low: float, high: float) -> str:
        """Returns x within two bounds."""
        return str(self.node("Clip", x, self.constant(low), self.constant(high)))

    def sum(self, x: str, axis: int, keepdims: bool = False) -> str:
        """Returns the sum over an axis."""
        return str(self.node("ReduceSum", x, self.ints(axis), keepdims=int(keepdims)))

    def mean(self, x: str, axis: int, keepdims: bool = False) -> str:
        """Returns the mean over an axis."""
        return str(self.node("ReduceMean", x, self.ints(axis), keepdims=int(keepdims)))

    def reshape(self, x: str, *shape: int) -> str:
        """Returns x in another shape; 0 keeps the dimension at its place, one -1 is inferred."""
        return str(self.node("Reshape", x, self.ints(*shape)))

    def transpose(self, x: str, *axes: int) -> str:
        """Returns x with its axes in another order."""
        return str(self.node("Transpose", x, perm=list(axes)))

    def expand(self, x: str, axis: int) -> str:
        """Returns x with a new axis of size 1."""
        return str(self.node("Unsqueeze", x, self.ints(axis)))

    def squeeze(self, x: str, axis: int) -> str:
        """Returns x without an axis of size 1."""
        return str(self.node("Squeeze", x, self.ints(axis)))

    def slice(self, x: str, axis: int, start: int, stop: int | None, step: int = 1) -> str:
        """Returns x[start:stop:step] along an axis; None is the end."""
        last = np.iinfo(np.int64).max if stop is None else stop
        bounds = (self.ints(start), self.ints(last), self.ints(axis), self.ints(step))
        return str(self.node("Slice", x, *bounds))

    def concat(self, *parts: str, axis: int) -> str:
        """Returns the parts joined along an axis."""
        return str(self.node("Concat", *parts, axis=axis))

    def pad(self, x: str, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> str:
        """Returns x with a constant before and after it, by axis."""
        return str(self.node("Pad", x, self.ints(*before, *after), self.constant(value)))

    def size(self, x: str, axis: int) -> str:
        """Returns the length of an axis as an int64 scalar."""
        shape = self.node("Shape", x, start=axis, end=axis + 1)
        return str(self.node("Squeeze", shape, self.ints(0)))

    def count(self, x: str, axis: int) -> str:
        """Returns 0, 1, ... [N] int64 for an axis of length N."""
        zero, one = self.constant(0, np.int64), self.constant(1, np.int64)
        return str(self.node("Range", zero, self.size(x, axis), one))

    def finish(
        self,
        inputs: Sequence[Tensor],
        outputs: Mapping[str, str],
        shapes: Sequence[Tensor],
    ) -> onnx.ModelProto:
        """Returns the checked model.

        Args:
          inputs: of the graph; nodes refer to them by name.
          outputs: name of the tensor that each output is.
          shapes: of the outputs, in their order.
        """
        for name, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [_info(tensor) for tensor in inputs],
            [_info(tensor) for tensor in shapes],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="a2fjax",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        tensor.name, _TYPES[tensor.dtype], list(tensor.shape), tensor.meaning
    )
