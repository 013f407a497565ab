"""Trials, each a few configuration values by dotted key: their products, names and checks."""

from __future__ import annotations

import builtins
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import configuration
from a2fjax.errors import InputError
from launch.sweeps.spaces import SPACES, Space

Trial = dict[str, Any]

MOST = 10_000
"""Trials of a sweep at most; more is a typing error rather than a plan."""

_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_NAME_LENGTH = 60


class Sweep(list[Trial]):
    """A list of trials that combines with others: `*` gives all pairs, `+` concatenates."""

    def __mul__(self, other: object) -> Sweep:  # type: ignore[override]
        """Returns every trial of this sweep with every trial of another."""
        if not isinstance(other, list):
            return NotImplemented
        second = as_sweep(other)
        _bounded(len(self) * len(second))
        return Sweep(_merge(a, b) for a in self for b in second)

    def __add__(self, other: object) -> Sweep:  # type: ignore[override]
        """Returns the trials of this sweep, then those of another."""
        if not isinstance(other, list):
            return NotImplemented
        second = as_sweep(other)
        _bounded(len(self) + len(second))
        return Sweep([*self, *second])

    def __rmul__(self, other: object) -> Sweep:  # type: ignore[override]
        """Returns the product as `__mul__`, with a plain list of trials on the left."""
        return as_sweep(other) * self if isinstance(other, list) else NotImplemented

    def __radd__(self, other: object) -> Sweep:
        """Returns the sum as `__add__`, with a plain list of trials on the left."""
        return as_sweep(other) + self if isinstance(other, list) else NotImplemented


def grid(key: str, *values: Any) -> Sweep:
    """Makes one trial for each value of a key.

    Raises:
      InputError: an invalid key or value, or no values.

    Example:
        >>> grid("optim.learning_rate", 1e-3, 3e-4) * seeds(1)
        [{'optim.learning_rate': 0.001, 'seed': 0}, {'optim.learning_rate': 0.0003, 'seed': 0}]
    """
    check_key(key)
    if not values:
        raise InputError(f"grid: {key}: no values are given")
    return Sweep({key: _value(key, v)} for v in values)


def seeds(count: int, first: int = 0) -> Sweep:
    """Makes trials that differ in their seed.

    Raises:
      InputError: `count` is not 1 or more, or `first` below 0.
    """
    if not _is_int(count) or count < 1:
        raise InputError(f"seeds: {count!r}: expected how many, 1 or more")
    if not _is_int(first) or first < 0:
        raise InputError(f"seeds: first={first!r}: expected 0 or more")
    _bounded(count)
    return Sweep({"seed": first + i} for i in range(count))


def zip(*sweeps: Sequence[Trial]) -> Sweep:
    """Merges the first trials of all sweeps into one, then the second ones, and so on.

    Raises:
      InputError: sweeps of different lengths, or that set the same key.
    """
    lists = [as_sweep(s) for s in sweeps]
    if not lists:
        raise InputError("zip: expected sweeps, such as zip(grid(...), grid(...))")
    lengths = [len(s) for s in lists]
    if len(set(lengths)) > 1:
        raise InputError(
            f"zip: sweeps of {', '.join(map(str, lengths))} trials; expected as many in each"
        )
    out = lists[0]
    for other in lists[1:]:
        out = Sweep(_merge(a, b) for a, b in builtins.zip(out, other, strict=True))
    return out


def random(n: int, spaces: Mapping[str, Space], seed: int = 0) -> Sweep:
    """Draws `n` trials from a search space.

    The draws of a key depend on `seed`, its name and their number only: more draws continue the
    earlier ones, and another key does not change the others.

    Raises:
      InputError: `n` is below 1, or there is no key, or a key without a distribution.
    """
    if not _is_int(n) or n < 1:
        raise InputError(f"random: {n!r}: expected how many draws, 1 or more")
    if not _is_int(seed):
        raise InputError(f"random: seed={seed!r}: expected a whole number")
    _bounded(n)
    checked = space(spaces)
    draws = {k: s.draws(n, f"{seed}/{k}") for k, s in checked.items()}
    return Sweep({k: draws[k][i] for k in checked} for i in range(n))


def space(spaces: Mapping[str, Space]) -> dict[str, Space]:
    """Checks a search space and returns it.

    Raises:
      InputError: it has no key, or a key without a distribution.
    """
    if not isinstance(spaces, Mapping) or not spaces:
        raise InputError('a search space: expected such as {"optim.learning_rate": uniform(0, 1)}')
    for key, one in spaces.items():
        check_key(key)
        if not isinstance(one, Space):
            raise InputError(f"{key}: {one!r}: expected one of: {', '.join(SPACES)}")
        for value in one.values:
            _value(key, value)
    return dict(spaces)


def overrides(trial: Trial) -> dict[str, str]:
    """Returns a trial as command-line overrides; `configuration.parse_value` reads them."""
    return {k: _text(v) for k, v in trial.items()}


def key(trial: Trial) -> str:
    """Returns a digest of a trial's values, 16 hex digits, independent of their order."""
    return configuration.digest({k: _plain(v) for k, v in trial.items()})


