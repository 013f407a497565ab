"""Reads files of named curves: CSV, JSON and NumPy archives, columns in any order and case.

CSV: a header of channel names, and at most one time column (see `TIME_COLUMNS`); separated by
commas, semicolons (then a comma may be the decimal mark) or tabs.

JSON, in the forms that tools write:

    {"names": [...], "fps": 60, "frames": [[...], ...]}         also "weights", "values", "motion"
    {"facsNames": [...], "exportFps": 30, "weightMat": [[...], ...]}                  Audio2Face
    [{"time": 0.0, "jawOpen": 0.1, ...}, ...]        also {"fps": 60, "frames": [{...}, ...]}
    [{"timeCode": 0.0, "blendShapes": {"JawOpen": 0.1, ...}}, ...]

npz: a 2-D array with the names of its columns, see `PAIRS`, and `fps` or `times`.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import timecode
from a2fjax.errors import InputError, nearest
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line

PAIRS = (
    ("arkit52", "arkit52_names"),
    ("motion", "names"),
    ("curves", "names"),
    ("values", "names"),
    ("weights", "names"),
    ("frames", "names"),
    ("weightMat", "facsNames"),
)
"""Names of the values and of their columns' names, in JSON and npz."""

TIME_COLUMNS = {
    "time": "s",
    "times": "s",
    "seconds": "s",
    "timestamp": "s",
    "time_s": "s",
    "time_ms": "ms",
    "timestamp_ms": "ms",
    "milliseconds": "ms",
    "timecode": "timecode",
    "frame": "frame",
    "frames": "frame",
    "frame_number": "frame",
    "frame_index": "frame",
}
"""Columns that hold the time of a row: s, ms, a timecode (or s), or a frame number."""

_NESTED = ("blendshapes", "weights", "values", "channels")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Values [F, N] as written, with the rows' times in s, their frame numbers, or neither.

    Attributes:
      names: [N] names of the columns.
      values: [F, N].
      fps: frames per second; 0 if the file states none.
      times: [F] s, or None.
      numbers: [F] frame numbers, or None.
    """

    names: list[str]
    values: np.ndarray
    fps: float = 0.0
    times: np.ndarray | None = None
    numbers: np.ndarray | None = None


def read_csv(path: Path) -> Rows:
    """Reads a CSV file.

    Raises:
      InputError: damaged, or not of a known form.
    """
    text = path.read_bytes().decode("utf-8-sig")
    lines = text.splitlines()
    if not lines or not lines[0].strip():
        raise InputError(f"{path}: is empty, expected a header of channel names")
    mark = _separator(lines[0])
    table = list(csv.reader(lines, delimiter=mark))
    header = [cell.strip() for cell in table[0]]
    while table and not any(cell.strip() for cell in table[-1]):
        table.pop()
    clocks = [i for i, name in enumerate(header) if name.lower() in TIME_COLUMNS]
    # "time" is more exact than a "frame" column beside it.
    clocks.sort(key=lambda i: "s ms timecode frame".split().index(_kind(header[i])))
    columns = [i for i in range(len(header)) if i not in clocks]
    if len(table) < 2:
        raise InputError(f"{path}: has a header but no frames")
    values = np.empty((len(table) - 1, len(columns)))
    for n, row in enumerate(table[1:]):
        if len(row) != len(header):
            raise InputError(f"{path}:{n + 2}: {len(row)} values, expected {len(header)}")
        try:
            values[n] = [float(row[i]) for i in columns]
        except ValueError:
            values[n] = np.nan
        if not np.isfinite(values[n]).all():
            values[n] = [_number(path, n, header[i], row[i], mark) for i in columns]
    names = [header[i] for i in columns]
    if not clocks:
        return Rows(names, values)
    clock = clocks[0]
    cells = [row[clock] for row in table[1:]]
    kind = _kind(header[clock])
    if kind == "timecode" and ":" in cells[0]:
        return Rows(names, values, times=_timecodes(path, cells))
    when = np.array([_number(path, n, header[clock], c, mark) for n, c in enumerate(cells)])
    if kind == "frame":
        return Rows(names, values, numbers=when)
    return Rows(names, values, times=when / 1000.0 if kind == "ms" else when)


def _kind(name: str) -> str:
    return TIME_COLUMNS[name.lower()]


def _separator(header: str) -> str:
    return max(",;\t", key=header.count)


def read_header(line: str) -> list[str]:
    """Returns the column names in the first line of a CSV file."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=_separator(line)), [])]


