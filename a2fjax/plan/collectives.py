"""Counts the data that devices exchange in one step, from a compiled program.

Bytes on the wire are the bytes that one device sends, by the formulas of ring algorithms (Patarasuk
and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations"; NCCL's notes
on performance state the same), with n devices in a group:

    all-reduce            2 (n - 1) / n  of the array
    all-gather            (n - 1) / n    of the gathered array
    reduce-scatter        (n - 1) / n    of the input array
    all-to-all            (n - 1) / n    of the array
    collective-permute    1              of the array
    collective-broadcast  1              of the array
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from a2fjax.plan import hlo

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "ragged-all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_LIST = re.compile(r"replica_groups=\{(\{[\d,{}\s]*\})?\}")
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(r"replica_groups=@?mesh\[([^\]]*)\](.*?)\{([^}]*)\}")
_AXIS = re.compile(r"['\"]?(\w+)['\"]?=(\d+)")
_PART = re.compile(r"['\"]?(\w+)['\"]?(?::\((\d+)\)(\d+))?")
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One instruction that moves data between devices.

    Attributes:
      kind: one of `KINDS`.
      dtype: type of the largest array, such as "f32".
      bytes: size of the whole array on one device: the result, or the input of a reduce-scatter.
      wire: bytes that one device sends.
      group: number of devices in a group.
      crosses: whether any group has devices of more than one host.
      hosts: largest number of hosts that a group spans.
      times: number of executions per step.
      source: origin of the instruction according to the program; "" if not stated.
    """

    kind: str
    dtype: str
    bytes: int
    wire: float
    group: int
    crosses: bool
    hosts: int
    times: int
    source: str


def share(kind: str, group: int) -> float:
    """Returns the bytes on the wire per byte of the array, by the formulas of this module."""
    if kind in ("collective-permute", "collective-broadcast"):
        return float(group > 1)
    return (2 if kind == "all-reduce" else 1) * (group - 1) / group


def count(program: hlo.Program, devices: int, per_host: int = 8) -> list[Collective]:
    """Returns the collectives of a step, without groups of a single device.

    An asynchronous collective counts at its start instruction.

    Args:
      program: program compiled for `devices` partitions.
      devices: number of devices, numbered in the order of the mesh.
      per_host: devices per host; devices of a host are adjacent in that order.
    """
    collectives = []
    for computation, instruction, times in hlo.walk(program):
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        groups = groups_of(instruction, devices)
        group = max(map(len, groups))
        if group < 2:
            continue
        operands = program.arrays(computation, instruction.operands)
        size = sum(array.bytes for array in operands)
        if kind == "all-gather":
            size *= group
        hosts = max(len({device // per_host for device in g}) for g in groups)
        source = re.search(r'op_name="([^"]*)"', instruction.rest)
        collectives.append(
            Collective(
                kind=kind,
                dtype=max(operands, key=lambda a: a.bytes).dtype if operands else "",
                bytes=size,
                wire=size * share(kind, group),
                group=group,
                crosses=hosts > 1,
                hosts=hosts,
                times=times,
                source=source[1] if source else "",
            )
        )
    return collectives


def groups_of(instruction: hlo.Instruction, devices: int) -> list[tuple[int, ...]]:
    """Returns the groups of devices that communicate in an instruction.

    Each pair of a permutation is a group.

    Raises:
      ValueError: the notation of the groups is unknown.
    """
    text = instruction.rest
    pairs = _PAIRS.search(text)
    if pairs:
        numbers = [int(n) for n in re.findall(r"\d+", pairs[1])]
        moved = [(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True) if a != b]
        return list(moved) or [(0,)]
    iota = _IOTA.search(text)
    if iota:
        shape, source, order = (_numbers(part) for part in iota.groups())
        ids = np.arange(int(np.prod(source))).reshape(source)
        ids = ids.transpose(order) if order else ids
        return [tuple(row) for row in ids.reshape(shape).tolist()]
    listed = _LIST.search(text)
    if listed:
        rows = re.findall(r"\{([\d,\s]*)\}", listed[1] or "")
        return [tuple(_numbers(row)) for row in rows if row.strip()] or [tuple(range(devices))]
    named = _MESH.search(text)
    if named:
        order_of = _device_ids(named[2])
        groups = _of_axes(named[1], named[3])
        return [tuple(order_of[i] for i in row) for row in groups] if order_of else groups
    if "replica_groups" in text:
        at = text.index("replica_groups")
        raise ValueError(f"groups of devices in an unknown notation: {text[at : at + 80]}")
    return [tuple(range(devices))]


def _device_ids(text: str) -> list[int] | None:
    """Returns device ids from "([2,4]T(1,0))" or "(0,2,1,3)"; None for the default order."""
    written = re.search(r"device_ids=\((?:\[([\d,]+)\](?:T\(([\d,]+)\))?|([\d,]+))\)", text)
    if not written:
        return None
    shape, order, listed = (_numbers(part) for part in written.groups())
    if listed:
        return listed
    ids = np.arange(int(np.prod(shape))).reshape(shape)
    members: list[int] = (ids.transpose(order) if order else ids).reshape(-1).tolist()
    return members


def _of_axes(mesh: str, over: str) -> list[tuple[int, ...]]:
    """Returns the groups over axes of a mesh: "'a'=4,'b'=2" and "'a'", or "'a':(2)2" for a part.

    A part "(before)size" is the factor `size` of the axis that follows the leading factor `before`.
    """
    sizes = {name: int(size) for name, size in _AXIS.findall(mesh)}
    wanted = {n: (int(b or 1), int(s or sizes[n])) for n, b, s in _PART.findall(over)}
    shape: list[int] = []
    grouped: list[int] = []
    for name, size in sizes.items():
        before, part = wanted.get(name, (size, 1))
        if name in wanted:
            grouped.append(len(shape) + 1)
        shape += [before, part, size // (before * part)]
    apart = [axis for axis in range(len(shape)) if axis not in grouped]
    ids = np.arange(int(np.prod(shape))).reshape(shape).transpose(*apart, *grouped)
    rows = ids.reshape(-1, int(np.prod([shape[axis] for axis in grouped])))
    return [tuple(row) for row in rows.tolist()]


def _numbers(text: str | None) -> list[int]:
    return [int(n) for n in (text or "").split(",") if n.strip()]


def summary(collectives: Sequence[Collective]) -> list[dict[str, object]]:
    """Returns one row per kind, type and group, sorted by bytes on the wire, largest first.

    Returns:
      Rows of "kind", "dtype", "group", "hosts", "count" (executions per step), "bytes" (total size
      of the arrays) and "wire" (total bytes that one device sends).
    """
    rows: dict[tuple[str, str, int, int], dict[str, float]] = {}
    for c in collectives:
        row = rows.setdefault(
            (c.kind, c.dtype, c.group, c.hosts), {"count": 0, "bytes": 0, "wire": 0.0}
        )
        row["count"] += c.times
        row["bytes"] += c.times * c.bytes
        row["wire"] += c.times * c.wire
    named = [
        {"kind": k, "dtype": d, "group": g, "hosts": h, **row} for (k, d, g, h), row in rows.items()
    ]
    return sorted(named, key=lambda row: -float(row["wire"]))  # type: ignore[arg-type]