def name(trial: Trial, among: Iterable[str] = ()) -> str:
    """Returns a short name of a trial, of letters, digits, ".", "_" and "-".

    Args:
      trial: the trial; its keys are named by their last words.
      among: keys of other trials, from which the name must distinguish them.
    """
    if not trial:
        return "base"
    every = {*trial, *among}
    words = [f"{_short(k, every)}-{_text(v)}" for k, v in sorted(trial.items())]
    text = "_".join(re.sub(r"[^A-Za-z0-9._-]+", "-", w).strip("-.") for w in words)
    if len(text) > _NAME_LENGTH:
        text = f"{text[: _NAME_LENGTH - 9].rstrip('-._')}-{key(trial)[:8]}"
    return text


def names(trials: Sequence[Trial]) -> list[str]:
    """Returns names for all trials, distinct on any file system."""
    every = {k for t in trials for k in t}
    out = [name(t, every) for t in trials]
    count: dict[str, int] = {}
    for text in out:
        count[text.lower()] = count.get(text.lower(), 0) + 1
    for i, text in enumerate(out):
        if count[text.lower()] > 1:
            out[i] = f"{text[: _NAME_LENGTH - 9]}-{key(trials[i])[:8]}"
    return out


def distinct(
    trials: Sequence[Trial], report: Callable[[str], None] = lambda line: None
) -> list[Trial]:
    """Returns the trials without repetitions; calls `report` with their number."""
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(key(trial), trial)
    again = len(trials) - len(first)
    if again:
        some = "1 trial that repeats" if again == 1 else f"{again} trials that repeat"
        report(f"sweep: left out {some} another; {len(first)} are left")
    return list(first.values())


def check(
    trials: Sequence[Trial],
    experiment: str | Path | None,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Checks that every trial is a configuration of an experiment.

    Args:
      trials: trials of a sweep.
      experiment: experiment file, as in `configuration.load`.
      settings: overrides that all trials share.

    Raises:
      InputError: names the trial, the key and the expected value; or a key is set twice.
    """
    configuration.load(experiment, settings)
    for number, trial in enumerate(trials, 1):
        for both in sorted(trial.keys() & (settings or {}).keys()):
            raise InputError(f"{both}: set by the sweep and by --config.{both}; give it once")
        try:
            configuration.load(experiment, {**(settings or {}), **overrides(trial)})
        except InputError as error:
            raise InputError(f"sweep: trial {number} of {len(trials)}: {error}") from None


def as_sweep(trials: object) -> Sweep:
    """Checks a list of trials and returns it as a sweep.

    Raises:
      InputError: names the trial, the key and the value.
    """
    if isinstance(trials, Sweep):
        return trials
    if not isinstance(trials, list | tuple):
        raise InputError(f"{trials!r}: expected a sweep or a list of trials")
    _bounded(len(trials))
    out = Sweep()
    for number, trial in enumerate(trials, 1):
        if not isinstance(trial, Mapping):
            raise InputError(f'trial {number}: {trial!r}: expected such as {{"seed": 1}}')
        for label in trial:
            check_key(label)
        out.append({k: _value(k, v) for k, v in trial.items()})
    return out


def _merge(first: Trial, second: Trial) -> Trial:
    for label in second:
        for other in first:
            if label == other:
                raise InputError(f"{label}: set by two of the sweeps that are joined")
            if f"{label}.".startswith(f"{other}.") or f"{other}.".startswith(f"{label}."):
                raise InputError(f"{label} and {other}: one is a group that holds the other")
    return {**first, **second}


def _bounded(count: int) -> None:
    if count > MOST:
        raise InputError(f"{count} trials; expected at most {MOST}")


def check_key(key: Any) -> None:
    """Checks a dotted key.

    Raises:
      InputError: it is not valid.
    """
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InputError(f'{key!r}: expected a key such as "optim.learning_rate"')


def _value(key: str, value: Any) -> Any:
    """Returns a value as plain Python, after checking that the command line can express it."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if value is None or isinstance(value, bool | int | str):
        if isinstance(value, str) and "\0" in value:
            raise InputError(f"{key}: {value!r} holds a NUL")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{key}: {value!r}: expected a finite number")
        return value
    if isinstance(value, list | tuple):
        return type(value)(_value(key, v) for v in value)
    if isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return {k: _value(key, v) for k, v in value.items()}
    raise InputError(
        f"{key}: {value!r}: expected a number, text, true, false, None or a list of them"
    )


def _text(value: Any) -> str:
    """Returns the text that `configuration.parse_value` reads as `value`."""
    if isinstance(value, str) and configuration.parse_value(value) == value:
        return value
    return repr(value)


def _plain(value: Any) -> Any:
    """Returns a value such that equivalent values are equal."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _short(key: str, every: Iterable[str]) -> str:
    """Returns the fewest last words of a key that distinguish it from all others."""
    words = key.split(".")
    for count in range(1, len(words)):
        tail = "." + ".".join(words[-count:])
        if not any(k != key and f".{k}".endswith(tail) for k in every):
            return tail[1:]
    return key


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