def _number(path: Path, row: int, name: str, cell: str, mark: str) -> float:
    try:
        value = float(cell.replace(",", ".") if mark == ";" else cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{path}:{row + 2}: {name} is {cell[:40]!r}, expected a finite number")
    return value


def _timecodes(path: Path, cells: Sequence[str]) -> np.ndarray:
    codes = []
    for n, cell in enumerate(cells):
        try:
            codes.append(timecode.parse(cell))
        except InputError as error:
            raise InputError(f"{path}:{n + 2}: {error}") from None
    return timecode.Column(codes).times()


def read_json(path: Path) -> Rows:
    """Reads a JSON file.

    Raises:
      InputError: damaged, or not of a known form.
    """
    try:
        data = json.loads(path.read_bytes().decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({one_line(error)})") from None
    if isinstance(data, list):
        return _records(path, data, {})
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object with names and frames, or a list of frames")
    for values, names in PAIRS:
        if isinstance(data.get(values), list) and isinstance(data.get(names), list):
            table = _table(path, data[values], len(data[names]))
            times = data.get("times")
            return Rows(
                [str(n) for n in data[names]],
                table,
                fps=_rate(path, data),
                times=None if times is None else np.asarray(times, np.float64),
            )
    for values, _ in PAIRS:
        if isinstance(data.get(values), list) and data[values]:
            return _records(path, data[values], data)
    have = ", ".join(sorted(map(str, data))[:8]) or "nothing"
    raise InputError(f"{path}: holds {have[:120]}; expected names and frames")


def _rate(path: Path, data: dict[str, Any]) -> float:
    for key in ("fps_exact", "fps", "exportFps", "frameRate"):
        if data.get(key) is not None:
            text = str(data[key])
            try:
                above, _, below = text.partition("/")
                rate = float(above) / float(below or 1)
            except (ValueError, ZeroDivisionError):
                rate = np.nan
            if not (np.isfinite(rate) and rate > 0):
                raise InputError(f"{path}: {key} is {text[:40]!r}, expected frames a second")
            return rate
    return 0.0


def _table(path: Path, rows: list, columns: int) -> np.ndarray:
    for n, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != columns:
            count = len(row) if isinstance(row, list) else "no"
            raise InputError(f"{path}: frame {n} has {count} values, expected {columns}")
    return np.asarray(rows, np.float64).reshape(len(rows), columns)


def _records(path: Path, rows: list, head: dict[str, Any]) -> Rows:
    """Reads a list of {name: value}; either all entries have a time or none has."""
    flat: list[dict[str, Any]] = []
    for n, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}: frame {n} is not an object of names and values")
        values_by_name = {k: v for k, v in row.items() if not isinstance(v, (dict, list, str))}
        for key, value in row.items():
            if key.lower() in _NESTED and isinstance(value, dict):
                values_by_name.update(value)
        flat.append(values_by_name)
    if not flat:
        raise InputError(f"{path}: has no frames")
    first = list(flat[0])
    for n, row in enumerate(flat):
        if row.keys() != flat[0].keys():
            odd = sorted(set(row) ^ set(first))[0]
            raise InputError(f"{path}: frame {n}: {odd!r} is not in all frames")
    clocks = [k for k in first if k.lower() in TIME_COLUMNS]
    names = [k for k in first if k not in clocks]
    values = np.array([[row[k] for k in names] for row in flat], np.float64)
    if not clocks:
        return Rows(names, values, fps=_rate(path, head))
    when = np.array([row[clocks[0]] for row in flat], np.float64)
    kind = _kind(clocks[0])
    if kind == "frame":
        return Rows(names, values, fps=_rate(path, head), numbers=when)
    return Rows(names, values, times=when / 1000.0 if kind == "ms" else when)


def open_archive(path: Path) -> np.lib.npyio.NpzFile:
    """Opens a NumPy archive.

    Raises:
      InputError: damaged, or not of a known form.
    """
    try:
        archive = np.load(path, allow_pickle=False)
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a NumPy archive ({one_line(error)})") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise InputError(f"{path}: is one array, expected an archive with names and values")
    return archive


def read_npz(path: Path) -> Rows:
    """Reads a NumPy archive.

    Raises:
      InputError: damaged, or not of a known form.
    """
    with open_archive(path) as data:
        for values, names in PAIRS:
            if values in data.files and names in data.files:
                columns = [str(n) for n in np.asarray(data[names]).reshape(-1)]
                table = np.asarray(data[values], np.float64)
                if table.ndim != 2 or table.shape[1] != len(columns):
                    raise InputError(
                        f"{path}: {values} has shape {table.shape}, expected [frames, "
                        f"{len(columns)}] for the {len(columns)} {names}"
                    )
                rate = float(np.asarray(data["fps"]).item()) if "fps" in data.files else 0.0
                times = np.asarray(data["times"], np.float64) if "times" in data.files else None
                return Rows(columns, table, fps=rate, times=times)
        keys = [v for v, _ in PAIRS]
        have = ", ".join(sorted(data.files)[:8]) or "nothing"
        hint = nearest(data.files[0], keys) if data.files else ""
    raise InputError(
        f"{path}: holds {have}; expected arkit52 and arkit52_names, or motion and "
        f"names{hint if hint.startswith('; did') else ''}"
    )
