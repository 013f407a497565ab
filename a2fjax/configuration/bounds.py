"""Bounds that stand beside a field: `steps: Annotated[int, Positive] = 1000`.

A bound is an object with `problem(value)`, which returns "" or what follows "key=value" in the
error, and `text`, one phrase for the reference that `a2fjax config` prints. Items of a tuple are
checked one by one; None is never checked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from a2fjax.errors import nearest
from a2fjax.registry import Registry


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers between two limits.

    Example:
        >>> Positive.problem(0)
        ': expected a value above 0'
        >>> Share.problem(0.5)
        ''

    Attributes:
      low, high: limits; None for none.
      above, below: the value differs from `low`, from `high`.
      noun: what the error calls the value.
    """

    low: float | None = None
    high: float | None = None
    above: bool = False
    below: bool = False
    noun: str = "value"

    @property
    def text(self) -> str:
        """The range in a phrase."""
        return ", ".join(text.removeprefix("of ") for _, text in self._limits())

    def problem(self, value: Any) -> str:
        """Returns "" or the limit that the value violates."""
        for limit, text in self._limits():
            if not limit(value):
                return f": expected a {self.noun} {text}"
        return ""

    def _limits(self) -> list[tuple[Callable[[float], bool], str]]:
        limits: list[tuple[Callable[[float], bool], str]] = []
        low, high = self.low, self.high
        if low is not None:
            text = f"{'above' if self.above else 'of at least'} {low:g}"
            limits.append((lambda x: x > low if self.above else x >= low, text))
        if high is not None:
            text = f"{'below' if self.below else 'of at most'} {high:g}"
            limits.append((lambda x: x < high if self.below else x <= high, text))
        return limits


Positive = Range(low=0, above=True)
Width = Range(low=0, high=65_536, above=True)
"""A number of channels, beyond any network's: a run's config.json comes from anywhere."""
Depth = Range(low=0, high=1000, above=True)
"""A number of layers or of calls of a network."""
Reach = Range(low=0, high=100_000)
"""A number of frames, samples or steps that arrays have as an axis."""
NonNegative = Range(low=0)
Share = Range(low=0, high=1, noun="share")
"""A share from 0 to 1."""
ShareBelowOne = Range(low=0, high=1, below=True)
"""A share that never is everything."""


class Choice:
    """One of a few values.

    Example:
        >>> Choice("cosine", "linear").problem("cosin")
        "; did you mean 'cosine'?"
    """

    def __init__(self, *values: str) -> None:
        """Allows `values`."""
        self.values = values

    @property
    def text(self) -> str:
        """The values, quoted."""
        return ", ".join(f'"{value}"' for value in self.values)

    def problem(self, value: Any) -> str:
        """Returns "" or the nearest values."""
        return "" if value in self.values else nearest(value, self.values)


class Keys:
    """Names of a mapping, each one of a few."""

    def __init__(self, noun: str, *names: str) -> None:
        """Allows the keys `names`, which errors call `noun`."""
        self.noun, self.names = noun, names

    @property
    def text(self) -> str:
        """The names."""
        return f"keys {', '.join(self.names)}"

    def problem(self, value: Mapping[str, Any]) -> str:
        """Returns "" or the unknown key with the nearest ones."""
        for name in value:
            if name not in self.names:
                return f": unknown {self.noun} {name!r}{nearest(name, self.names)}"
        return ""


@dataclasses.dataclass(frozen=True)
class Rule:
    """A condition given by a function.

    Attributes:
      text: the condition in a phrase.
      problem: returns "" or what follows "key=value" in the error.
    """

    text: str
    problem: Callable[[Any], str]


@dataclasses.dataclass(frozen=True)
class KindOf:
    """A group of keys whose settings class is chosen by its key "kind" from a registry.

    Attributes:
      registry: where kinds are registered with their settings classes.
      base: class that every settings class extends.
      default: kind of a group that does not say.
    """

    registry: Registry
    base: type
    default: str

    @property
    def text(self) -> str:
        """The registered kinds."""
        return f"kind: {', '.join(self.registry.names())}"


@dataclasses.dataclass(frozen=True)
class NamedSettings:
    """A mapping from registered names to the settings of each.

    Attributes:
      registry: where the names are registered with their settings classes.
      base: class that every settings class extends; also what entries without one have.
    """

    registry: Registry
    base: type

    @property
    def text(self) -> str:
        """The registered names."""
        return f"names: {', '.join(self.registry.names()) or 'those of plugins'}"
