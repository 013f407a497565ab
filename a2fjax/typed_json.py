"""Builds dataclasses from JSON values, with every field checked against its annotation."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, NotRequired, TypeVar

from a2fjax.errors import InputError, nearest

T = TypeVar("T")

_NAMES = {str: "a string", int: "a whole number", float: "a finite number", bool: "true or false"}


def build(kind: type[T], values: Any, *, name: str, strict: bool = True) -> T:
    """Returns the dataclass or `TypedDict` `kind` with values checked by type.

    Annotations may be str, int, float (a whole number will do), bool, Any, None, unions, list,
    tuple (from a list), dict or Mapping with strings as keys, dataclasses and `TypedDict`s.

    Args:
      kind: the class.
      values: what the JSON file holds.
      name: file name for messages.
      strict: whether keys that the class lacks are errors; otherwise they are left out.

    Raises:
      InputError: names the file, the key, its value and what was expected.

    Example:
        >>> @dataclasses.dataclass
        ... class Shard:
        ...     file: str
        ...     clips: list[int]
        >>> build(Shard, {"file": "a", "clips": [1, "2"]}, name="manifest.json")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: manifest.json: clips[1] is '2', expected a whole number
    """
    return typing.cast(T, _Builder(name, strict).convert(kind, values, ""))


class _Builder:
    def __init__(self, name: str, strict: bool):
        self._name, self._strict = name, strict
        self._hints: dict[Any, dict[str, Any]] = {}

    def convert(self, hint: Any, value: Any, at: str) -> Any:
        if hint is Any:
            return value
        if hint in _NAMES:
            if _is(hint, value):
                return float(value) if hint is float else value
            raise self._wrong(at, value, _NAMES[hint])
        if hint is None or hint is types.NoneType:
            if value is None:
                return None
            raise self._wrong(at, value, "null")
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin in (types.UnionType, typing.Union):
            return self._union(arguments, value, at)
        if origin in (list, tuple):
            return self._sequence(origin, arguments, value, at)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            if not isinstance(value, dict):
                raise self._wrong(at, value, "an object")
            return {k: self.convert(arguments[1], v, f"{at}.{k}") for k, v in value.items()}
        return self._group(hint, value, at)

    def _union(self, kinds: tuple[Any, ...], value: Any, at: str) -> Any:
        if value is None and types.NoneType in kinds:
            return None
        kinds = tuple(k for k in kinds if k is not types.NoneType)
        if len(kinds) > 1:
            kinds = tuple(k for k in kinds if k in _NAMES and _is(k, value)) or kinds
        return self.convert(kinds[0], value, at)

    def _sequence(self, origin: Any, kinds: tuple[Any, ...], value: Any, at: str) -> Any:
        if not isinstance(value, list | tuple):
            raise self._wrong(at, value, "a list")
        if origin is list or kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise self._wrong(at, value, f"{len(kinds)} values")
        return origin(
            self.convert(kind, each, f"{at}[{i}]")
            for i, (kind, each) in enumerate(zip(kinds, value, strict=True))
        )

    def _group(self, kind: Any, value: Any, at: str) -> Any:
        if not isinstance(value, dict):
            raise self._wrong(at, value, "an object")
        hints = self._hints.get(kind)
        if hints is None:
            hints = self._hints[kind] = typing.get_type_hints(kind, include_extras=True)
        plain = dataclasses.is_dataclass(kind)
        dot = f"{at}." if at else ""
        out = {}
        for key, each in value.items():
            if key in hints:
                hint = hints[key]
                hint = typing.get_args(hint)[0] if typing.get_origin(hint) is NotRequired else hint
                out[key] = self.convert(hint, each, f"{dot}{key}")
            elif self._strict:
                raise InputError(f"{self._name}: unknown key {dot}{key}{nearest(key, hints)}")
        if plain:
            needed = {
                f.name
                for f in dataclasses.fields(kind)
                if f.default is f.default_factory is dataclasses.MISSING
            }
        else:
            # Annotations that are texts hide NotRequired from the class.
            needed = {
                key
                for key in kind.__required_keys__
                if typing.get_origin(hints[key]) is not NotRequired
            }
        missing = sorted(needed - value.keys())
        if missing:
            raise InputError(f"{self._name}: has no {dot}{missing[0]}")
        return kind(**out) if plain else out

    def _wrong(self, at: str, value: Any, expected: str) -> InputError:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return InputError(f"{self._name}: {at or 'it'} is {shown}, expected {expected}")


def _is(kind: type, value: Any) -> bool:
    if kind is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
