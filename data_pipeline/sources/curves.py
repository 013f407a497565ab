"""Reads and checks files of named curves, in rig order; base class of curve sources."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.animation import curve_reader, npz_records
from a2fjax.animation.columns import Resolver
from a2fjax.errors import InputError
from data_pipeline.mesh.file_checks import check_rate
from data_pipeline.sources import Blendshapes, SourceOptions
from data_pipeline.timing import align

ENDINGS = curve_reader.ENDINGS
"""Kinds of files, best first."""

_WORDS = ("sentence", "language", "subject", "text", "emotion")


class CurveSource:
    """Base class of curve sources, which need no solving and have no mesh."""

    def __init__(self, path: Path, options: SourceOptions):
        """Stores the arguments and checks the map in the settings, if there is one.

        Raises:
          InputError: the map is missing or wrong.
        """
        self.path = path
        self.options = options
        resolver(options).check_map()

    def blendshapes(self, actor: str, part: str) -> Blendshapes | None:
        """Returns None: curves need no solving."""
        return None

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns None: there is no mesh."""
        return None

    def settings_files(self) -> tuple[Path, ...]:
        """Returns the files that the settings name and that change what takes hold."""
        return (Path(self.options.columns.map),) if self.options.columns.map else ()


@dataclasses.dataclass(frozen=True)
class NamedCurves:
    """The curves in a file.

    Attributes:
      curves: [F, 72] float32, rig units; NaN in frames without a face.
      observed: [72] mask of the channels in the file.
      times: [F] s, increasing; frames whose time is wrong leave gaps.
      notes: what was left out or converted, and shifts, as text.
    """

    curves: np.ndarray
    observed: np.ndarray
    times: np.ndarray
    notes: tuple[str, ...] = ()


def resolver(options: SourceOptions) -> Resolver:
    """Returns what tells the meaning of columns under the user's settings."""
    return Resolver(options.columns, "--config.columns")


def read_curves(
    path: Path, options: SourceOptions | None = None, *, otherwise: float = 0.0
) -> NamedCurves:
    """Reads a file of named curves.

    Args:
      path: a file with one of `ENDINGS`.
      options: the user's options; `fps` replaces the times and the rate in the file.
      otherwise: frames per second of files that state neither a rate nor times; 0 refuses them.

    Raises:
      InputError: as for `curve_reader.read`, or the file states no frame rate, or an implausible
        one.
    """
    options = options or SourceOptions()
    read = curve_reader.read(path, resolver(options))
    if options.fps or (read.times is None and otherwise):
        rate = align.exact_rate(options.fps or otherwise)
        times, lost = read.rows / rate, read.lost_rows / rate
    elif read.times is not None and read.lost_times is not None:
        times, lost = read.times, read.lost_times
    else:
        raise InputError(f"{path}: says neither fps nor times; give --config.fps=...")
    # A recording begins with its first frame, whether that has a face or not.
    curves = np.concatenate([read.motion, np.full((len(lost), rig.NUM_CHANNELS), np.nan)])
    times = np.concatenate([times, lost])
    order = np.argsort(times, kind="stable")
    times, curves = times[order], curves[order].astype(np.float32)
    check_rate(path, times)
    return NamedCurves(curves, read.observed, times, read.notes)


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a take in an .npz (sentence, language, subject, text, emotion).

    Raises:
      InputError: not a NumPy archive.
    """
    if path.suffix.lower() != ".npz":
        return {}
    return {
        key: str(value.item())
        for key, value in npz_records.load_npz(path).items()
        if key in _WORDS and value.dtype.kind == "U" and value.size == 1
    }


def looks_like_curves(path: Path, options: SourceOptions) -> bool:
    """Returns whether a file without audio beside it holds curves; see `curve_reader`."""
    return curve_reader.looks_like_curves(path, resolver(options))
