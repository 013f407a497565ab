"""Keeps secrets out of specifications, which are written to files and shown by several commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from a2fjax import printing
from a2fjax.configuration import flatten
from a2fjax.errors import InputError
from launch.jobs.spec import JobSpec


def check(spec: JobSpec) -> None:
    """Checks that nothing in a specification looks like a secret, by its name or its form.

    Raises:
      InputError: names the value, without showing it.
    """
    for where, name, value in _values(spec):
        what = printing.secret_in(name, value)
        if what:
            raise InputError(
                f"{spec.id}: {where}: looks like a secret ({what}), and specifications are written "
                "to files; set it as a variable of your environment and pass its name with --pass"
            )


def _values(spec: JobSpec) -> Iterator[tuple[str, str, Any]]:
    """Yields where a value stands, its name, and the value."""
    for what, words in (("command", spec.command), ("finalize", spec.finalize)):
        yield from _words(what, words)
    for name, value in spec.environment.items():
        yield f"environment {name}", name, value
    groups = {
        "--config": spec.overrides,
        "sweep": spec.trial or {},
        "config": (spec.config or {}).get("config", {}),
        "options": spec.options,
    }
    for group, values in groups.items():
        for key, value in flatten(dict(values)).items():
            for each in value if isinstance(value, list | tuple) else [value]:
                yield f"{group}.{key}", key, each


def _words(what: str, words: Sequence[str]) -> Iterator[tuple[str, str, Any]]:
    for number, word in enumerate(words, 1):
        name, equals, value = word.partition("=")
        where = f"word {number} of its {what}"
        yield where, "", word
        if equals:
            yield where, name, value
        elif number < len(words) and word.startswith("-"):
            yield f"word {number + 1} of its {what}", word, words[number]
