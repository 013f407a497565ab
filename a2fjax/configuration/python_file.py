"""Runs Python files of users, experiments and sweeps; an error in one becomes one line."""

from __future__ import annotations

import contextlib
import importlib.util
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from a2fjax import budgets
from a2fjax.errors import InputError, nearest


def load(path: Path, kind: str) -> ModuleType:
    """Runs a user's Python file, which stays out of `sys.modules`; returns what it defines.

    Args:
      path: the file.
      kind: noun for messages: "experiment", "sweep".

    Raises:
      InputError: the file does not exist (names the nearest) or fails (names the line).
    """
    if not path.is_file():
        near = sorted(str(p) for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        raise InputError(f"{kind} file {str(path)!r} not found{nearest(str(path), near)}")
    spec = importlib.util.spec_from_file_location(f"{kind}_{path.stem}", path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    with guarded(path):
        # Python's own loader would write bytecode beside the file, and run that instead of a file
        # that has changed within the same second.
        exec(compile(budgets.read_bytes(path), str(path), "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turns whatever a user's Python file raises into one line with its name and line.

    Raises:
      InputError: the code in the block raised.
    """
    try:
        yield
    except InputError as error:
        text = str(error)
        raise error if text.startswith(str(path)) else InputError(f"{path}: {text}") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - any failure of the file is the user's
        line = None
        if isinstance(error, SyntaxError):
            line = error.lineno
        else:
            for frame in traceback.extract_tb(error.__traceback__):
                line = frame.lineno if frame.filename == str(path) else line
        where = f", line {line}" if line else ""
        raise InputError(f"{path}{where}: {type(error).__name__}: {error}") from None
