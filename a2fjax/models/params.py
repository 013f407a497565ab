"""Operations on trees of variables (nested dicts): paths, trained and frozen parts, counts.

Frozen parts are split off before differentiation instead of masked in the optimiser, so that they
cost no gradient computation and do not enter the clipped norm.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Params = dict[str, Any]
"""Nested dicts of arrays; a path consists of keys joined by "/"."""

FROZEN = (r"^constants/",)
"""Patterns of variables that are always frozen: the collection "constants"."""


def paths(params: Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) for every leaf, in dict order."""
    for key, value in params.items():
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", value


def split(params: Params, frozen: Sequence[str] = FROZEN) -> tuple[Params, Params]:
    """Splits variables by path.

    Args:
      params: nested dicts.
      frozen: regular expressions; a leaf is frozen if any of them matches within its path.

    Returns:
      (trainable, frozen), each without empty dicts; `merge` is the inverse.

    Example:
        >>> split({"params": {"w": 1}, "constants": {"mean": 2}})
        ({'params': {'w': 1}}, {'constants': {'mean': 2}})
    """
    patterns = [re.compile(p) for p in frozen]
    out: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for path, leaf in paths(params):
        out[any(p.search(path) for p in patterns)][path] = leaf
    return nest(out[0]), nest(out[1])


def nest(leaves: Mapping[str, Any]) -> Params:
    """Returns nested dicts from leaves by path.

    Example:
        >>> nest({"a/b": 1, "a/c": 2})
        {'a': {'b': 1, 'c': 2}}
    """
    out: Params = {}
    for path, leaf in leaves.items():
        branch = out
        *parents, last = path.split("/")
        for key in parents:
            branch = branch.setdefault(key, {})
        branch[last] = leaf
    return out


def restrict(params: Params, like: Params) -> Params:
    """Returns the part of `params` whose paths also occur in `like`.

    Raises:
      KeyError: a path of `like` is not in `params`.
    """
    return {
        key: restrict(params[key], value) if isinstance(value, dict) else params[key]
        for key, value in like.items()
    }


def overlay(params: Params, given: Params) -> Params:
    """Returns `params` with the leaves of `given` replaced or added."""
    return nest({**dict(paths(params)), **dict(paths(given))})


def merge(first: Params, second: Params) -> Params:
    """Returns the union of two parameter trees.

    Raises:
      ValueError: both trees contain the same leaf.
    """
    out = dict(first)
    for key, value in second.items():
        if key not in out:
            out[key] = value
        elif isinstance(out[key], dict) and isinstance(value, dict):
            out[key] = merge(out[key], value)
        else:
            raise ValueError(f"parameter {key!r} is in both trees")
    return out


def count(params: Params) -> int:
    """Returns the total number of values; leaves are arrays or other objects with a shape."""
    return sum(math.prod(leaf.shape) for _, leaf in paths(params))


def table(params: Params, frozen: Sequence[str] = FROZEN) -> str:
    """Returns a text table with one line per leaf (path, shape, dtype, count) and totals."""
    patterns = [re.compile(p) for p in frozen]
    rows = [("parameter", "shape", "dtype", "values")]
    totals = [0, 0]
    for path, leaf in paths(params):
        fixed = any(p.search(path) for p in patterns)
        size = math.prod(leaf.shape)
        totals[fixed] += size
        shape = "x".join(map(str, leaf.shape)) or "scalar"
        rows.append((path + (" (frozen)" if fixed else ""), shape, str(leaf.dtype), f"{size:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:<{widths[2]}}  {d:>{widths[3]}}"
        for a, b, c, d in rows
    ]
    lines.append(f"{totals[0]:,} trainable values, {totals[1]:,} frozen")
    return "\n".join(lines)
