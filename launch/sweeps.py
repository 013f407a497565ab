"""Sweeps: lists of trials, each a few configuration values by dotted key, and how they are written.

The same words make a sweep in Python and on the command line:

    grid("optim.learning_rate", 1e-3, 3e-4)       a trial a value
    seeds(3)                                      seed = 0, 1, 2
    A * B                                         every trial of A with every trial of B
    A + B                                         the trials of A, then those of B
    zip(A, B)                                     the first of A with the first of B, and so on
    random(20, {"optim.learning_rate": loguniform(1e-4, 1e-2), "model.dropout": uniform(0, 0.3)})
                                                  20 draws; also integer(1, 9), choice("x", "y")
    [{"loss.velocity": 2, "seed": 1}, {}]         trials one by one; {} is the experiment as it is

`parse` reads such an expression, or asks a Python file: `file.py` for what its `sweep()` returns,
`file.py:name` for that of another function. Nothing of an expression is ever run as code.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import math
import operator
import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import config
from a2fjax.errors import InputError, nearest
from launch.spaces import SPACES, Space, choice, integer, loguniform, uniform

__all__ = [
    "MOST",
    "Sweep",
    "Trial",
    "check",
    "choice",
    "distinct",
    "grid",
    "integer",
    "key",
    "loguniform",
    "name",
    "names",
    "overrides",
    "parse",
    "random",
    "seeds",
    "space",
    "uniform",
    "zip",
]

Trial = dict[str, Any]

MOST = 10_000
"""Trials of a sweep; more is a slip of the keyboard rather than a plan."""

_KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
_FILE = re.compile(r"(.+\.py)(?::(\w*))?", re.DOTALL)
_NAME_LENGTH = 60


class Sweep(list[Trial]):
    """Trials that can be joined with others: `*` for all pairs, `+` for one after another."""

    def __mul__(self, other: object) -> Sweep:  # type: ignore[override]
        """Returns every trial of this sweep with every trial of another."""
        if not isinstance(other, list):
            return NotImplemented
        second = _sweep(other)
        _bounded(len(self) * len(second))
        return Sweep(_merge(a, b) for a in self for b in second)

    def __add__(self, other: object) -> Sweep:  # type: ignore[override]
        """Returns the trials of this sweep, then those of another."""
        if not isinstance(other, list):
            return NotImplemented
        second = _sweep(other)
        _bounded(len(self) + len(second))
        return Sweep([*self, *second])

    def __rmul__(self, other: object) -> Sweep:  # type: ignore[override]
        """As `__mul__`, with a plain list of trials before it."""
        return _sweep(other) * self if isinstance(other, list) else NotImplemented

    def __radd__(self, other: object) -> Sweep:
        """As `__add__`, with a plain list of trials before it."""
        return _sweep(other) + self if isinstance(other, list) else NotImplemented


def grid(key: str, *values: Any) -> Sweep:
    """Returns a trial for each value of a key.

    Raises:
      InputError: not a key, no values, or something that is no value.
    """
    _check_key(key)
    if not values:
        raise InputError(f"grid: {key}: no values are given")
    return Sweep({key: _value(key, v)} for v in values)


def seeds(count: int, first: int = 0) -> Sweep:
    """Returns trials that differ in their seed.

    Raises:
      InputError: `count` is not 1 or more, or `first` below 0.
    """
    if not _is_int(count) or count < 1:
        raise InputError(f"seeds: {count!r}: expected how many, 1 or more")
    if not _is_int(first) or first < 0:
        raise InputError(f"seeds: first={first!r}: expected 0 or more")
    _bounded(count)
    return Sweep({"seed": first + i} for i in range(count))


def zip(*parts: Sequence[Trial]) -> Sweep:
    """Returns the first trials of all parts as one trial, the second ones, and so on.

    Raises:
      InputError: parts of different lengths, or which set the same key.
    """
    sweeps = [_sweep(p) for p in parts]
    if not sweeps:
        raise InputError("zip: expected sweeps, such as zip(grid(...), grid(...))")
    lengths = [len(s) for s in sweeps]
    if len(set(lengths)) > 1:
        raise InputError(
            f"zip: sweeps of {', '.join(map(str, lengths))} trials; expected as many in each"
        )
    out = sweeps[0]
    for other in sweeps[1:]:
        out = Sweep(_merge(a, b) for a, b in builtins.zip(out, other, strict=True))
    return out


def random(n: int, spaces: Mapping[str, Space], seed: int = 0) -> Sweep:
    """Returns `n` draws from a search space.

    A key's draws depend on `seed`, its name and their number only: more draws continue those
    before, and another key changes nothing of the others.

    Raises:
      InputError: `n` is not 1 or more, no key, or a key without a space.
    """
    if not _is_int(n) or n < 1:
        raise InputError(f"random: {n!r}: expected how many draws, 1 or more")
    if not _is_int(seed):
        raise InputError(f"random: seed={seed!r}: expected a whole number")
    _bounded(n)
    found = space(spaces)
    draws = {k: s.draws(n, f"{seed}/{k}") for k, s in found.items()}
    return Sweep({k: draws[k][i] for k in found} for i in range(n))


def space(spaces: Mapping[str, Space]) -> dict[str, Space]:
    """Returns a search space after checking it.

    Raises:
      InputError: it has no key, or a key without a space.
    """
    if not isinstance(spaces, Mapping) or not spaces:
        raise InputError('a search space: expected such as {"optim.learning_rate": uniform(0, 1)}')
    for key, found in spaces.items():
        _check_key(key)
        if not isinstance(found, Space):
            raise InputError(f"{key}: {found!r}: expected one of: {', '.join(SPACES)}")
        for value in found.values:
            _value(key, value)
    return dict(spaces)


def overrides(trial: Trial) -> dict[str, str]:
    """Returns a trial as the command line's overrides; `config.parse_value` reads them back."""
    return {k: _text(v) for k, v in trial.items()}


