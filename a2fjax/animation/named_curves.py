"""Named curves in JSON, NumPy archives and CSV; every file states names and units.

JSON is meant for web players and scripts, npz for Python, and the CSV of named channels (ending in
`.channels.csv`) for spreadsheets and for players that read one column per curve. All three are in
rig units (weights in [0, 1], eye angles in degrees) unless another order of columns has others.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax import rig
from a2fjax.animation import curve_reader, mouth_close, tracks
from a2fjax.errors import InputError

if TYPE_CHECKING:
    from a2fjax.animation.file_columns import FileColumns
    from a2fjax.animation.formats import Header

FORMAT = "a2fjax-animation"
VERSION = 1
DECIMALS = 6
NAMED = ("order", "names_map", "mouth_close")
"""Options of formats that name their columns and keep the convention of mouthClose."""


def read(path: str | Path) -> tracks.Track:
    """Reads a file of named curves as a track; see `curve_reader.read`.

    Raises:
      InputError: as for `curve_reader.read`, or the file states neither times nor a rate.
    """
    path = Path(path)
    curves = curve_reader.read(path)
    if curves.times is None:
        raise InputError(f"{path}: says neither fps nor times")
    return tracks.Track(curves.motion, curves.times, curves.observed, curves.notes)


class JsonRows:
    """Writes a JSON object whose last entry is a list of frames, frame by frame, six decimals."""

    def __init__(self, path: Path, columns: FileColumns, head: Mapping[str, Any], key: str):
        """Writes everything before the frames.

        Args:
          path: of the file.
          columns: of each frame.
          head: entries before the frames.
          key: name of the list of frames.
        """
        self._columns, self._empty = columns, True
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._file.write(f"{json.dumps(head)[:-1]}, {json.dumps(key)}: [")

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        values = self._columns.values(motion).astype(np.float64)
        for row in np.round(values, DECIMALS).tolist():
            self._file.write(("\n" if self._empty else ",\n") + json.dumps(row))
            self._empty = False

    def close(self) -> None:
        """Completes the object."""
        self._file.write("\n]}\n")
        self._file.close()

    def abandon(self) -> None:
        """Closes the file."""
        self._file.close()


class JsonFormat(JsonRows):
    """The project's own JSON: names, units, metadata and frames."""

    takes = NAMED
    read = staticmethod(read)

    def __init__(self, path: Path, header: Header):
        """Writes everything before the frames; metadata entries become keys of the object."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "rig": rig.FINGERPRINT,
            "fps": float(header.fps),
            "fps_exact": str(header.fps),
            **header.metadata,
            mouth_close.KEY: header.columns.mouth_close,
            "names": list(header.columns.names),
            "units": list(header.columns.units),
        }
        super().__init__(path, header.columns, head, "frames")


class ChannelsFormat:
    """Writes a CSV with `time` and one column per channel, with six decimals.

    It has no place for the convention of mouthClose, which is ARKit's.
    """

    takes: tuple[str, ...] = ("order", "names_map")
    read = staticmethod(read)
    _time, _time_decimals, _prefix = "time", DECIMALS, ""

    def __init__(self, path: Path, header: Header):
        """Writes the header line."""
        self._fps, self._next, self._columns = header.fps, 0, header.columns
        self._file = open(path, "w", newline="", encoding="utf-8")
        names = (self._prefix + name for name in header.columns.names)
        self._file.write(",".join((self._time, *names)) + "\n")

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        for row in self._columns.values(motion).astype(np.float64).tolist():
            cells = ",".join(f"{v:.{DECIMALS}f}" for v in row)
            seconds = float(self._next / self._fps)
            self._file.write(f"{seconds:.{self._time_decimals}f},{cells}\n")
            self._next += 1

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    abandon = close


class NpzFormat:
    """Writes an archive block by block, without holding its `motion` in memory.

    Arrays: motion [T, N] float32, names [N], units [N], fps, fps_exact (text of the fraction),
    audio_rate (Hz), rig (fingerprint), mouth_close_convention and the metadata; N is 72 unless
    another order is asked for.
    """

    takes = NAMED
    read = staticmethod(read)

    def __init__(self, path: Path, header: Header):
        """Writes the small arrays and the header of `motion`, which states its shape."""
        self._frames, self._written, self._columns = header.frames, 0, header.columns
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)
        arrays = {
            "names": np.array(header.columns.names),
            "units": np.array(header.columns.units),
            mouth_close.KEY: np.array(header.columns.mouth_close),
            "fps": np.float64(float(header.fps)),
            "fps_exact": np.array(str(header.fps)),
            "audio_rate": np.int64(16_000),
            "rig": np.array(rig.FINGERPRINT),
            **{k: np.asarray(v) for k, v in header.metadata.items()},
        }
        for name, value in arrays.items():
            with self._zip.open(zipfile.ZipInfo(f"{name}.npy"), "w") as entry:
                np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)
        self._entry = self._zip.open(zipfile.ZipInfo("motion.npy"), "w", force_zip64=True)
        np.lib.format.write_array_header_1_0(
            self._entry,
            {
                "descr": "<f4",
                "fortran_order": False,
                "shape": (self._frames, len(header.columns.names)),
            },
        )

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        self._written += len(motion)
        values = self._columns.values(motion)
        self._entry.write(np.ascontiguousarray(values, "<f4").tobytes())

    def abandon(self) -> None:
        """Closes the archive."""
        self._entry.close()
        self._zip.close()

    def close(self) -> None:
        """Completes the archive.

        Raises:
          ValueError: the number of frames written differs from the header's.
        """
        self.abandon()
        if self._written != self._frames:
            raise ValueError(f"{self._written} frames written, {self._frames} announced")
