"""Reads and checks files of named curves, in rig order; base class of curve sources."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from a2fjax import channel_orders, rig
from a2fjax.animation import livelink
from a2fjax.errors import InputError
from data_pipeline.mesh.file_checks import READ_ERRORS, check_rate, one_line
from data_pipeline.sources import Blendshapes, SourceOptions, curve_files
from data_pipeline.sources.sequences import frame_numbers
from data_pipeline.timing import align

ENDINGS = (".npz", ".json", ".csv")
"""Kinds of files, best first."""

NO_CHANNELS = ("_neutral", "neutral", "blendshapecount")
"""Columns of trackers that are not channels, ignored as are head rotation and pupils."""

_MOST = 3.0
_PREFIX = "blendshapes."
_WORDS = ("sentence", "language", "subject", "text", "emotion")


class CurveSource:
    """Base class of curve sources, which need no solving and have no mesh."""

    def __init__(self, path: Path, options: SourceOptions):
        """Stores the arguments; reads nothing."""
        self.path = path
        self.options = options

    def blendshapes(self, actor: str, part: str) -> Blendshapes | None:
        """Returns None: curves need no solving."""
        return None

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns None: there is no mesh."""
        return None


@dataclasses.dataclass(frozen=True)
class NamedCurves:
    """The curves in a file.

    Attributes:
      curves: [F, 72] float32, rig units.
      observed: [72] mask of the channels in the file.
      times: [F] s, increasing.
      notes: omitted columns and shifts, as text.
    """

    curves: np.ndarray
    observed: np.ndarray
    times: np.ndarray
    notes: tuple[str, ...] = ()


def read_curves(path: Path, fps: float = 0.0, otherwise: float = 0.0) -> NamedCurves:
    """Reads a file of named curves.

    Args:
      path: path of a .csv, .json or .npz.
      fps: frames per second; 0 uses the rate in the file.
      otherwise: frames per second of files that state neither a rate nor times; 0 refuses them.

    Raises:
      InputError: names the file and the fault: unknown column, values that are not finite or
        not weights from 0 to 1, no frame rate, times that do not increase, no frames, damaged.
    """
    if path.suffix.lower() == ".csv" and livelink.is_recording(path):
        table, notes = livelink.read_recording(path)
        curves, observed = table.to_motion()
        times = table.times()
        if fps:
            times = frame_numbers(times) / align.exact_rate(fps)
        return NamedCurves(curves, observed, times, notes)
    readers = {
        ".csv": curve_files.read_csv,
        ".json": curve_files.read_json,
        ".npz": curve_files.read_npz,
    }
    try:
        rows = readers[path.suffix.lower()](path)
    except READ_ERRORS as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged or not numbers ({one_line(error)})") from None
    return _checked(path, rows, fps, otherwise)


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a take in an .npz (sentence, language, subject, text, emotion).

    Raises:
      InputError: not a NumPy archive.
    """
    if path.suffix.lower() != ".npz":
        return {}
    metadata = {}
    with curve_files.open_archive(path) as data:
        for key in _WORDS:
            try:
                if key in data.files and data[key].dtype.kind == "U" and data[key].size == 1:
                    metadata[key] = str(data[key].item())
            except READ_ERRORS as error:
                raise InputError(f"{path}: {key}: damaged ({one_line(error)})") from None
    return metadata


def looks_like_curves(path: Path) -> bool:
    """Returns whether a file without audio beside it holds curves.

    Archives always count; a CSV counts if its header names a channel, JSON if it has a known form.
    """
    try:
        if path.suffix.lower() == ".csv":
            first_line = path.read_bytes()[: 1 << 16].decode("utf-8-sig").split("\n", 1)[0]
            return any(name.lower() in _KNOWN for name in curve_files.read_header(first_line))
        if path.suffix.lower() == ".json":
            curve_files.read_json(path)
        return True
    except READ_ERRORS:
        return False


_KNOWN = {c.name.lower() for layout in channel_orders.ORDERS.values() for c in layout.columns}


def _checked(path: Path, rows: curve_files.Rows, fps: float, otherwise: float) -> NamedCurves:
    values = rows.values
    if not len(values):
        raise InputError(f"{path}: has no frames")
    names = [n[len(_PREFIX) :] if n.lower().startswith(_PREFIX) else n for n in rows.names]
    columns = [i for i, name in enumerate(names) if name.lower() not in NO_CHANNELS]
    names, values = [names[i] for i in columns], values[:, columns]
    if not np.isfinite(values).all():
        frame, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise InputError(f"{path}: frame {frame}: {names[column]} is not finite")
    try:
        curves, observed = channel_orders.from_names(values, names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not observed.any():
        raise InputError(f"{path}: holds no channel of the rig")
    _check_range(path, curves)
    rate = fps or rows.fps or otherwise
    if rows.times is not None and not fps:
        times = np.asarray(rows.times, np.float64)
    else:
        if not (np.isfinite(rate) and rate > 0):
            raise InputError(f"{path}: says neither fps nor times; give --config.fps=...")
        numbers = np.arange(len(values)) if rows.numbers is None else rows.numbers
        times = numbers / align.exact_rate(rate)
    if (
        times.shape != (len(values),)
        or not np.isfinite(times).all()
        or not (np.diff(times) > 0).all()
    ):
        late = np.flatnonzero(~(np.diff(times.reshape(-1)) > 0))
        where = f" (frame {int(late[0]) + 1})" if len(late) else ""
        raise InputError(
            f"{path}: times do not increase{where}, one for each of {len(values)} frames"
        )
    check_rate(path, times)
    return NamedCurves(curves, observed, times)


def _check_range(path: Path, curves: np.ndarray) -> None:
    """Checks the range of weights: rigs may overshoot 1 slightly, but percentages reach 100."""
    weights = curves[:, rig.WEIGHT_CHANNELS]
    frame, column = np.unravel_index(int(np.argmax(np.abs(weights))), weights.shape)
    most = float(weights[frame, column])
    if abs(most) > _MOST:
        hint = "; if these are percent, divide by 100" if 10 < abs(most) <= 200 else ""
        raise InputError(
            f"{path}: frame {int(frame)}: {rig.CHANNELS[int(column)]} is {most:g}, expected "
            f"weights from 0 to 1{hint}"
        )
