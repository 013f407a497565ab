"""Finds rows of named values in JSON, by what names, values, times and rates are.

No program's form is named in the code. A frame is an object or a list that holds, at any depth,

- names with numbers:                       {"jawOpen": 0.1, ...}
- categories, a name and a score each:      [{"categoryName": "jawOpen", "score": 0.1}, ...]
- numbers in the order of a list of names:  [0.1, ...], found elsewhere in the file

and frames are in a list, in an object keyed by numbers, or in one list a name. Keys that name a
time, a frame number or a count of faces are the frame's; a rate is stated beside the frames or in
an object beside them. Geometry (landmarks, matrices, rotations) is left alone.

Files that are read so, and where their form is known from:

- BEAT v0.2.1: {"names": [51], "frames": [{"weights": [51], "time": s, "rotation": []}]}; the
  dataset's files and the README of PantoMatrix.
- LAM_Audio2Expression: the same with 52 and {"metadata": {"fps": 30, ...}}; its exporter.
- MediaPipe's FaceLandmarkerResult: `face_blendshapes`, a list of categories for each face
  (category_name, score) in Python, {"categories": [{categoryName, score}]} in JavaScript; the
  documentation of the tasks API.
- Audio2Face: {"facsNames", "exportFps", "weightMat"}; and lists of {"timeCode", "blendShapes"}.
- Azure Speech's viseme animations, without names: `azure_visemes`.
- pandas: orient records, columns, index, split and list.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets
from a2fjax.animation import azure_visemes, columns, curve_rows, mouth_close, text_files
from a2fjax.animation.curve_rows import Rows
from a2fjax.animation.json_frames import FRAME_KEYS, SCALARS, Frame, categories
from a2fjax.errors import InputError


def read(path: Path, resolver: columns.Resolver) -> Rows:
    """Reads a JSON or JSON Lines file.

    Args:
      path: the file.
      resolver: knows the names of channels.

    Raises:
      InputError: not JSON, no frames in it, or frames that do not fit their names.
    """
    data = text_files.read_json(path)
    rows = azure_visemes.find(path, data)
    return _Finder(path, data, resolver).rows() if rows is None else rows


class _Finder:
    """Finds the frames of one document."""

    def __init__(self, path: Path, data: Any, resolver: columns.Resolver):
        self.path = path
        self.data = data
        self.resolver = resolver
        self.is_name: Callable[[str], bool] = functools.lru_cache(100_000)(resolver.is_name)
        self.objects = list(_objects(data, 3))
        self.name_lists = [
            value
            for node in self.objects
            for key, value in node.items()
            if _is_strings(value) and columns.plain(key) not in ("units",)
        ]

    def rows(self) -> Rows:
        if not isinstance(self.data, (dict, list)):
            raise InputError(
                f"{self.path}: expected an object with names and frames, or a list of frames"
            )
        fault: InputError | None = None
        empty = isinstance(self.data, list) and not self.data
        for frames, keys in self._candidates():
            if not frames:
                empty = True
                continue
            try:
                table = self._table(frames, keys)
            except InputError as error:
                fault = fault or error
                continue
            if any(self.is_name(name) for name in table.names):
                return table
            if table.names and fault is None:
                fault = self._unknown(table.names)
        if fault is not None:
            raise fault
        if empty:
            raise InputError(f"{self.path}: has no frames")
        have = ", ".join(sorted(map(str, self.data))[:8]) if isinstance(self.data, dict) else ""
        raise InputError(
            f"{self.path}: holds {have[:120] or 'nothing'}; expected names and frames, or frames "
            "of named values"
        )

    def _unknown(self, names: list[str]) -> InputError:
        try:
            self.resolver.resolve(names)
        except InputError as error:
            return InputError(f"{self.path}: {error}")
        return InputError(f"{self.path}: holds no channel of the rig")

    def _candidates(self) -> Iterator[tuple[list[Any], list[str] | None]]:
        """Yields (frames, their keys where they have one), the most likely first."""
        if isinstance(self.data, list):
            if categories(self.data) is not None:
                yield [self.data], None
            else:
                yield self.data, None
            return
        for node in self.objects:
            turned = _rows_of_columns(node, self.is_name)
            if turned is not None:
                yield turned, None

            def rank(key: str) -> int:
                plain = columns.plain(key)
                return FRAME_KEYS.index(plain) if plain in FRAME_KEYS else len(FRAME_KEYS)

            for key in sorted(node, key=rank):
                value = node[key]
                if isinstance(value, dict) and value and all(map(curve_rows.is_number, value)):
                    yield list(value.values()), list(value)
                elif isinstance(value, list) and _may_be_frames(value, rank(key)):
                    yield value, None
            if node and all(map(curve_rows.is_number, node)):
                yield list(node.values()), list(node)

    def _table(self, frames: list[Any], keys: list[str] | None) -> Rows:
        where = [f"{self.path}: frame {n}" for n in range(len(frames))]
        parsed = [
            Frame(frame, place, self.is_name) for frame, place in zip(frames, where, strict=True)
        ]
        names, values, percent = self._values(parsed)
        clock_names = dict.fromkeys(k for f in parsed for k in f.clocks)
        cells: dict[str, list[Any]] = {k: [f.clocks.get(k) for f in parsed] for k in clock_names}
        for i, name in enumerate(names):  # a table's column of times
            if self.resolver.is_clock(name):
                cells.setdefault(name, values[:, i].tolist())
        kept = [i for i, name in enumerate(names) if not self.resolver.is_clock(name)]
        names, values = [names[i] for i in kept], values[:, kept]
        clock = curve_rows.clocks(where, cells)
        if not clock and keys is not None:
            numbers = np.array(keys, np.float64)
            is_whole = (numbers == np.rint(numbers)).all()
            clock = {"numbers": numbers} if is_whole else {"times": numbers}
        if not clock:
            clock = self._separate_times(len(frames))
        observed = self._observed(names)
        many = sum(f.faces > 1 for f in parsed)
        seen = np.array([f.seen and f.faces <= 1 for f in parsed])
        return Rows(
            names=names,
            values=values,
            fps=self._fps(),
            seen=seen,
            observed=observed,
            lines=where,
            percent=percent,
            mouth_close=self._mouth_close(),
            notes=(f"{many} of {len(frames)} frames with more than one face left out",)
            if many
            else (),
            **clock,
        )

    def _values(self, parsed: list[Frame]) -> tuple[list[str], np.ndarray, bool]:
        rows = [f.row for f in parsed if f.row is not None]
        named = dict.fromkeys(k for f in parsed for k in f.values)
        if rows and any(self.is_name(k) for k in named):
            rows = []  # named values say more than lists without names
        if not rows:
            names = list(named)
            table = self._empty(len(parsed), len(names))
            for n, frame in enumerate(parsed):
                where = f"{self.path}: frame {n}"
                table[n] = [curve_rows.number(where, k, frame.values.get(k)) for k in names]
            return names, table, any(columns.is_percent(k) for k in names)
        names = self._names_for(rows)
        table = self._empty(len(parsed), len(names))
        for n, frame in enumerate(parsed):
            if frame.row is None:
                continue
            if len(frame.row) != len(names):
                raise InputError(
                    f"{self.path}: frame {n} has {len(frame.row)} values, expected {len(names)}"
                )
            try:
                table[n] = frame.row
            except (TypeError, ValueError, OverflowError):
                table[n] = np.inf
            if np.isinf(table[n]).any():
                where = f"{self.path}: frame {n}"
                pairs = zip(names, frame.row, strict=True)
                table[n] = [curve_rows.number(where, k, v) for k, v in pairs]
        return names, table, False

    def _empty(self, frames: int, names: int) -> np.ndarray:
        # Frames may hold a few names each, and different ones.
        budgets.check("values_millions", frames * names / 1e6, self.path)
        return np.full((frames, names), np.nan)

    def _names_for(self, rows: list[list[Any]]) -> list[str]:
        width = len(rows[0])
        fitting = [names for names in self.name_lists if len(names) == width]
        known = [names for names in fitting if any(map(self.is_name, names))]
        if known or fitting:
            return list((known or fitting)[0])
        if self.name_lists:
            longest = max(self.name_lists, key=lambda names: sum(map(self.is_name, names)))
            raise InputError(
                f"{self.path}: frame 0 has {width} values, expected {len(longest)}, one for each "
                "name"
            )
        linear = self.resolver.map
        if linear is not None and len(linear.sources) == width:
            return list(linear.sources)
        raise InputError(f"{self.path}: frames of {width} values without their names")

    def _fps(self) -> float:
        by_key = [
            (curve_rows.RATES.index(columns.plain(key)), depth, key, value)
            for depth, node in enumerate(self.objects)
            for key, value in node.items()
            if columns.plain(key) in curve_rows.RATES and value is not None
        ]
        if not by_key:
            return 0.0
        _, _, key, value = min(by_key, key=lambda k: (k[1], k[0]))
        return curve_rows.rate(str(self.path), key, value)

    def _separate_times(self, count: int) -> curve_rows.Clocks:
        cells = {
            key: value
            for node in self.objects
            for key, value in node.items()
            if isinstance(value, list)
            and columns.clock_kind(key)
            and value
            and all(isinstance(v, SCALARS) for v in value)
        }
        for key, value in cells.items():
            if len(value) != count:
                raise InputError(
                    f"{self.path}: {key} has {len(value)} values, expected one for each of "
                    f"{count} frames"
                )
        return curve_rows.clocks([str(self.path)] * count, cells)

    def _mouth_close(self) -> str:
        key = mouth_close.KEY
        stated = next((node[key] for node in self.objects if key in node), "arkit")
        mouth_close.check(stated, f"{self.path}: {key}")
        return str(stated)

    def _observed(self, names: list[str]) -> np.ndarray | None:
        given = self.data.get("observed") if isinstance(self.data, dict) else None
        if given is None:
            return None
        if not isinstance(given, list) or len(given) != len(names):
            raise InputError(f"{self.path}: observed: expected one value for each of the names")
        return np.array([bool(v) for v in given])


def _objects(data: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Yields the objects of a document, outer ones first, without those in lists."""
    level = [data] if isinstance(data, dict) else []
    for _ in range(depth):
        yield from level
        level = [v for node in level for v in node.values() if isinstance(v, dict)]


def _is_strings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _may_be_frames(value: list[Any], rank: int) -> bool:
    if not value:
        return rank < len(FRAME_KEYS)
    if _is_strings(value):
        return False
    structured = any(isinstance(v, (dict, list)) for v in value)
    return structured or rank == 0


def _rows_of_columns(
    node: dict[str, Any], is_name: Callable[[str], bool]
) -> list[dict[str, Any]] | None:
    """Returns the rows of an object that holds one list, or one object of rows, for each name."""
    series = {
        key: list(value.values()) if isinstance(value, dict) else value
        for key, value in node.items()
        if (isinstance(value, (list, dict)) and value)
        and (is_name(key) or columns.clock_kind(key) or columns.is_flag(key))
    }
    if not any(is_name(key) for key in series):
        return None
    count = max(len(value) for value in series.values())
    for value in series.values():
        if len(value) != count or not all(isinstance(v, SCALARS) for v in value):
            return None
    return [{key: value[n] for key, value in series.items()} for n in range(count)]
