"""What a value may be drawn from; for random sweeps and for tuning alike."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

from a2fjax.errors import InputError

MOST_WHOLE = 2**53
"""Whole numbers beyond it are not exact as floating-point ones."""


@dataclasses.dataclass(frozen=True)
class Space:
    """A set of values with a distribution.

    Attributes:
      kind: "float", "int" or "choice".
      low: smallest number.
      high: largest number, included.
      log: whether the logarithm is uniform.
      values: of a choice.
    """

    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    values: tuple[Any, ...] = ()

    def draws(self, count: int, seed: str) -> list[Any]:
        """Returns draws, the same for the same seed in every version of Python."""
        stream = random.Random(seed)
        return [self.at(stream.random()) for _ in range(count)]

    def at(self, share: float) -> Any:
        """Returns the value below which a share in [0, 1) of the distribution lies."""
        if self.kind == "choice":
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.kind == "int":
            # The borders of the cells of the first and last number are half a number away.
            first, last = self.low - 0.5, self.high + 0.5
            if self.log:
                found = math.exp(math.log(first) + share * (math.log(last) - math.log(first)))
            else:
                found = first + share * (last - first)
            return int(min(max(math.floor(found + 0.5), self.low), self.high))
        if self.log:
            start, end = math.log(self.low), math.log(self.high)
            return self.rounded(math.exp(start + share * (end - start)))
        return self.rounded(self.low + share * (self.high - self.low))

    def rounded(self, value: float) -> float:
        """Returns a value with four digits, which people can read, say and type again."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


def uniform(low: float, high: float) -> Space:
    """Returns numbers between two others.

    Raises:
      InputError: not finite numbers, or not in this order.
    """
    _check("uniform", low, high)
    return Space("float", float(low), float(high))


def loguniform(low: float, high: float) -> Space:
    """Returns numbers between two others, each order of magnitude as likely.

    Raises:
      InputError: not finite numbers above 0, or not in this order.
    """
    _check("loguniform", low, high)
    _above_zero("loguniform", low)
    return Space("float", float(low), float(high), log=True)


def integer(low: int, high: int, log: bool = False) -> Space:
    """Returns whole numbers between two others, both included.

    Raises:
      InputError: not whole numbers, not in this order, or with `log` not above 0.
    """
    for value in (low, high):
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > MOST_WHOLE:
            raise InputError(f"integer: {value!r}: expected a whole number")
    if not isinstance(log, bool):
        raise InputError(f"integer: log={log!r}: expected True or False")
    _check("integer", low, high)
    if log:
        _above_zero("integer", low)
    return Space("int", low, high, log=log)


def choice(*values: Any) -> Space:
    """Returns one of some values, each as likely.

    Raises:
      InputError: no values.
    """
    if not values:
        raise InputError("choice: no values are given")
    return Space("choice", values=values)


SPACES: dict[str, tuple[Callable[..., Space], str]] = {
    "uniform": (uniform, "uniform(LOW, HIGH)"),
    "loguniform": (loguniform, "loguniform(LOW, HIGH)"),
    "integer": (integer, "integer(LOW, HIGH, log=False)"),
    "choice": (choice, "choice(VALUE, ...)"),
}


def _check(what: str, low: Any, high: Any) -> None:
    for value in (low, high):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Bounds first: whole numbers can be too large for isfinite.
        if not number or not -1e300 < value < 1e300:
            raise InputError(f"{what}: {value!r}: expected a finite number")
    if low >= high:
        raise InputError(f"{what}: {low!r}, {high!r}: expected the smaller number first")


def _above_zero(what: str, low: float) -> None:
    if low <= 0:
        raise InputError(f"{what}: {low!r}: expected numbers above 0 for logarithms")
