"""Reads the text files of Face Cap and of iFacialMocap.

Face Cap (bannaflak.com) exports comma-separated lines, each with a keyword:

    info,...
    bs,browInnerUp,browDown_L,...                     names of the shapes
    k,<ms>,<head position, 3>,<head angles, 3>,<left eye, 2>,<right eye, 2>,<weights>

The order of the `k` line and its clock in milliseconds are those that the importers of Blender
add-ons (DAZ Importer, Faceit) read; angles are in degrees and are not used.

iFacialMocap sends a line a frame (ifacialmocap.com/for-developer): `name-value|name-value|...`
with values from 0 to 100, then `=head#...|rightEye#...|leftEye#...`. Its second version has `&` in
place of `-`. A recording is these lines; it has no times unless a line begins with a number.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from a2fjax import budgets
from a2fjax.animation import columns, curve_rows, text_files
from a2fjax.animation.curve_rows import Rows
from a2fjax.errors import InputError

_HEAD_AND_EYES = 10
_PAIR = re.compile(r"\s*(?P<name>[A-Za-z][\w .]*?)\s*[&-]\s*(?P<value>-?[\d.,]+(e-?\d+)?)\s*")
_FEWEST = 3  # channels in a line
_LONGEST = 200  # characters of a name and its value


def recognise(head: str) -> bool:
    """Returns whether the beginning of a text file is that of such a recording."""
    lines = [line for line in head.splitlines() if line.strip()][:20]
    return any(line.startswith("bs,") for line in lines) or any(map(_is_packet, lines))


def _pair(field: str) -> re.Match[str] | None:
    return _PAIR.fullmatch(field) if len(field) <= _LONGEST else None


def _is_packet(line: str) -> bool:
    names = [m["name"] for f in line.split("|") if (m := _pair(f))]
    return sum(columns.known_name(n) is not None for n in names) >= _FEWEST


def read(path: Path) -> Rows:
    """Reads a text file of either app.

    Raises:
      InputError: neither, or a malformed line.
    """
    text = text_files.read(path)
    lines = [(n, line.strip()) for n, line in enumerate(re.split(r"\r\n|\n|\r", text), 1)]
    lines = [(n, line) for n, line in lines if line]
    if any(line.startswith("bs,") for _, line in lines):
        return _read_face_cap(path, lines)
    if any(_is_packet(line) for _, line in lines[:20]):
        return _read_packets(path, lines)
    raise InputError(f"{path}: not a text recording of Face Cap or iFacialMocap")


def _read_face_cap(path: Path, lines: list[tuple[int, str]]) -> Rows:
    names: list[str] = []
    where, times, rows = [], [], []
    for n, line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        place = f"{path}:{n}"
        if cells[0] == "bs":
            if names:
                raise InputError(f"{place}: a second line of names")
            names = [name for name in cells[1:] if name]
            budgets.check("values_millions", len(names) * len(lines) / 1e6, path)
        elif cells[0] == "k":
            start = len(cells) - len(names)
            if start - 2 != _HEAD_AND_EYES and len(cells) > 2:
                expected = 2 + _HEAD_AND_EYES + len(names)
                raise InputError(f"{place}: {len(cells)} values, expected {expected}")
            where.append(place)
            times.append(curve_rows.number(place, "time", cells[1] if len(cells) > 1 else ""))
            values = cells[start:] if len(cells) > 2 else [""] * len(names)
            pairs = zip(names, values, strict=True)
            rows.append([curve_rows.number(place, name, value) for name, value in pairs])
        elif cells[0] != "info":
            raise InputError(f"{place}: {cells[0][:40]!r}: expected info, bs or k")
    if not rows:
        raise InputError(f"{path}: has no frames")
    return Rows(names=names, values=np.array(rows), times=np.array(times) / 1000.0, lines=where)


def _read_packets(path: Path, lines: list[tuple[int, str]]) -> Rows:
    frames: list[dict[str, float]] = []
    where, times = [], []
    for n, line in lines:
        place = f"{path}:{n}"
        frame: dict[str, float] = {}
        time = np.nan
        weights = line.split("=head")[0]
        for index, field in enumerate(weights.split("|")):
            match = _pair(field)
            if match is not None:
                if match["name"] in frame:
                    raise InputError(f"{place}: {match['name']!r} appears twice")
                frame[match["name"]] = curve_rows.number(place, match["name"], match["value"])
            elif index == 0 and curve_rows.is_number(field):
                time = float(field)
            elif field.strip() and "#" not in field:
                raise InputError(f"{place}: {field[:40]!r}: expected name-value")
        frames.append(frame)
        where.append(place)
        times.append(time)
    names = list(dict.fromkeys(name for frame in frames for name in frame))
    budgets.check("values_millions", len(names) * len(frames) / 1e6, path)
    values = np.array([[frame.get(name, np.nan) for name in names] for frame in frames])
    clock = np.array(times)
    return Rows(
        names=names,
        values=values,
        times=None if np.isnan(clock).all() else clock,
        lines=where,
        percent=True,
    )
