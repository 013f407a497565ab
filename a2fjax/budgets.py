"""Budgets of what a file may ask for, checked before anything is allocated or walked.

A few kilobytes can state terabytes: compressed zeros, nested lists, a count in a header. Readers of
files from outside go through the functions here. `DEFAULTS` holds the budgets; the environment
variable A2F_BUDGET_<NAME> changes one, for every command and every process of a job.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import tomllib
from itertools import accumulate
from pathlib import Path
from typing import Any

from a2fjax.errors import InputError

PREFIX = "A2F_BUDGET_"

DEFAULTS: dict[str, tuple[float, str]] = {
    "text_mb": (512, "MB in a text file (JSON, CSV, TOML, OBJ, PLY)"),
    "file_gb": (64, "GB in one file of a capture"),
    "values_millions": (25, "million values in a text file"),
    "json_depth": (64, "levels of nesting in JSON and TOML"),
    "unpacked_gb": (16, "GB that one file unpacks to"),
    "unpacked_ratio": (100, "times the size of the file, where that is more than 256 MB"),
    "members": (100_000, "members of an archive"),
    "frames_millions": (2, "million frames of one track"),
    "layers": (512, "layers of a network or of a USD scene"),
    "nodes": (100_000, "prims of a USD scene or objects of a glTF document"),
    "audio_hours": (24, "h of a recording"),
    "audio_hours_in_memory": (4, "h of a recording that is held in memory, such as a take"),
    "usd_seconds": (20, "s to compose a USD scene, and 1 s more for each 10 MB"),
    "usd_gb": (2, "GB of memory to compose a USD scene, and three times its size"),
}
"""Budgets by name: the default, and what it counts."""

_UNPACKED_FREELY = 256e6  # bytes
_SEPARATORS = (b",", b";", b"\t", b" ", b"\n")
_NO_MARKS = bytes(sorted(set(range(256)) - set(b"[]{},")))
_SQUARE = bytes.maketrans(b"{}", b"[]")
_ROUNDS = 64
_ONLY_DIGITS = bytes(ord("0") if 48 <= b < 58 else 32 for b in range(256))
_LONG = b"0" * 19
"""So many digits may not fit into 64 bits."""

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def budget(name: str) -> float:
    """Returns a budget: the value of its environment variable, else its default.

    Example:
        >>> budget("json_depth")
        64

    Raises:
      InputError: the variable is not a number above 0.
    """
    variable = PREFIX + name.upper()
    text = os.environ.get(variable)
    if text is None:
        return DEFAULTS[name][0]
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise InputError(f"{variable}={text!r}: expected a number above 0")
    return value


def check(name: str, value: float, where: str | Path) -> None:
    """Checks a size against a budget.

    Args:
      name: one of `DEFAULTS`.
      value: in the unit of the budget.
      where: file, for the message.

    Raises:
      InputError: the size exceeds the budget; names the variable that raises it.
    """
    most = budget(name)
    if value > most:
        raise InputError(
            f"{where}: has {value:.6g}, expected at most {most:g} {DEFAULTS[name][1]}; "
            f"{PREFIX}{name.upper()} sets the limit"
        )


def check_unpacked(unpacked: float, stored: float, where: str | Path) -> None:
    """Checks bytes that a file of `stored` bytes unpacks to, in all and as a ratio.

    Raises:
      InputError: too much for any file, or for one of this size.
    """
    check("unpacked_gb", unpacked / 1e9, where)
    if unpacked > _UNPACKED_FREELY:
        check("unpacked_ratio", unpacked / max(stored, 1), where)


def regular_file(path: str | Path) -> Path:
    """Returns a path after checking that it names a file that can be read.

    Pipes, sockets and devices are refused: opening one can wait forever, or never end.

    Raises:
      InputError: no such file, no permission, a name that cannot be, or not a file.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        shown = str(path) if len(str(path)) < 300 else f"{str(path)[:200]}..."
        raise InputError(f"{shown}: cannot be read ({error.strerror or error})") from None
    except ValueError:
        raise InputError(f"{str(path)!r}: not a name that a file can have") from None
    if not stat.S_ISREG(mode):
        kind = next((kind for test, kind in _KINDS if test(mode)), "not a file")
        raise InputError(f"{path}: is {kind}, expected a file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: cannot be read (no permission)")
    return path


