"""Parameters as nested dicts, addressed by paths such as "encoder/layers/0/bias"."""

from __future__ import annotations

from typing import Any

Params = dict[str, Any]
"""Nested dicts of arrays."""


def leaves(params: Params, prefix: str = "") -> list[tuple[str, Any]]:
    """Returns (path, array) of every leaf, sorted by path.

    Example:
        >>> leaves({"b": {"y": 1, "x": 2}, "a": 3})
        [('a', 3), ('b/x', 2), ('b/y', 1)]
    """
    out: list[tuple[str, Any]] = []
    for key, value in params.items():
        if isinstance(value, dict):
            out += leaves(value, f"{prefix}{key}/")
        else:
            out.append((f"{prefix}{key}", value))
    return sorted(out, key=lambda item: item[0])


def set_path(params: Params, path: str, value: Any) -> None:
    """Sets the value at a path; makes the dicts on the way."""
    *parents, last = path.split("/")
    for key in parents:
        params = params.setdefault(key, {})
    params[last] = value


def get_path(params: Params, path: str) -> Any:
    """Returns the value at a path, None where there is none."""
    value: Any = params
    for key in path.split("/"):
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value
