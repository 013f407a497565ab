"""Distributions from which random sweeps and tuning draw values."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable
from typing import Any

from a2fjax.errors import InputError

MOST_WHOLE = 2**53
"""Larger whole numbers are not exact in floating point."""


@dataclasses.dataclass(frozen=True)
class Space:
    """A set of values with a distribution.

    Attributes:
      kind: "float", "int" or "choice".
      low: smallest number.
      high: largest number, included.
      log: whether the logarithm is uniform.
      values: alternatives of a choice.
    """

    kind: str
    low: float = 0
    high: float = 0
    log: bool = False
    values: tuple[Any, ...] = ()

    def draws(self, count: int, seed: str) -> list[Any]:
        """Returns draws that depend only on the seed, in every version of Python."""
        stream = random.Random(seed)
        return [self.quantile(stream.random()) for _ in range(count)]

    def quantile(self, share: float) -> Any:
        """Returns the value below which `share` in [0, 1) of the distribution lies."""
        if self.kind == "choice":
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        if self.kind == "int":
            # The interval of a whole number extends by one half to both sides.
            first, last = self.low - 0.5, self.high + 0.5
            if self.log:
                value = math.exp(math.log(first) + share * (math.log(last) - math.log(first)))
            else:
                value = first + share * (last - first)
            return int(min(max(math.floor(value + 0.5), self.low), self.high))
        if self.log:
            start, end = math.log(self.low), math.log(self.high)
            return self.rounded(math.exp(start + share * (end - start)))
        return self.rounded(self.low + share * (self.high - self.low))

    def rounded(self, value: float) -> float:
        """Returns a value rounded to four digits, for readability."""
        return min(max(float(f"{value:.4g}"), self.low), self.high)


def uniform(low: float, high: float) -> Space:
    """Returns the uniform distribution between `low` and `high`.

    Raises:
      InputError: not finite numbers, or not in this order.

    Example:
        >>> uniform(0, 1).draws(2, "seed")
        [0.1382, 0.2367]
    """
    _check("uniform", low, high)
    return Space("float", float(low), float(high))


def loguniform(low: float, high: float) -> Space:
    """Returns the distribution between `low` and `high` with a uniform logarithm.

    Raises:
      InputError: not finite numbers above 0, or not in this order.
    """
    _check("loguniform", low, high)
    _above_zero("loguniform", low)
    return Space("float", float(low), float(high), log=True)


def integer(low: int, high: int, log: bool = False) -> Space:
    """Returns the distribution of whole numbers from `low` to `high`, both included.

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
    """Returns the distribution of several values with equal probability.

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
        # Check the bounds first: whole numbers can be too large for isfinite.
        if not number or not -1e300 < value < 1e300:
            raise InputError(f"{what}: {value!r}: expected a finite number")
    if low >= high:
        raise InputError(f"{what}: {low!r}, {high!r}: expected the smaller number first")


def _above_zero(what: str, low: float) -> None:
    if low <= 0:
        raise InputError(f"{what}: {low!r}: expected numbers above 0 for logarithms")
