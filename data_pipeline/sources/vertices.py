"""Reads vertex arrays: NumPy files of moving vertices, [frames, V, 3] or flat, [frames, 3 V].

    [<person>/]<take>.npy|.npz and <take>.wav           or audio/<take>.wav
    vertices_npy/<person>_<sentence>.npy and wav/<person>_<sentence>.wav

FaceFormer and its successors use the second form for VOCASET and BIWI. An archive holds the
vertices under `vertices`, `verts`, `points` or as its only such array, and may hold `fps`, `times`
[frames] in seconds and `faces`. For rigs, neutral meshes and shot lists see `folder_source`; the
vertices of a tongue are in <take>.tongue.npy. Pickles are refused.

A .npy file is read in blocks of frames; an .npz is decompressed as a whole.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from a2fjax import archives
from a2fjax.animation.row_times import frame_numbers
from a2fjax.errors import InputError, nearest
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line
from data_pipeline.sources import SourceOptions, find_audio
from data_pipeline.sources.animations import choose_animation, with_sound
from data_pipeline.sources.folder_source import FolderSource
from data_pipeline.sources.sequences import MotionFile
from data_pipeline.sources.subject_folders import (
    AUDIO_FOLDERS,
    RESERVED,
    Recording,
    check_unique,
    find_take_audio,
)
from data_pipeline.timing import align

SUFFIXES = (".npy", ".npz")
KEYS = ("vertices", "verts", "points", "vertex", "positions", "skin")
CONTAINERS = ("vertices_npy", "vertices", "verts")
"""Folders of arrays of several people, named <person>_<sentence>."""

_LEAST_FLAT = 100  # vertices: a flat array with fewer may be a table of curves
_RAW = "data_verts.npy"


def recognise(path: Path) -> str | None:
    """Returns why a folder holds vertex arrays, or None."""
    if (path / _RAW).is_file():
        return f"{_RAW} of VOCASET"
    people = _people(path)
    files = [file for _, _, found in people for file in found]
    # A few headers per subject are enough; do not scan terabytes.
    if not any(_holds_vertices(file) for _, _, found in people for file in found[:8]):
        return None
    who = f"{len(people)} people" if len(people) > 1 else "one person"
    return f"{who} with {len(files)} arrays of vertices"


def open_source(path: Path, options: SourceOptions) -> VertexSource:
    """Returns the source of a subject's folder or of a folder of subjects.

    Raises:
      InputError: there are no arrays, or the folder is the VOCASET download, which uses pickles.
    """
    if (path / _RAW).is_file():
        raise InputError(
            f"{path / _RAW}: VOCASET's index and sound are pickles, which are refused because "
            "they can run code; save each sequence as vertices_npy/<person>_<sentence>.npy and "
            "wav/<person>_<sentence>.wav, and each template as templates/<person>.npy"
        )
    if not _people(path):
        pickles = [p.name for p in sorted(path.iterdir()) if p.suffix in (".pkl", ".pickle")]
        hint = f"; pickles ({pickles[0]}) are refused: save arrays with np.save" if pickles else ""
        raise InputError(f"{path}: no .npy or .npz of vertices in it or in its folders{hint}")
    source = VertexSource(path, options)
    check_unique(path, [person.name for person in source.find_subjects()])
    return source


def _people(path: Path) -> list[tuple[str, Path, list[Path]]]:
    """Returns (name, folder, arrays) of every subject."""
    grouped: dict[str, list[Path]] = {}
    for container in CONTAINERS:
        if (path / container).is_dir() and any((path / a).is_dir() for a in AUDIO_FOLDERS):
            for file in _arrays(path / container):
                person = file.stem.rpartition("_")[0] or path.resolve().name
                grouped.setdefault(person, []).append(file)
    subjects = [(name, path / name, files) for name, files in sorted(grouped.items())]
    here = _arrays(path)
    if here:
        subjects.append((path.resolve().name, path, here))
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        lower = folder.name.lower()
        if folder.name[0] == "." or lower in (*RESERVED, *AUDIO_FOLDERS, *CONTAINERS):
            continue
        files = _arrays(folder)
        for container in CONTAINERS:
            files += _arrays(folder / container) if (folder / container).is_dir() else []
        if files:
            subjects.append((folder.name, folder, files))
    return subjects


def _arrays(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.suffix in SUFFIXES
        and p.name[0] != "."
        and p.stem.lower() not in RESERVED
        and not p.stem.endswith(".tongue")
    )


def _holds_vertices(path: Path) -> bool:
    """Returns whether an array certainly holds vertices; reads headers only."""
    try:
        if path.suffix == ".npy":
            return _are_vertices(archives.load_npy(path, mmap=True).shape)
        with archives.load_npz(path) as archive:
            for name in archive.files:
                if name in KEYS:
                    return _are_vertices(archive.shape(name))
    except READ_ERRORS:
        return False
    return False


def _are_vertices(shape: tuple[int, ...]) -> bool:
    if len(shape) == 3:
        return shape[2] == 3
    return len(shape) == 2 and shape[1] % 3 == 0 and shape[1] >= 3 * _LEAST_FLAT


class VertexSource(FolderSource):
    """Subjects with vertex arrays; see the module."""

    layout = "vertices"

    def folders(self) -> list[tuple[str, Path, list[Path]]]:
        """Returns subjects by folder or by file name; see `FolderSource.folders`."""
        return _people(self.path)

    def recording(self, folder: Path, take: Path) -> Recording:
        """Returns a take's files; see `FolderSource.recording`."""
        shared = take.parent.parent == self.path and folder != take.parent
        name = take.stem.rpartition("_")[2] if shared else take.stem
        if shared:
            places = [self.path / folder_name for folder_name in AUDIO_FOLDERS]
            audio_files = (find_audio(p, take.stem) for p in places if p.is_dir())
            audio = next((a for a in audio_files if a is not None), None)
        else:
            audio = find_take_audio(folder, self.path, name)
        # BIWI's e01 is its sentence 01 with emotion: both must be in the same split.
        again = re.fullmatch(r"e(\d\d)", name) if shared else None
        tongues = [take.with_name(f"{take.stem}.tongue{s}") for s in SUFFIXES]
        tongue = next((t for t in tongues if t.is_file()), None)
        return Recording(
            name=name,
            data=(take,) if tongue is None else (take, tongue),
            audio=audio,
            sentence=again.group(1) if again else "",
        )

    def recordings(self, folder: Path, take: Path) -> list[Recording]:
        """Returns one recording, or one for each array of an archive that has a sound file."""
        whole = self.recording(folder, take)
        if whole.audio is not None or take.suffix != ".npz":
            return [whole]
        try:
            with archives.load_npz(take) as archive:
                arrays = _unnamed(archive)
        except (InputError, *READ_ERRORS):
            return [whole]  # opening the take reports it
        sounds = with_sound(
            take.stem,
            list(arrays),
            self.options.animation,
            lambda name: find_take_audio(folder, self.path, name),
        )
        each = [dataclasses.replace(whole, name=name, audio=audio) for name, audio in sounds]
        return each or [whole]

    def open(self, path: Path, take: str) -> MotionFile:
        """Opens an array or archive; see `FolderSource.open`."""
        try:
            if path.suffix == ".npy":
                array = archives.load_npy(path, mmap=True)
                return MotionFile(
                    numbers=np.arange(len(array)) if array.ndim else np.zeros(0, np.int64),
                    vertices=_as_vertices(path, array),
                )
            with archives.load_npz(path) as archive:
                return _from_archive(path, archive, self.options.animation, take)
        except InputError:
            raise
        except READ_ERRORS as error:
            reason = one_line(error)
            if "pickle" in reason:
                raise InputError(
                    f"{path}: is or holds a pickle; pickles are refused because they can run "
                    "code: save it again with np.save(path, np.asarray(vertices, np.float32))"
                ) from None
            raise InputError(f"{path}: truncated or damaged ({reason})") from None