def read_bytes(path: str | Path) -> bytes:
    """Returns the content of a file that is parsed as a whole.

    Raises:
      InputError: as `regular_file`, or larger than the budget `text_mb`.
    """
    path = regular_file(path)
    check("text_mb", path.stat().st_size / 1e6, path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_tail(path: str | Path, size: int) -> bytes:
    """Returns at most the last `size` bytes of a file, such as a log that grows.

    Raises:
      InputError: as `regular_file`.
    """
    path = regular_file(path)
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            return file.read(size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def read_table(path: str | Path) -> bytes:
    """Returns the content of a table, such as CSV or OBJ, after counting its cells.

    Raises:
      InputError: as `read_bytes`, or more cells than the budget `values_millions`.
    """
    data = read_bytes(path)
    check("values_millions", sum(data.count(mark) for mark in _SEPARATORS) / 1e6, path)
    return data


def load_json(path: str | Path) -> Any:
    """Returns the content of a JSON file in UTF-8, UTF-16 or UTF-32.

    Raises:
      InputError: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path), name=str(path))


def parse_json(text: str | bytes, *, name: str) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: the text, or its bytes.
      name: file name for messages.

    Raises:
      InputError: not JSON; more values or levels than the budgets; a whole number that 64 bits do
        not hold; half of a surrogate pair, which cannot be written anywhere.

    Example:
        >>> parse_json("[" * 100_000, name="deep.json")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: deep.json: has 100000, expected at most 64 levels of nesting in \
JSON and TOML; A2F_BUDGET_JSON_DEPTH sets the limit
    """
    try:
        data = text if isinstance(text, bytes) else b""
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        text = text.removeprefix("\ufeff")
        if json.detect_encoding(data) != "utf-8" or not data:
            data = text.encode("utf-8", "surrogatepass")
        check_json(data, name)
        long = _LONG in data.translate(_ONLY_DIGITS)
        value = json.loads(text, parse_int=_int64 if long else None)
        if b"\\u" in data and re.search(rb"\\u[dD][89a-fA-F]", data):
            json.dumps(value, ensure_ascii=False).encode()
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON ({' '.join(str(error).split())[:160]})") from None
    return value


def check_json(data: bytes, where: str | Path) -> None:
    """Checks the values and levels of a JSON text in UTF-8 before it is parsed.

    Raises:
      InputError: more than the budgets `values_millions` and `json_depth`.
    """
    marks = data.translate(_SQUARE, _NO_MARKS)
    check("values_millions", (marks.count(b",") + marks.count(b"[")) / 1e6, where)
    _check_depth(marks.replace(b",", b""), data, where)


def load_toml(path: str | Path) -> dict[str, Any]:
    """Returns the content of a TOML file.

    Raises:
      InputError: as `read_bytes`, not TOML, or nested more deeply than the budget `json_depth`.
    """
    data = read_bytes(path)
    check_depth(data, path)
    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not TOML ({error})") from None


def check_depth(data: bytes, where: str | Path) -> None:
    """Checks how deeply the brackets of a text are nested, outside of strings.

    Raises:
      InputError: deeper than the budget `json_depth`.
    """
    _check_depth(data.translate(_SQUARE, _NO_MARKS + b","), data, where)


def _check_depth(brackets: bytes, data: bytes, where: str | Path) -> None:
    """Checks the nesting of a text; `brackets` are all square and include those of strings."""
    limit, rounds = budget("json_depth"), 0
    # A round takes at most one level away, and is much faster than counting in Python.
    while rounds < min(limit, _ROUNDS):
        fewer = brackets.replace(b"[]", b"")
        if len(fewer) == len(brackets):
            break
        brackets, rounds = fewer, rounds + 1
    if rounds + brackets.count(b"[") > limit:
        outside = _STRING.sub(b"", data).translate(_SQUARE, _NO_MARKS + b",")
        depth = max(accumulate(1 if b == ord("[") else -1 for b in outside), default=0)
        check("json_depth", depth, where)


def _int64(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(f"{text[:20]}... does not fit into 64 bits")
    return value
