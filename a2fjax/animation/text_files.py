"""Text as programs on all systems write it: encodings, separators, decimals, missing values."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets
from a2fjax.errors import InputError

MISSING = frozenset(
    "nan na n/a null none nil - -- #n/a nan(ind) -nan -nan(ind) 1.#qnan undefined".split()
) | {""}
"""Cells, in lower case, that stand for no value."""

SEPARATORS = ",;\t|"
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_HEADER_WITHIN = 30
_MANY_BLANK = 0.4


def decode(data: bytes) -> str:
    """Decodes UTF-8, UTF-16 or UTF-32, with a byte order mark or without (UTF-8 and UTF-16).

    Raises:
      UnicodeDecodeError: another encoding.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding)
    head = data[:200]
    # Every second byte of ASCII text in UTF-16 is zero.
    if len(head) >= 4 and not any(head[1::2]):
        return data.decode("utf-16-le")
    if len(head) >= 4 and not any(head[0::2]):
        return data.decode("utf-16-be")
    return data.decode("utf-8")


def parse_number(text: str) -> float | None:
    """Returns a number as people write it, NaN for no value, None for other text.

    Example:
        >>> parse_number("0,5"), parse_number("45 %"), parse_number("wide")
        (0.5, 0.45, None)
    """
    text = text.strip()
    plain = text.removesuffix("%").rstrip()
    if plain.lower() in MISSING:
        return np.nan
    try:
        value = float(plain.replace(",", "."))
    except ValueError:
        return None
    return value / 100.0 if plain != text else value


def read(path: Path) -> str:
    """Reads a text file of values.

    Raises:
      InputError: missing, unreadable, beyond the budgets, or not text in UTF-8 or UTF-16.
    """
    return _decoded(path, budgets.read_table(path))


def _decoded(path: Path, data: bytes) -> str:
    try:
        return decode(data)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text in UTF-8 or UTF-16") from None


def read_head(path: Path, size: int = 1 << 16) -> str:
    """Returns the beginning of a file as text; "" if it cannot be read or is not text."""
    try:
        with budgets.regular_file(path).open("rb") as file:
            data = file.read(size)
    except (OSError, InputError):
        return ""
    # The last character may be cut.
    for cut in range(4):
        try:
            return decode(data[: len(data) - cut])
        except UnicodeDecodeError:
            continue
    return ""


def read_json(path: Path, name: str = "") -> Any:
    """Reads a JSON document, or one document a line (JSON Lines), which becomes a list.

    Args:
      path: the file.
      name: what the file is, for messages.

    Raises:
      InputError: not JSON, beyond the budgets, or an object that has a key twice.
    """
    text, where = _decoded(path, budgets.read_bytes(path)), f"{name} {path}".strip()
    budgets.check_json(text.encode("utf-8", "surrogatepass"), where)
    try:
        try:
            return json.loads(text, object_pairs_hook=_unique_keys)
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                raise
            lines = [line for line in text.splitlines() if line.strip()]
            return [json.loads(line, object_pairs_hook=_unique_keys) for line in lines]
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not JSON ({' '.join(str(error).split())[:160]})") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise InputError(f"key {key[:60]!r} appears twice in one object")
            seen.add(key)
    return out


@dataclasses.dataclass(frozen=True)
class Table:
    """The cells of a delimited text file.

    Attributes:
      header: names of the columns.
      rows: cells, as many as the header has; an empty line is a row of empty cells.
      lines: line of each row in the file, for messages.
      separator: one of `SEPARATORS`.
      path: the file.
    """

    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    separator: str
    path: Path

    def numbers(self, columns: Sequence[int]) -> np.ndarray:
        """Returns columns as numbers [F, len(columns)], NaN where a cell holds no value.

        Raises:
          InputError: a cell holds other text, or an infinite number; the message names the line.
        """
        out = np.empty((len(self.rows), len(columns)))
        for n, row in enumerate(self.rows):
            try:
                out[n] = [float(row[i]) for i in columns]
            except ValueError:
                out[n] = [self._number(n, i) for i in columns]
        endless = np.argwhere(np.isinf(out))
        if len(endless):
            n, i = (int(k) for k in endless[0])
            raise self._wrong(n, columns[i])
        return out

    def _number(self, row: int, column: int) -> float:
        value = parse_number(self.rows[row][column])
        if value is None:
            raise self._wrong(row, column)
        return value

    def _wrong(self, row: int, column: int) -> InputError:
        name, cell = self.header[column], self.rows[row][column]
        return InputError(
            f"{self.path}:{self.lines[row]}: {name} is {cell[:40]!r}, expected a finite number"
        )


