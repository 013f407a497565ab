"""Every key of a configuration with its type, default, meaning and bounds."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from a2fjax.configuration.bounds import NamedSettings
from a2fjax.configuration.build import split_hint


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a configuration.

    Attributes:
      name: dotted path.
      value: its value.
      default: value that it has where nothing sets it.
      type: its type as written.
      meaning: what it does.
      bounds: values that it may have, in a phrase; "" for all of its type.
    """

    name: str
    value: Any
    default: Any
    type: str
    meaning: str
    bounds: str


def meanings(kind: type) -> dict[str, str]:
    """Returns the meaning of each field, from "Attributes:" of the docstrings of class and bases.

    Example:
        >>> from a2fjax.configuration import EvalConfig
        >>> meanings(EvalConfig)["batches"]
        'number of batches.'
    """
    out: dict[str, str] = {}
    for cls in reversed(kind.__mro__):
        doc = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
        _, found, section = doc.partition("\nAttributes:\n")
        if not found:
            continue
        for block in re.split(r"\n(?=  \w)", "\n" + section.split("\n\n")[0]):
            names, colon, text = block.strip().partition(": ")
            if colon:
                meaning = " ".join(text.split())
                out |= dict.fromkeys((name.strip() for name in names.split(",")), meaning)
    return out


def keys(config: Any, prefix: str = "") -> Iterator[Key]:
    """Yields every key of a configuration or one of its groups, in the order of the classes.

    Args:
      config: a settings dataclass with its values.
      prefix: dotted path of the group, with its final dot.
    """
    kind = type(config)
    text, hints = meanings(kind), typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(config):
        hint, bounds = split_hint(hints[field.name])
        value, name = getattr(config, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from keys(value, f"{name}.")
            continue
        named = [bound for bound in bounds if isinstance(bound, NamedSettings)]
        if named and value:
            for item, settings in value.items():
                yield from keys(settings, f"{name}.{item}.")
            continue
        yield Key(
            name=name,
            value=value,
            default=_default(field),
            type=_type_name(hint),
            meaning=text.get(field.name, ""),
            bounds=", ".join(bound.text for bound in bounds),
        )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _type_name(hint: Any) -> str:
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return hint.__name__
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(hint))
