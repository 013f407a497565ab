"""Parses the text of a compiled program (XLA's HLO) and counts the runs of each instruction.

The body of a loop is multiplied by the trip count that XLA states (`known_trip_count`), and nested
loops by the product of their counts. The computations of fusions, calls and asynchronous starts
count at their callers. A flat search of the text would count the body of a loop once, and so
underestimate the traffic of a model that accumulates its gradient in a loop.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

BYTES = {
    **{"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "s32": 4, "u32": 4},
    **{"s64": 8, "u64": 8, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16},
}
"""Bytes per value by type; types whose names begin with f8 take one byte."""

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TWO = re.compile(r"\b(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLERS = ("fusion", "call", "async-start", "while", "conditional")
"""Instructions whose called computations belong to the program. The computation of a reduction only
defines how two values are combined."""


@dataclasses.dataclass(frozen=True)
class Array:
    """Type and shape of an array on one device."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in bytes; 0 for a token."""
        size = 1 if self.dtype.startswith("f8") else BYTES.get(self.dtype, 0)
        return math.ceil(size * math.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: name, unique within its computation.
      opcode: operation, such as "all-reduce".
      results: output arrays, with tuples flattened.
      operands: names of the operands.
      rest: text of the attributes and metadata.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, and the name of the entry computation.

    Attributes:
      computations: instructions by computation, in the order of the text.
      entry: name of the entry computation.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def arrays(self, computation: str, names: tuple[str, ...]) -> tuple[Array, ...]:
        """Returns the output arrays of instructions in a computation, with tuples flattened."""
        instructions = self.computations[computation]
        return tuple(
            array for name in names if name in instructions for array in instructions[name].results
        )


def parse(text: str) -> Program:
    """Parses HLO text from `compiled.as_text()`.

    Raises:
      ValueError: no computation in the text is marked as the entry.
    """
    computations: dict[str, dict[str, Instruction]] = {}
    entry, inside = "", None
    for line in text.splitlines():
        line = re.sub(r"/\*.*?\*/", "", line)
        if inside is None:
            header = _HEADER.match(line)
            if header:
                inside = computations.setdefault(header[2], {})
                entry = header[2] if header[1] else entry
        elif line.startswith("}"):
            inside = None
        else:
            match = _INSTRUCTION.match(line)
            if match:
                inside[match[2]] = _instruction(match[2], match[3])
    if not entry:
        raise ValueError("not the text of a compiled program: no ENTRY in it")
    return Program(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    end = _closing(text, 0) if text.startswith("(") else text.find(" ")
    kind, text = text[:end], text[end:].lstrip()
    opcode, _, _ = text.partition("(")
    begin = len(opcode)
    end = _closing(text, begin)
    operands = tuple(re.findall(r"%([\w.\-]+)", text[begin:end])) or tuple(
        word.strip() for word in text[begin + 1 : end - 1].split(",") if word.strip()
    )
    return Instruction(name, opcode.strip(), arrays(kind), operands, text[end:])


def _closing(text: str, begin: int) -> int:
    """Returns the index after the bracket that closes the one at `begin`."""
    depth = 0
    for i in range(begin, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    return len(text)


def arrays(kind: str) -> tuple[Array, ...]:
    """Returns the arrays of a type in HLO text: "(f32[2,3]{1,0}, s32[])" has two."""
    # Layouts may contain brackets: {1,0:T(8,128)}.
    kind = re.sub(r"\{[^{}]*\}", "", kind)
    return tuple(
        Array(dtype, tuple(int(n.lstrip("<=")) for n in shape.split(",") if n))
        for dtype, shape in _ARRAY.findall(kind)
    )


def walk(
    program: Program, *, inside_fusions: bool = True
) -> Iterator[tuple[str, Instruction, int]]:
    """Yields (computation, instruction, number of executions in one call of the program).

    All branches of a conditional are counted, because the program does not state which one runs.
    The body of a loop without a stated trip count counts once; `unknown_loops` counts such loops.

    Args:
      program: the parsed program.
      inside_fusions: also yield the instructions within fusions.
    """

    def visit(name: str, times: int) -> Iterator[tuple[str, Instruction, int]]:
        for instruction in program.computations.get(name, {}).values():
            yield name, instruction, times
            opcode, rest = instruction.opcode, instruction.rest
            if opcode not in _CALLERS or (opcode == "fusion" and not inside_fusions):
                continue
            turns = 1
            called = _CALLED.findall(rest)
            if opcode == "while":
                stated = _TRIPS.search(rest)
                turns = int(stated[1]) if stated else 1
                called = _BODY.findall(rest)
            elif opcode == "conditional":
                lists = [re.findall(r"%?([\w.\-]+)", b) for b in _BRANCHES.findall(rest)]
                called = [*(n for names in lists for n in names), *_TWO.findall(rest)]
            for other in called:
                yield from visit(other, times * turns)

    yield from visit(program.entry, 1)


def unknown_loops(program: Program) -> int:
    """Returns the number of loops without a stated trip count."""
    return sum(
        instruction.opcode == "while" and not _TRIPS.search(instruction.rest)
        for _, instruction, _ in walk(program)
    )


def flops(program: Program) -> int:
    """Returns the operations of all matrix products and convolutions on one device.

    A multiply and an add count as two operations, and loops count with their trip counts. Products
    in library calls (on GPUs) are not counted.
    """
    total = 0
    for computation, instruction, times in walk(program):
        if instruction.opcode == "dot":
            left = program.arrays(computation, instruction.operands[:1])[0]
            over = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.rest)
            depth = math.prod(left.shape[int(d)] for d in over[1].split(",") if d) if over else 1
            total += times * 2 * math.prod(instruction.results[0].shape) * depth
        elif instruction.opcode == "convolution":
            kernel = program.arrays(computation, instruction.operands[1:2])[0]
            labels = re.search(r"dim_labels=\w+_(\w+)->", instruction.rest)
            outputs = kernel.shape[labels[1].index("o")] if labels else 1
            size = math.prod(instruction.results[0].shape)
            total += times * 2 * size * math.prod(kernel.shape) // max(1, outputs)
    return total


_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast while call conditional async-start "
    "after-all opt-barrier partition-id replica-id iota domain copy-done".split()
)


def launches(program: Program) -> int:
    """Returns the number of kernels that one call launches: instructions neither free nor fused."""
    return sum(
        times
        for _, instruction, times in walk(program, inside_fusions=False)
        if instruction.opcode not in _FREE and not instruction.opcode.endswith("-done")
    )