def _as_vertices(path: Path, array: np.ndarray) -> np.ndarray:
    shape = array.shape
    if array.dtype.kind == "f" and array.ndim == 2 and shape[1] % 3 == 0:
        array = array.reshape(shape[0], shape[1] // 3, 3)
    if array.dtype.kind != "f" or array.ndim != 3 or array.shape[2] != 3:
        raise InputError(
            f"{path}: {array.dtype} of shape {shape}, expected floats [frames, vertices, 3] or "
            "[frames, 3 vertices]"
        )
    if array.shape[1] < 4:
        raise InputError(f"{path}: {array.shape[1]} vertices, expected at least 4")
    return array


def _unnamed(archive: archives.Arrays) -> dict[str, int]:
    """Returns the frames of each array of vertices by name; none if one has a name of `KEYS`."""
    if any(key in archive.files for key in KEYS):
        return {}
    shapes = {name: archive.shape(name) for name in archive.files}
    return {n: shape[0] for n, shape in shapes.items() if len(shape) == 3 and shape[2] == 3}


def _from_archive(path: Path, archive: archives.Arrays, asked: str, take: str) -> MotionFile:
    notes: tuple[str, ...] = ()
    names = list(archive.files)
    key = next((k for k in KEYS if k in names), None)
    if key is None:
        arrays = _unnamed(archive)
        if not arrays:
            hint = nearest(names[0], KEYS) if names else ""
            raise InputError(f"{path}: holds {', '.join(names[:8]) or 'nothing'}{hint}")
        like, lengths = list(arrays), list(arrays.values())
        index, notes = choose_animation(path, like, lengths, asked=asked, take=take, kind="array")
        key = like[index]
    vertices = _as_vertices(path, archive[key])
    count = len(vertices)
    numbers, times = np.arange(count), None
    if "times" in names:
        times = np.asarray(archive["times"], np.float64)
        rising = times.shape == (count,) and np.isfinite(times).all() and (np.diff(times) > 0).all()
        if not rising:
            raise InputError(f"{path}: times do not increase, one for each of {count} frames")
        numbers = frame_numbers(times)
    elif "fps" in names:
        rate = float(np.asarray(archive["fps"], np.float64).reshape(-1)[0])
        if not (np.isfinite(rate) and rate > 0):
            raise InputError(f"{path}: fps={rate:g}: expected frames a second")
        times = numbers / align.exact_rate(rate)
    faces = np.zeros((0, 3), np.int32)
    if "faces" in names:
        faces = np.asarray(archive["faces"], np.int32)
        inside = faces.ndim == 2 and faces.shape[1] == 3 and len(faces)
        if not inside or faces.min() < 0 or faces.max() >= vertices.shape[1]:
            raise InputError(
                f"{path}: faces of shape {faces.shape}, expected [F, 3] of {vertices.shape[1]} "
                "vertices"
            )
    return MotionFile(numbers=numbers, times=times, vertices=vertices, faces=faces, notes=notes)
