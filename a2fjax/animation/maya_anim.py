"""Maya's .anim files: one curve of keys for each channel, as Maya's animImportExport writes them.

    animVersion 1.1;
    timeUnit palf;
    anim jawOpen jawOpen face 0 0 17;
    animData {
      input time;
      output unitless;
      keys {
        0 0.125 linear linear 1 1 0;

A weight is the attribute of its name on the node `face`; eye angles are rotations of the nodes
leftEye and rightEye in degrees. Time 0 is the first frame. Keys count frames where Maya has a time
unit of the frame rate (24, 25, 29.97, 30, 50, 59.94, 60 and others), else seconds. The format and
the names of time units are those of Autodesk's documentation ("animImportExport", "currentUnit").
"""

from __future__ import annotations

import math
import re
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from a2fjax import budgets, channel_orders, rig
from a2fjax.animation import columns, text_files, tracks
from a2fjax.errors import InputError, nearest

if TYPE_CHECKING:
    from a2fjax.animation.formats import Header

NODE = "face"
_UNITS = {
    "game": 15, "film": 24, "pal": 25, "ntsc": 30, "show": 48, "palf": 50, "ntscf": 60,
    **{f"{n}fps": n for n in (2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 40, 75, 80, 100, 120, 125)},
    **{f"{n}fps": n for n in (150, 200, 240, 250, 300, 375, 400, 500, 600, 750)},
    "sec": 1, "millisec": 1000, "min": Fraction(1, 60), "hour": Fraction(1, 3600),
}  # fmt: skip
UNITS: dict[str, Fraction] = {
    **{name: Fraction(rate) for name, rate in _UNITS.items()},
    **{f"{name}fps": tracks.NTSC[name] for name in ("23.976", "29.97", "47.952", "59.94")},
}
"""Units a second, by Maya's name of the time unit."""

_EYES = {
    ("leftEye", "rotateX"): "leftEyeRotX",
    ("leftEye", "rotateY"): "leftEyeRotY",
    ("rightEye", "rotateX"): "rightEyeRotX",
    ("rightEye", "rotateY"): "rightEyeRotY",
}
_BLOCK = 1000


class AnimFormat:
    """Keeps frames in a temporary file and writes a curve after the other at the end.

    Nothing in the file says which mouthClose it holds: it is ARKit's.
    """

    order = "rig72"
    takes = ("order", "names_map")

    def __init__(self, path: Path, header: Header):
        """Opens the files."""
        self._header, self._written = header, 0
        self._spool: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)
        self._file = open(path, "w", newline="", encoding="utf-8")

    @staticmethod
    def read(path: str | Path) -> tracks.Track:
        """Reads curves; see `read`."""
        return read(path)

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        self._written += len(motion)
        values = self._header.columns.values(motion)
        self._spool.write(np.ascontiguousarray(values, "<f4").tobytes())

    def close(self) -> None:
        """Writes the curves.

        Raises:
          ValueError: the number of frames written differs from the header's.
        """
        fps, count = self._header.fps, self._written
        if count != self._header.frames:
            self.abandon()
            raise ValueError(f"{count} frames written, {self._header.frames} announced")
        unit = next((n for n, rate in UNITS.items() if rate == fps), "sec")
        whole = UNITS[unit] == fps
        last = str(count - 1) if whole else f"{float((count - 1) / fps):.9f}"
        self._file.write(
            f"animVersion 1.1;\nmayaVersion 2025;\ntimeUnit {unit};\nlinearUnit cm;\n"
            f"angularUnit deg;\nstartTime 0;\nendTime {last};\n"
        )
        self._spool.flush()
        order = self._header.columns.order.columns
        table = np.memmap(self._spool, "<f4", "r", shape=(count, len(order)))
        for index, column in enumerate(order):
            self._curve(index, column, table[:, index], None if whole else fps)
        self.abandon()

    def _curve(
        self, index: int, column: channel_orders.Column, values: np.ndarray, fps: Fraction | None
    ) -> None:
        where = next((key for key, channel in _EYES.items() if channel == column.name), None)
        node, leaf = where or (NODE, _attribute(column.name))
        name = f"rotate.{leaf}" if where else leaf
        angular = column.channel in rig.EYE_ANGLES and column.scale == 1.0
        self._file.write(
            f"anim {name} {leaf} {node} 0 0 {index};\nanimData {{\n  input time;\n"
            f"  output {'angular' if angular else 'unitless'};\n  weighted 0;\n"
            "  preInfinity constant;\n  postInfinity constant;\n  keys {\n"
        )
        for first in range(0, len(values), _BLOCK):
            block = values[first : first + _BLOCK].tolist()
            times = [
                str(k) if fps is None else f"{float(k / fps):.9f}"
                for k in range(first, first + len(block))
            ]
            pairs = zip(times, block, strict=True)
            self._file.writelines(f"    {t} {v:.9g} linear linear 1 1 0;\n" for t, v in pairs)
        self._file.write("  }\n}\n")

    def abandon(self) -> None:
        """Closes the files."""
        self._file.close()
        self._spool.close()


