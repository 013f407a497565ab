"""Reads the text of a compiled program (XLA's HLO) and counts how often each instruction runs.

Loops are multiplied by the number of turns that XLA states in them (`known_trip_count`), nested
ones by the product, and what is behind a fusion, a call or an asynchronous start is counted where
it is called. A flat search of the text counts the body of a loop once; a model whose gradient is
added up in a loop then seems to move a fraction of what it moves.
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
"""Bytes of a value by type; the types of 8 bits whose names begin with f8 are one byte."""

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,<=]*)\]")
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BODY = re.compile(r"\bbody=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TWO = re.compile(r"\b(?:true|false)_computation=%?([\w.\-]+)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLERS = ("fusion", "call", "async-start", "while", "conditional")
"""Instructions whose computations hold instructions of the program; a reduction's only say how two
values become one."""


@dataclasses.dataclass(frozen=True)
class Array:
    """Type and shape of an array on one device."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Size in bytes; 0 of a token."""
        size = 1 if self.dtype.startswith("f8") else BYTES.get(self.dtype, 0)
        return math.ceil(size * math.prod(self.shape))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      name: unique in the program's computation.
      opcode: what it does, such as "all-reduce".
      results: arrays that it gives, tuples flattened.
      operands: names of what it takes.
      rest: attributes and metadata as written.
    """

    name: str
    opcode: str
    results: tuple[Array, ...]
    operands: tuple[str, ...]
    rest: str


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, and the name of the one that runs.

    Attributes:
      computations: instructions by computation, in the order of the text.
      entry: where the program begins.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    def arrays(self, computation: str, names: tuple[str, ...]) -> tuple[Array, ...]:
        """Returns the arrays that instructions of a computation give, tuples flattened."""
        found = self.computations[computation]
        return tuple(array for name in names if name in found for array in found[name].results)


def parse(text: str) -> Program:
    """Returns the program of HLO text, as `compiled.as_text()` gives it.

    Raises:
      ValueError: no computation in it is marked as the entry.
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
            found = _INSTRUCTION.match(line)
            if found:
                inside[found[2]] = _instruction(found[2], found[3])
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
    """Returns the place behind the bracket that closes the one at `begin`."""
    depth = 0
    for i in range(begin, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i + 1
    return len(text)


def arrays(kind: str) -> tuple[Array, ...]:
    """Returns the arrays of a written type: "(f32[2,3]{1,0}, s32[])" has two."""
    # Layouts may hold brackets of their own: {1,0:T(8,128)}.
    kind = re.sub(r"\{[^{}]*\}", "", kind)
    return tuple(
        Array(dtype, tuple(int(n.lstrip("<=")) for n in shape.split(",") if n))
        for dtype, shape in _ARRAY.findall(kind)
    )


def walk(
    program: Program, *, inside_fusions: bool = True
) -> Iterator[tuple[str, Instruction, int]]:
    """Yields (computation, instruction, times that it runs in one call of the program).

    All branches of a conditional are yielded, as if each ran: which one does, no program says. The
    body of a loop whose turns are not stated is taken once; `unknown_loops` counts those.

    Args:
      program: parsed.
      inside_fusions: also what is computed within fusions.
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
    """Returns the number of loops whose turns the program does not state."""
    return sum(
        instruction.opcode == "while" and not _TRIPS.search(instruction.rest)
        for _, instruction, _ in walk(program)
    )


def flops(program: Program) -> int:
    """Returns operations of all matrix products and convolutions on one device, loops multiplied.

    A multiply and an add are two. Products that are calls of a library (on GPUs) are not seen.
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
    """Returns how many kernels one call of the program starts: what is neither free nor fused."""
    return sum(
        times
        for _, instruction, times in walk(program, inside_fusions=False)
        if instruction.opcode not in _FREE and not instruction.opcode.endswith("-done")
    )