def key(trial: Trial) -> str:
    """Returns 16 hex digits of what a trial sets, in whatever order it says so."""
    return config.digest({k: _plain(v) for k, v in trial.items()})


def name(trial: Trial, among: Iterable[str] = ()) -> str:
    """Returns a short name of what a trial sets, of letters, digits, ".", "_" and "-".

    Args:
      trial: of which; keys are named by their last words.
      among: keys that those of the trial must not be taken for.
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
    """Returns names of all trials, of which no two are the same, on any file system."""
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
    trials: Sequence[Trial], say: Callable[[str], None] = lambda line: None
) -> list[Trial]:
    """Returns the trials without those that repeat an earlier one; `say` is told how many."""
    first: dict[str, Trial] = {}
    for trial in trials:
        first.setdefault(key(trial), trial)
    again = len(trials) - len(first)
    if again:
        some = "1 trial that repeats" if again == 1 else f"{again} trials that repeat"
        say(f"sweep: left out {some} another; {len(first)} are left")
    return list(first.values())


def check(
    trials: Sequence[Trial],
    experiment: str | Path | None,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Checks that every trial is a configuration of an experiment.

    Args:
      trials: of a sweep.
      experiment: file, as of `config.load`.
      settings: overrides that all trials have in common.

    Raises:
      InputError: names the trial, the key and what was expected; or a key is set twice.
    """
    config.load(experiment, settings)
    for number, trial in enumerate(trials, 1):
        for both in sorted(trial.keys() & (settings or {}).keys()):
            raise InputError(f"{both}: set by the sweep and by --config.{both}; say it once")
        try:
            config.load(experiment, {**(settings or {}), **overrides(trial)})
        except InputError as error:
            raise InputError(f"sweep: trial {number} of {len(trials)}: {error}") from None


def parse(text: str, say: Callable[[str], None] = lambda line: None) -> list[Trial]:
    """Returns the trials of an expression or of a file, without repetitions.

    Args:
      text: an expression as above, "file.py" or "file.py:function".
      say: takes a remark on what was left out.

    Raises:
      InputError: says what is wrong and where.
    """
    if not text.strip():
        raise InputError('sweep: empty; expected such as grid("optim.learning_rate", 1e-3, 3e-4)')
    file = _FILE.fullmatch(text.strip())
    found = _from_file(file[1], file[2]) if file else _Reader(text).sweep()
    if not found:
        raise InputError(f"sweep {_shown(text)}: no trials")
    return distinct(found, say)


