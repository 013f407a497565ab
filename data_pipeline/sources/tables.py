"""Curves that someone else solved: an .npz of named channels beside a sound file of the same stem.

Archives hold a 2-D array of values [F, N] with the names of its columns and `fps` or `times`:
`arkit52` with `arkit52_names` as FACEGOOD's Audio2Face training part is kept here, or `motion`,
`curves`, `values` or `weights` with `names`. An optional `emotion`, `sentence`, `language`,
`subject` or `text` (strings) is taken as well.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from a2fjax import rig
from a2fjax.errors import InputError, nearest
from data_pipeline import align
from data_pipeline.sources import Actor, Capture, Face, SourceOptions, Take, find_audio

_NAMED = (
    ("arkit52", "arkit52_names"),
    ("motion", "names"),
    ("curves", "names"),
    ("values", "names"),
    ("weights", "names"),
)


def recognise(path: Path) -> str | None:
    """Returns why a folder holds curve tables, or None."""
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
    pairs = [f for folder in folders for f in _tables(folder) if find_audio(f.parent, f.stem)]
    if not pairs:
        return None
    return f"{len(pairs)} .npz beside sound files of the same name"


def open_source(path: Path, options: SourceOptions) -> TableSource:
    """Returns the source of a folder, or of folders, of tables.

    Raises:
      InputError: there is no .npz.
    """
    source = TableSource(path, options)
    if not source.actors():
        raise InputError(f"{path}: no .npz with curves in it or in its folders")
    return source


class TableSource:
    """Tables in one folder (a person) or in a folder for each person."""

    layout = "table"

    def __init__(self, path: Path, options: SourceOptions):
        """Keeps where and how; reads nothing."""
        self.path = path
        self.options = options

    def actors(self) -> list[Actor]:
        """Returns one person a folder; see `Source.actors`."""
        folders = [self.path, *sorted(p for p in self.path.iterdir() if p.is_dir())]
        grouped: dict[str, list[Take]] = {}
        rejected: dict[str, list[tuple[str, str]]] = {}
        for folder in folders:
            subject = folder.resolve().name
            if self.options.subject and folder == self.path:
                subject = self.options.subject
            for file in _tables(folder):
                audio = find_audio(folder, file.stem)
                if audio is None:
                    reason = f"{file}: no sound file {file.stem}.wav beside it"
                    rejected.setdefault(subject, []).append((file.stem, reason))
                    continue
                try:
                    take = self._take(file, audio, subject)
                except InputError as error:
                    rejected.setdefault(subject, []).append((file.stem, str(error)))
                    continue
                grouped.setdefault(take.subject, []).append(take)
        return [
            Actor(
                name=name,
                takes=tuple(sorted(grouped.get(name, []), key=lambda t: t.name)),
                rejected=tuple(rejected.get(name, [])),
            )
            for name in sorted({*grouped, *rejected})
        ]

    def _take(self, file: Path, audio: Path, subject: str) -> Take:
        # Strings only: an archive's curves are not read for listing.
        words = {}
        with _open(file) as data:
            for key in ("sentence", "language", "subject", "text", "emotion"):
                if key in data.files and data[key].dtype.kind == "U" and data[key].size == 1:
                    words[key] = str(data[key].item())
        emotion = rig.emotion_vector({words.get("emotion") or "neutral": 1.0})
        return Take(
            subject=words.get("subject", subject),
            name=file.stem,
            audio=audio,
            data=(file,),
            sentence=words.get("sentence", file.stem),
            language=words.get("language", self.options.language),
            emotion=emotion,
            text=words.get("text", ""),
        )

    def capture(self, take: Take) -> Capture:
        """Returns curves in rig order; see `Source.capture`."""
        file = take.data[0]
        try:
            with _open(file) as data:
                names, values = _named_values(file, data)
                rate = float(np.asarray(data["fps"]).item()) if "fps" in data.files else 0.0
                times = np.asarray(data["times"], np.float64) if "times" in data.files else None
        except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{file}: damaged or not numbers ({error})") from None
        if not len(values):
            raise InputError(f"{file}: has no frames")
        if not np.isfinite(values).all():
            raise InputError(f"{file}: has values that are not finite")
        try:
            curves, observed = rig.from_names(values, names)
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        rate = self.options.fps or rate
        if times is None or self.options.fps:
            if not (np.isfinite(rate) and rate > 0):
                raise InputError(f"{file}: says neither fps nor times; give --config.fps=...")
            times = np.arange(len(values)) / align.exact_rate(rate)
        if times.shape != (len(values),) or not (np.diff(times) > 0).all():
            raise InputError(f"{file}: times do not increase, one for each of {len(values)} frames")
        return Capture(times=times, curves=curves, observed=observed)

    def face(self, actor: str, part: str) -> Face | None:
        """Returns None: curves need no solving."""
        return None

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns None: tables have no mesh."""
        return None


def _tables(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.npz") if not p.name.startswith("."))


def _open(file: Path) -> np.lib.npyio.NpzFile:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not a NumPy archive ({error})") from None


def _named_values(file: Path, data: np.lib.npyio.NpzFile) -> tuple[list[str], np.ndarray]:
    for values, names in _NAMED:
        if values in data.files and names in data.files:
            found = [str(n) for n in np.asarray(data[names]).reshape(-1)]
            table = np.asarray(data[values], np.float64)
            if table.ndim != 2 or table.shape[1] != len(found):
                raise InputError(
                    f"{file}: {values} has shape {table.shape}, expected [frames, {len(found)}] "
                    f"for the {len(found)} {names}"
                )
            return found, table
    keys = [v for v, _ in _NAMED]
    have = ", ".join(sorted(data.files)[:8]) or "nothing"
    hint = nearest(data.files[0], keys) if data.files else ""
    raise InputError(
        f"{file}: holds {have}; expected arkit52 and arkit52_names, or motion and "
        f"names{hint if hint.startswith('; did') else ''}"
    )
