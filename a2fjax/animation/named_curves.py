"""Named curves in JSON, NumPy archives and CSV; every file states names and units.

JSON is meant for web players and scripts, npz for Python, and the CSV of named channels (ending in
`.channels.csv`) for spreadsheets and for players that read one column per curve. All three are in
rig units: weights in [0, 1], eye angles in degrees.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax import archives, budgets, channel_orders, rig
from a2fjax.animation import tracks
from a2fjax.errors import InputError

if TYPE_CHECKING:
    from a2fjax.animation.formats import Header

FORMAT = "a2fjax-animation"
VERSION = 1
DECIMALS = 6
_NIM_PREFIX = "blendshapes."


def _track(
    path: Path,
    values: Any,
    names: Sequence[str],
    *,
    fps: Any = None,
    times: Any = None,
    observed: Any = None,
) -> tracks.Track:
    try:
        values = np.asarray(values, np.float64)
        names = [str(n) for n in names]
        times = None if times is None else np.asarray(times, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{path}: frames are not rows of numbers of one length") from None
    if values.ndim != 2 or not len(values):
        raise InputError(f"{path}: frames have shape {values.shape}, expected [frames, names]")
    if not np.isfinite(values).all():
        frame, column = np.argwhere(~np.isfinite(values))[0]
        name = names[column] if column < len(names) else f"column {column}"
        raise InputError(f"{path}: frame {frame}: {name} is not a finite number")
    try:
        motion, found = channel_orders.from_names(values, names)
        if times is None:
            times = np.arange(len(values)) / float(tracks.rate(fps))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if times.shape != (len(values),) or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise InputError(f"{path}: times do not increase, one for each of {len(values)} frames")
    if observed is not None:
        observed = np.asarray(observed, bool)
        if observed.shape != (len(names),):
            raise InputError(f"{path}: observed has shape {observed.shape}, expected {len(names)}")
        found = channel_orders.from_names(observed[None].astype(np.float64), names)[0][0] > 0
    return tracks.Track(motion, times, found)


def read_json(path: str | Path) -> tracks.Track:
    """Reads {"names": [...], "fps": or "times": , "frames": [[...]]}; names in any order.

    Raises:
      InputError: missing file, invalid JSON, missing key, unknown name, or non-finite values.
    """
    path = Path(path)
    data = _json(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected an object with names, fps and frames")
    for key in ("names", "frames"):
        if not isinstance(data.get(key), list):
            raise InputError(f"{path}: has no list {key!r}; expected names, fps and frames")
    if "fps" not in data and "times" not in data:
        raise InputError(f"{path}: has no 'fps'; expected names, fps and frames")
    return _track(
        path,
        data["frames"],
        data["names"],
        fps=data.get("fps_exact", data.get("fps")),
        times=data.get("times"),
        observed=data.get("observed"),
    )


def _json(path: Path) -> Any:
    return budgets.load_json(path)


def read_npz(path: str | Path) -> tracks.Track:
    """Reads an archive with `motion` [T, N], `names` [N] and `fps` or `times`.

    Raises:
      InputError: as for `read_json`.
    """
    path = Path(path)
    with archives.load_npz(path) as data:
        arrays = dict(data)
    for key in ("motion", "names"):
        if key not in arrays:
            raise InputError(f"{path}: has no array {key!r}; expected motion, names and fps")
    if "fps" not in arrays and "times" not in arrays:
        raise InputError(f"{path}: has no array 'fps'; expected motion, names and fps")
    fps = arrays.get("fps_exact", arrays.get("fps"))
    return _track(
        path,
        arrays["motion"],
        arrays["names"].reshape(-1).tolist(),
        fps=None if fps is None else fps.item() if fps.size == 1 else "nothing",
        times=arrays.get("times"),
        observed=arrays.get("observed"),
    )


def read_csv(path: str | Path) -> tracks.Track:
    """Reads a CSV whose first column is `time` in seconds and whose other columns are channels.

    It also reads the columns `timeCode` and `blendShapes.<Name>` that NVIDIA's microservice client
    writes.

    Raises:
      InputError: malformed file; the message names the file and line.
    """
    path = Path(path)
    try:
        text = budgets.read_table(path).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV ({error})") from None
    if not rows:
        raise InputError(f"{path}: is empty, expected a CSV of named channels")
    header = [cell.strip() for cell in rows[0]]
    if header[0].lower() not in ("time", "timecode"):
        raise InputError(f"{path}:1: first column is {header[0][:40]!r}, expected 'time'")
    names = [n[len(_NIM_PREFIX) :] if n.lower().startswith(_NIM_PREFIX) else n for n in header[1:]]
    values = np.empty((len(rows) - 1, len(header)))
    for i, row in enumerate(rows[1:]):
        if len(row) != len(header):
            raise InputError(f"{path}:{i + 2}: {len(row)} values, expected {len(header)}")
        for c, cell in enumerate(row):
            try:
                values[i, c] = float(cell)
            except ValueError:
                values[i, c] = np.nan
            if not np.isfinite(values[i, c]):
                raise InputError(
                    f"{path}:{i + 2}: {header[c]} is {cell!r}, expected a finite number"
                )
        if i and values[i, 0] <= values[i - 1, 0]:
            raise InputError(f"{path}:{i + 2}: time {row[0]} is not after {rows[i][0]}")
    if not len(values):
        raise InputError(f"{path}: has a header but no frames")
    return _track(path, values[:, 1:], names, times=values[:, 0])


class JsonFormat:
    """Writes one JSON object frame by frame; numbers have six decimals."""

    read = staticmethod(read_json)

    def __init__(self, path: Path, header: Header):
        """Writes everything before the frames; metadata entries become keys of the object."""
        head = {
            "format": FORMAT,
            "version": VERSION,
            "rig": rig.FINGERPRINT,
            "fps": float(header.fps),
            "fps_exact": str(header.fps),
            **header.metadata,
            "names": list(rig.CHANNELS),
            "units": list(rig.UNITS),
        }
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._empty = True
        self._file.write(json.dumps(head)[:-1] + ', "frames": [')

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        for row in np.round(np.asarray(motion, np.float64), DECIMALS).tolist():
            self._file.write(("\n" if self._empty else ",\n") + json.dumps(row))
            self._empty = False

    def close(self) -> None:
        """Completes the object."""
        self._file.write("\n]}\n")
        self._file.close()

    def abandon(self) -> None:
        """Closes the file."""
        self._file.close()


class ChannelsFormat:
    """Writes a CSV with `time` and one column per channel, with six decimals."""

    read = staticmethod(read_csv)

    def __init__(self, path: Path, header: Header):
        """Writes the header line."""
        self._fps, self._next = header.fps, 0
        self._file = open(path, "w", newline="", encoding="utf-8")
        self._file.write(",".join(("time", *rig.CHANNELS)) + "\n")

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        for row in np.asarray(motion, np.float64).tolist():
            cells = ",".join(f"{v:.{DECIMALS}f}" for v in row)
            self._file.write(f"{float(self._next / self._fps):.{DECIMALS}f},{cells}\n")
            self._next += 1

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    abandon = close


class NpzFormat:
    """Writes an archive block by block, without holding its `motion` in memory.

    Arrays: motion [T, 72] float32, names [72], units [72], fps, fps_exact (text of the fraction),
    audio_rate (Hz), rig (fingerprint) and the metadata.
    """

    read = staticmethod(read_npz)

    def __init__(self, path: Path, header: Header):
        """Writes the small arrays and the header of `motion`, which states its shape."""
        self._frames, self._written = header.frames, 0
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)
        arrays = {
            "names": np.array(rig.CHANNELS),
            "units": np.array(rig.UNITS),
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
            {"descr": "<f4", "fortran_order": False, "shape": (self._frames, rig.NUM_CHANNELS)},
        )

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        self._written += len(motion)
        self._entry.write(np.ascontiguousarray(motion, "<f4").tobytes())

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