def split_header(text: str, is_name: Callable[[str], bool]) -> tuple[int, str, list[str]]:
    """Finds the header of a delimited text.

    Args:
      text: the file's text or its beginning.
      is_name: whether a cell is the name of a known column.

    Returns:
      Index of the header's line, separator, names. The header is the first line with a known name,
      else the first line that is not empty, a comment or a spreadsheet's `sep=;`.
    """
    first: tuple[int, str, list[str]] | None = None
    # Lines end at a newline only: values may hold other characters that Python counts as one.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text)[:_HEADER_WITHIN]):
        if not line.strip() or re.fullmatch(r"\s*(#.*|sep=.)", line, re.IGNORECASE):
            continue
        splits = [(mark, _cells(line, mark)) for mark in sorted(SEPARATORS, key=line.count)[::-1]]
        # A separator may be part of a name: head|jawOpen,head|jawLeft.
        mark, names = max(splits, key=lambda split: sum(map(is_name, split[1])))
        if any(map(is_name, names)):
            return number, mark, names
        first = first or (number, *splits[0])
    return first or (0, ",", [])


def _cells(line: str, mark: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])]
    except csv.Error:
        return []


def read_table(path: Path, is_name: Callable[[str], bool]) -> Table:
    """Reads a delimited text file; separators are commas, semicolons, tabs or bars.

    With another separator than a comma, or in quotes, a comma is a decimal mark.

    Args:
      path: the file.
      is_name: see `split_header`.

    Raises:
      InputError: empty, no rows, beyond the budgets, or a row with more or fewer cells than the
        header.
    """
    text = read(path)
    if not text.strip():
        raise InputError(f"{path}: is empty, expected a header of channel names")
    skipped, mark, header = split_header(text, is_name)
    body = re.split(r"\r\n|\n|\r", text)[skipped + 1 :]
    while body and not body[-1].strip():
        body.pop()
    if not body:
        raise InputError(f"{path}: has a header but no frames")
    blank = sum(not line.strip() for line in body)
    spaced = blank > _MANY_BLANK * len(body)
    # Rows without values are filled up.
    count = (len(body) - blank if spaced else len(body)) * len(header)
    budgets.check("values_millions", count / 1e6, path)
    rows: list[list[str]] = []
    lines: list[int] = []
    reader = csv.reader(body, delimiter=mark)
    try:
        for row in reader:
            if not row and spaced:
                continue  # a line end too many, not a frame without values
            rows.append(_fitted(path, skipped + 1 + reader.line_num, row, header))
            lines.append(skipped + 1 + reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}:{skipped + 1 + reader.line_num}: not a CSV ({error})") from None
    return Table(header, rows, lines, mark, path)


def _fitted(path: Path, line: int, row: list[str], header: Sequence[str]) -> list[str]:
    count = len(header)
    if len(row) == count:
        return row
    if len(row) > count and not any(cell.strip() for cell in row[count:]):
        return row[:count]
    # A tracker that sees no face may write the time alone, or the time and a count of 0.
    values = [c for c in row[1:] if c.strip().lower() not in MISSING | {"0"}]
    if len(row) < count and not values and (len(row) < 3 or not any(c.strip() for c in row[2:])):
        return row + [""] * (count - len(row))
    raise InputError(f"{path}:{line}: {len(row)} values, expected {count}")