def _attribute(name: str) -> str:
    """Returns the name of an attribute: Maya allows letters, digits and underscores."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return plain if not plain[:1].isdigit() else f"_{plain}"


def read(path: str | Path) -> tracks.Track:
    """Reads the curves of channels; frames are at the keys of all curves, linear between them.

    Raises:
      InputError: missing or damaged, another time unit, an attribute that is no channel, or a key
        that is not a number or not later than the one before.
    """
    path = Path(path)
    text = text_files.read(path)
    if not text.lstrip().startswith("animVersion"):
        raise InputError(f"{path}: not a Maya .anim file: does not begin with animVersion")
    budgets.check("values_millions", text.count(";") * 2 / 1e6, path)
    curves: dict[str, tuple[list[float], list[float]]] = {}
    unit, degrees = Fraction(24), True
    notes: list[str] = []
    channel, in_keys = "", False
    for number, line in enumerate(text.split("\n"), 1):
        words = line.strip().rstrip(";").split()
        if not words:
            continue
        where = f"{path}:{number}"
        if in_keys:
            if words[0].startswith("}"):
                in_keys = False
            elif channel:
                _add_key(where, curves[channel], words, channel)
        elif words[0] == "timeUnit" and len(words) == 2:
            if words[1] not in UNITS:
                raise InputError(f"{where}: time unit {words[1]!r}{nearest(words[1], UNITS)}")
            unit = UNITS[words[1]]
        elif words[0] == "angularUnit" and len(words) == 2:
            degrees = words[1] == "deg"
        elif words[0] == "anim":
            channel = _channel(where, words, notes)
            if channel in curves:
                raise InputError(f"{where}: a second curve of {channel}")
            if channel:
                curves[channel] = ([], [])
        elif words[0] == "keys":
            in_keys = True
    if in_keys:
        raise InputError(f"{path}: truncated: its last curve has no end")
    return _track(path, curves, unit, degrees, tuple(notes))


def _channel(where: str, words: list[str], notes: list[str]) -> str:
    """Returns the name of a curve's channel; "" for what is left out."""
    if len(words) < 7:  # a node without curves
        return ""
    leaf, node = words[2], words[3]
    eye = _EYES.get((re.split(r"[|:]", node)[-1], leaf))
    found = eye or columns.known_name(leaf)
    if found is None and not (columns.holds_no_channel(leaf) or leaf in ("envelope", "visibility")):
        raise InputError(f"{where}: unknown channel {leaf!r}{nearest(leaf, rig.CHANNELS)}")
    if found is None:
        notes.append(f"curve without a channel left out: {node}.{leaf}")
    return found or ""


def _add_key(
    where: str, curve: tuple[list[float], list[float]], words: list[str], channel: str
) -> None:
    try:
        time, value = float(words[0]), float(words[1])
    except (ValueError, IndexError):
        raise InputError(f"{where}: expected the time and value of a key of {channel}") from None
    if not (math.isfinite(time) and math.isfinite(value)):
        raise InputError(f"{where}: a key of {channel} is not finite")
    times, values = curve
    if times and time <= times[-1]:
        raise InputError(f"{where}: a key of {channel} is not after the one before")
    times.append(time)
    values.append(value)


def _track(
    path: Path,
    curves: dict[str, tuple[list[float], list[float]]],
    unit: Fraction,
    degrees: bool,
    notes: tuple[str, ...],
) -> tracks.Track:
    curves = {name: curve for name, curve in curves.items() if curve[0]}
    if not curves:
        raise InputError(f"{path}: no curve of a channel of the rig in it")
    keys = np.unique(np.concatenate([times for times, _ in curves.values()]))
    budgets.check("frames_millions", len(keys) / 1e6, path)
    budgets.check("values_millions", len(keys) * len(curves) / 1e6, path)
    values = np.stack([np.interp(keys, *curve) for curve in curves.values()], axis=1)
    try:
        motion, observed = channel_orders.from_names(values, list(curves))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not degrees:
        motion[:, rig.ANGLE_CHANNELS] *= np.float32(180.0 / np.pi)
    return tracks.Track(motion, keys * (unit.denominator / unit.numerator), observed, notes)