class _Booleans(ast.NodeTransformer):
    """Reads true and false as the command line's overrides do."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in ("true", "false"):
            return node
        return ast.copy_location(ast.Constant(node.id == "true"), node)


class _Reader:
    """Walks the syntax tree of an expression; what is not on its lists is an error."""

    def __init__(self, text: str) -> None:
        # One may be written over several lines.
        self._text = " ".join(text.split("\n")).strip()

    def sweep(self) -> Sweep:
        try:
            tree = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            where = f", at character {error.offset}" if error.offset else ""
            raise InputError(f"sweep {_shown(self._text)}{where}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"sweep {_shown(self._text)}: {error or 'too deep'}") from None
        try:
            return self._sweep(_Booleans().visit(tree))
        except RecursionError:
            raise InputError(f"sweep {_shown(self._text)}: too deep") from None

    def _wrong(self, node: ast.AST, message: object) -> InputError:
        place = getattr(node, "col_offset", 0) + 1
        return InputError(f"sweep {_shown(self._text)}, at character {place}: {message}")

    def _sweep(self, node: ast.expr) -> Sweep:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Add):
            left, right = self._sweep(node.left), self._sweep(node.right)
            join = operator.mul if isinstance(node.op, ast.Mult) else operator.add
            return self._told(node, lambda: join(left, right))
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.List):
            found = [self._literal(item) for item in node.elts]
            return self._told(node, lambda: _sweep(found))
        if isinstance(node, ast.Name) and node.id in _FORMS:
            raise self._wrong(node, f"expected {_FORMS[node.id][1]}")
        raise self._wrong(
            node,
            f"expected sweeps joined by * or +, each of: {', '.join(_FORMS)} or [{{...}}, ...]",
        )

    def _told(self, node: ast.AST, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except InputError as error:
            raise self._wrong(node, error) from None

    def _call(self, node: ast.Call) -> Sweep:
        called = node.func.id if isinstance(node.func, ast.Name) else "..."
        if called not in _FORMS:
            near = nearest(called, _FORMS) if called != "..." else ""
            raise self._wrong(node, f"{called}(...) is no sweep{near}")
        function, form = _FORMS[called]
        read = self._sweep if called == "zip" else self._literal
        arguments = [
            self._space(a) if called == "random" and i == 1 else read(a)
            for i, a in enumerate(self._plain(node.args))
        ]
        given = {k.arg: self._named(called, k) for k in node.keywords if k.arg}
        if len(given) < len(node.keywords):
            raise self._wrong(node, "** is not understood here")
        return self._called(node, function, form, arguments, given)

    def _called(self, node: ast.AST, function: Any, form: str, args: list[Any], named: Any) -> Any:
        try:
            return self._told(node, lambda: function(*args, **named))
        except TypeError:
            raise self._wrong(node, f"expected {form}") from None

    def _named(self, called: str, item: ast.keyword) -> Any:
        if called == "random" and item.arg == "spaces":
            return self._space(item.value)
        return self._literal(item.value)

    def _plain(self, nodes: list[ast.expr]) -> list[ast.expr]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                raise self._wrong(node, "* before a value is not understood here")
        return nodes

    def _space(self, node: ast.expr) -> dict[str, Space]:
        if not isinstance(node, ast.Dict):
            raise self._wrong(node, f"expected {_FORMS['random'][1]}")
        out: dict[str, Space] = {}
        for said, value in builtins.zip(node.keys, node.values, strict=True):
            if said is None:
                raise self._wrong(value, "** is not understood here")
            word = ""
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                word = value.func.id
            if word not in SPACES or not isinstance(value, ast.Call):
                near = nearest(word, SPACES)
                raise self._wrong(value, f"{ast.unparse(value)} is no space to draw from{near}")
            make, form = SPACES[word]
            read = [self._literal(a) for a in self._plain(value.args)]
            named = {k.arg: self._literal(k.value) for k in value.keywords if k.arg}
            label = self._literal(said)
            self._told(said, functools.partial(_check_key, label))
            if label in out:
                raise self._wrong(said, f"{label}: given twice")
            out[label] = self._called(value, make, form, read, named)
        return out

    def _literal(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Dict) and None not in node.keys:
            labels = [self._literal(k) for k in node.keys if k is not None]
            twice = [k for k in labels if labels.count(k) > 1]
            if twice:
                raise self._wrong(node, f"{twice[0]}: given twice")
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            said = ast.unparse(node)
            quoted = f'; write "{said}" for text' if isinstance(node, ast.Name) else ""
            raise self._wrong(node, f"{said}: expected a value{quoted}") from None


_FORMS: dict[str, tuple[Callable[..., Sweep], str]] = {
    "grid": (grid, 'grid("KEY", VALUE, ...)'),
    "zip": (zip, "zip(SWEEP, SWEEP, ...)"),
    "random": (random, 'random(N, {"KEY": loguniform(LOW, HIGH), ...}, seed=0)'),
    "seeds": (seeds, "seeds(N, first=0)"),
}


def _from_file(file: str, function: str | None) -> Sweep:
    path, wanted = Path(file), function or "sweep"
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise InputError(f"sweep file {file!r} not found{nearest(file, near)}")
    spec = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        made = getattr(module, wanted, None)
        if not callable(made):
            own = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == spec.name]
            raise InputError(f"{file}: no function {wanted}(){nearest(wanted, own)}")
        found = made()
    except InputError as error:
        raise error if str(error).startswith(file) else InputError(f"{file}: {error}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any failure of the file is the user's
        line = _line_of(error, path)
        raise InputError(f"{file}{line}: {type(error).__name__}: {error}") from None
    if not isinstance(found, Iterable) or isinstance(found, str | Mapping):
        raise InputError(
            f"{file}: {wanted}() gave {type(found).__name__}, expected a list of trials"
        )
    try:
        return _sweep(list(found))
    except InputError as error:
        raise InputError(f"{file}: {wanted}(): {error}") from None


def _line_of(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}" if error.lineno else ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""


def _sweep(trials: object) -> Sweep:
    """Returns a list of trials after checking what is in it."""
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
            _check_key(label)
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


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise InputError(f'{key!r}: expected a key such as "optim.learning_rate"')


def _value(key: str, value: Any) -> Any:
    """Returns a value as plain Python, after checking that the command line can say it."""
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
    """Returns what `config.parse_value` reads as `value`."""
    if isinstance(value, str) and config.parse_value(value) == value:
        return value
    return repr(value)


def _plain(value: Any) -> Any:
    """Returns a value such that those that configure the same are the same."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return value


def _short(key: str, every: Iterable[str]) -> str:
    """Returns the last words of a key, as many as tell it from all others."""
    words = key.split(".")
    for count in range(1, len(words)):
        tail = "." + ".".join(words[-count:])
        if not any(k != key and f".{k}".endswith(tail) for k in every):
            return tail[1:]
    return key


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
