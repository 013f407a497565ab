"""Builds the dataclasses; rejects unknown keys, wrong types and values out of bounds."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from a2fjax import registry
from a2fjax.configuration.bounds import KindOf, NamedSettings
from a2fjax.configuration.experiment import Config
from a2fjax.errors import InputError, nearest

T = TypeVar("T")


def build_config(values: Mapping[str, Any], *, where: str) -> Config:
    """Imports the plugins that `values` name, then returns the whole configuration.

    Args:
      values: nested values by key.
      where: beginning of errors: a file, or "config".

    Raises:
      InputError: a plugin that cannot be imported, or as `build`.
    """
    # Plugins register the kinds that the other keys name.
    names = {"plugins": values["plugins"]} if "plugins" in values else {}
    registry.load_plugins(build(Config, names, where=where).plugins)
    return build(Config, values, where=where)


def build(kind: type[T], values: Mapping[str, Any], *, where: str, prefix: str = "") -> T:
    """Returns the dataclass `kind` with `values`, checked for unknown keys, types and bounds.

    A dataclass with a method `validate(where)` is asked for cross-checks of its fields.

    Args:
      kind: dataclass whose fields may have bounds (`a2fjax.configuration.bounds`) in `Annotated`.
      values: by field name; the others keep their defaults.
      where: beginning of errors: a file, or "config".
      prefix: dotted path of the group, with its final dot.

    Raises:
      InputError: names the key, the value and what was expected.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    out: dict[str, Any] = {}
    for key, value in values.items():
        path = f"{prefix}{key}"
        if key not in fields:
            raise InputError(f"{where}: unknown key {path!r}{nearest(key, fields)}")
        hint, bounds = split_hint(hints[key])
        out[key] = _value(hint, bounds, value, path, where)
    built = kind(**out)
    validate = getattr(built, "validate", None)
    if validate is not None:
        validate(where)
    return built


def split_hint(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Returns the type and the bounds of an annotation."""
    if typing.get_origin(hint) is Annotated:
        inner, *bounds = typing.get_args(hint)
        return inner, tuple(bounds)
    return hint, ()


def settings_class(entry: registry.Entry, base: type) -> type:
    """Returns the settings class of a registered part; `base` where it has none.

    Raises:
      InputError: it is no dataclass that extends `base`.
    """
    found = entry.settings_class()
    if found is None:
        return base
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"plugin {entry.origin}: the settings of {entry.name!r} are no dataclass that extends "
            f"a2fjax.configuration.{base.__name__}"
        )
    return found


def _value(hint: Any, bounds: tuple[Any, ...], value: Any, path: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: {path}={value!r}: expected a group of keys")
        kind = hint
        for bound in bounds:
            if isinstance(bound, KindOf):
                kind, value = _of_kind(bound, value, path, where)
        return build(typing.cast(Any, kind), value, where=where, prefix=f"{path}.")
    for bound in bounds:
        if isinstance(bound, NamedSettings):
            return _named(bound, value, path, where)
    converted = _convert(hint, value, path, where)
    for bound in bounds:
        for item in converted if isinstance(converted, tuple) else (converted,):
            problem = "" if item is None else bound.problem(item)
            if problem:
                shown = "" if isinstance(item, Mapping) else f"={item!r}"
                raise InputError(f"{where}: {path}{shown}{problem}")
    return converted


def _of_kind(
    bound: KindOf, values: Mapping[str, Any], path: str, where: str
) -> tuple[type, dict[str, Any]]:
    name = values.get("kind", bound.default)
    if not isinstance(name, str):
        raise InputError(f"{where}: {path}.kind={name!r}: expected a value of type str")
    entry = bound.registry.get(name, where=f"{where}: {path}.kind: ")
    return settings_class(entry, bound.base), {**values, "kind": name}


def _named(bound: NamedSettings, value: Any, path: str, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: {path}={value!r}: expected names with their settings")
    out: dict[str, Any] = {}
    for name, settings in value.items():
        entry = bound.registry.get(str(name), where=f"{where}: {path}: ")
        if not isinstance(settings, Mapping):
            raise InputError(f"{where}: {path}.{name}={settings!r}: expected a group of keys")
        kind = settings_class(entry, bound.base)
        out[str(name)] = build(kind, settings, where=where, prefix=f"{path}.{name}.")
    return out


def _convert(hint: Any, value: Any, path: str, where: str) -> Any:
    def wrong(expected: str) -> InputError:
        return InputError(f"{where}: {path}={value!r}: expected {expected}")

    origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, str) and typing.get_args(hint)[0] is str:
            value = [v for v in value.split(",") if v]
        elif isinstance(value, int | float) and typing.get_args(hint)[0] in (int, float):
            value = [value]  # On the command line, a list of one is written as its item.
        if not isinstance(value, (list, tuple)):
            raise wrong("a list")
        args = typing.get_args(hint)
        if args[-1] is Ellipsis:
            return tuple(_convert(args[0], v, path, where) for v in value)
        if len(args) != len(value):
            raise wrong(f"{len(args)} values")
        return tuple(_convert(a, v, path, where) for a, v in zip(args, value, strict=True))
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise wrong("names with values")
        item = typing.get_args(hint)[1]
        return {str(k): _convert(item, v, f"{path}.{k}", where) for k, v in value.items()}
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        (hint,) = [a for a in typing.get_args(hint) if a is not type(None)]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise wrong(f"a value of type {hint.__name__}")
    if hint is float and not math.isfinite(value):
        raise wrong("a finite number")
    return value
