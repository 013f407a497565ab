"""Reads sweeps from text: command-line expressions, or functions of a Python file.

`parse` accepts an expression such as `grid("optim.learning_rate", 1e-3, 3e-4) * seeds(3)` (in the
forms of `launch.sweeps`), or a file: `file.py` for the result of its `sweep()`, `file.py:name`
for another function. Expressions are parsed, never executed.
"""

from __future__ import annotations

import ast
import builtins
import functools
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from a2fjax.configuration import python_file
from a2fjax.errors import InputError, nearest
from launch.sweeps.spaces import SPACES, Space
from launch.sweeps.sweep import (
    Sweep,
    Trial,
    as_sweep,
    check_key,
    distinct,
    grid,
    random,
    seeds,
    zip,
)

_FILE = re.compile(r"(.+\.py)(?::(\w*))?", re.DOTALL)


def parse(text: str, report: Callable[[str], None] = lambda line: None) -> list[Trial]:
    """Reads the trials of an expression or of a file, without repetitions.

    Args:
      text: an expression as above, "file.py" or "file.py:function".
      report: called with a line if duplicate trials were dropped.

    Raises:
      InputError: names the mistake and its position.
    """
    if not text.strip():
        raise InputError('sweep: empty; expected such as grid("optim.learning_rate", 1e-3, 3e-4)')
    file = _FILE.fullmatch(text.strip())
    trials = _from_file(file[1], file[2]) if file else _Reader(text).sweep()
    if not trials:
        raise InputError(f"sweep {_shown(text)}: no trials")
    return distinct(trials, report)


def parse_space(text: str) -> dict[str, Space]:
    """Reads a search space: {"KEY": loguniform(LOW, HIGH), ...}.

    Raises:
      InputError: names the mistake and its position.
    """
    return _Reader(text).space()


class _Booleans(ast.NodeTransformer):
    """Accepts true and false, as command-line overrides do."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in ("true", "false"):
            return node
        return ast.copy_location(ast.Constant(node.id == "true"), node)


class _Reader:
    """Reads the syntax tree of an expression; any unknown node is an error."""

    def __init__(self, text: str) -> None:
        # An expression may span several lines.
        self._text = " ".join(text.split("\n")).strip()

    def sweep(self) -> Sweep:
        return self._read(self._sweep)

    def space(self) -> dict[str, Space]:
        return self._read(self._space)

    def _read(self, read: Callable[[ast.expr], Any]) -> Any:
        try:
            tree = ast.parse(self._text, mode="eval").body
        except SyntaxError as error:
            where = f", at character {error.offset}" if error.offset else ""
            raise InputError(f"sweep {_shown(self._text)}{where}: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"sweep {_shown(self._text)}: {error or 'too deep'}") from None
        try:
            return read(_Booleans().visit(tree))
        except RecursionError:
            raise InputError(f"sweep {_shown(self._text)}: too deep") from None

    def _wrong(self, node: ast.AST, message: object) -> InputError:
        position = getattr(node, "col_offset", 0) + 1
        return InputError(f"sweep {_shown(self._text)}, at character {position}: {message}")

    def _sweep(self, node: ast.expr) -> Sweep:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Add):
            left, right = self._sweep(node.left), self._sweep(node.right)
            join = operator.mul if isinstance(node.op, ast.Mult) else operator.add
            return self._located(node, lambda: join(left, right))
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.List):
            trials = [self._literal(item) for item in node.elts]
            return self._located(node, lambda: as_sweep(trials))
        if isinstance(node, ast.Name) and node.id in _FORMS:
            raise self._wrong(node, f"expected {_FORMS[node.id][1]}")
        raise self._wrong(
            node,
            f"expected sweeps joined by * or +, each of: {', '.join(_FORMS)} or [{{...}}, ...]",
        )

    def _located(self, node: ast.AST, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except InputError as error:
            raise self._wrong(node, error) from None

    def _call(self, node: ast.Call) -> Sweep:
        called = node.func.id if isinstance(node.func, ast.Name) else "..."
        if called not in _FORMS:
            near = nearest(called, _FORMS) if called != "..." else ""
            raise self._wrong(node, f"{called}(...) is not a sweep{near}")
        function, form = _FORMS[called]
        read = self._sweep if called == "zip" else self._literal
        arguments = [
            self._space(a) if called == "random" and i == 1 else read(a)
            for i, a in enumerate(self._plain(node.args))
        ]
        given = {k.arg: self._named(called, k) for k in node.keywords if k.arg}
        if len(given) < len(node.keywords):
            raise self._wrong(node, "** is not valid here")
        return self._called(node, function, form, arguments, given)

    def _called(self, node: ast.AST, function: Any, form: str, args: list[Any], named: Any) -> Any:
        try:
            return self._located(node, lambda: function(*args, **named))
        except TypeError:
            raise self._wrong(node, f"expected {form}") from None

    def _named(self, called: str, item: ast.keyword) -> Any:
        if called == "random" and item.arg == "spaces":
            return self._space(item.value)
        return self._literal(item.value)

    def _plain(self, nodes: list[ast.expr]) -> list[ast.expr]:
        for node in nodes:
            if isinstance(node, ast.Starred):
                raise self._wrong(node, "* before a value is not valid here")
        return nodes

    def _space(self, node: ast.expr) -> dict[str, Space]:
        if not isinstance(node, ast.Dict):
            raise self._wrong(node, f"expected {_FORMS['random'][1]}")
        out: dict[str, Space] = {}
        for name, value in builtins.zip(node.keys, node.values, strict=True):
            if name is None:
                raise self._wrong(value, "** is not valid here")
            word = ""
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                word = value.func.id
            if word not in SPACES or not isinstance(value, ast.Call):
                near = nearest(word, SPACES)
                raise self._wrong(value, f"{ast.unparse(value)} is not a distribution{near}")
            make, form = SPACES[word]
            read = [self._literal(a) for a in self._plain(value.args)]
            named = {k.arg: self._literal(k.value) for k in value.keywords if k.arg}
            label = self._literal(name)
            self._located(name, functools.partial(check_key, label))
            if label in out:
                raise self._wrong(name, f"{label}: given twice")
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
            text = ast.unparse(node)
            quoted = f'; write "{text}" for text' if isinstance(node, ast.Name) else ""
            raise self._wrong(node, f"{text}: expected a value{quoted}") from None


_FORMS: dict[str, tuple[Callable[..., Sweep], str]] = {
    "grid": (grid, 'grid("KEY", VALUE, ...)'),
    "zip": (zip, "zip(SWEEP, SWEEP, ...)"),
    "random": (random, 'random(N, {"KEY": loguniform(LOW, HIGH), ...}, seed=0)'),
    "seeds": (seeds, "seeds(N, first=0)"),
}


def _from_file(file: str, function: str | None) -> Sweep:
    path, wanted = Path(file), function or "sweep"
    module = python_file.load(path, "sweep")
    made = getattr(module, wanted, None)
    if not callable(made):
        name = module.__name__
        functions = [k for k, v in vars(module).items() if getattr(v, "__module__", "") == name]
        raise InputError(f"{file}: no function {wanted}(){nearest(wanted, functions)}")
    with python_file.guarded(path):
        trials = made()
    if not isinstance(trials, Iterable) or isinstance(trials, str | Mapping):
        raise InputError(
            f"{file}: {wanted}() returned {type(trials).__name__}, expected a list of trials"
        )
    try:
        return as_sweep(list(trials))
    except InputError as error:
        raise InputError(f"{file}: {wanted}(): {error}") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
