"""Mesh sequences: folders of OBJ or PLY, USD point caches and glTF morph animations.

    [<person>/]<take>/<frame>.obj|.ply          numbered files, any prefix
    [<person>/]<take>.usd|usda|usdc|usdz|glb|gltf
    [<person>/]<take>.wav                       or audio/<take>.wav, per person or per dataset
    [<person>/][<file>_]<animation>.wav         for each animation of a USD or glTF file

This covers the folders of VOCASET's scans (<person>/<sentence>/<sentence>.000001.ply,
audio/<person>/) and of Multiface's meshes (<person>/tracked_mesh/<segment>/000102.obj, audio/). For
rigs, neutral meshes and shot lists see `folder_source`. A tongue's frames are in <take>/tongue/.
"""

from __future__ import annotations

from pathlib import Path

from a2fjax.errors import InputError
from data_pipeline.sources import SourceOptions, gltf, usd
from data_pipeline.sources.animations import with_sound
from data_pipeline.sources.folder_source import FolderSource
from data_pipeline.sources.sequences import MotionFile, has_frames, read_folder
from data_pipeline.sources.subject_folders import (
    AUDIO_FOLDERS,
    RESERVED,
    Recording,
    check_unique,
    find_take_audio,
)

CONTAINERS = ("tracked_mesh", "meshes", "mesh")
"""Folders of takes inside a person's, as Multiface has them."""
FILES = (*usd.SUFFIXES, *gltf.SUFFIXES)

_NO_TAKES = {*RESERVED, *AUDIO_FOLDERS, *CONTAINERS, "tongue", "images", "unwrapped_uv_1024"}


def recognise(path: Path) -> str | None:
    """Returns why a folder holds mesh sequences, or None."""
    people = MeshSource(path, SourceOptions()).find_subjects()
    # A lone USD or glTF file may be a model; one with an audio file beside it is a take.
    counted = [
        [r.data[0] for r in person.recordings if r.audio is not None or r.data[0].is_dir()]
        for person in people
    ]
    data = [d for takes in counted for d in takes]
    if not data:
        return None
    folders = sum(d.is_dir() for d in data)
    kinds = sorted({d.suffix[1:].lower() for d in data if not d.is_dir()})
    files = f"{len(data) - folders} files of type {', '.join(kinds)}" if kinds else ""
    frames = f"{folders} folders of OBJ or PLY frames" if folders else ""
    count = sum(bool(takes) for takes in counted)
    who = f"{count} people" if count > 1 else "one person"
    return f"{who} with {' and '.join(filter(None, (frames, files)))}"


def open_source(path: Path, options: SourceOptions) -> MeshSource:
    """Returns the source of a subject's folder or of a folder of subjects.

    Raises:
      InputError: the folder holds no mesh sequence.
    """
    if not _people(path):
        raise InputError(
            f"{path}: no folder of numbered .obj or .ply files, and no {', '.join(FILES)}, in it "
            "or in its folders"
        )
    source = MeshSource(path, options)
    check_unique(path, [person.name for person in source.find_subjects()])
    return source


def _people(path: Path) -> list[tuple[str, Path, list[Path]]]:
    """Returns (name, folder, takes) for the folder itself and for its subfolders."""
    subjects = []
    here = _takes(path)
    if here:
        subjects.append((path.resolve().name, path, here))
    taken = set(here)
    for folder in sorted(p for p in path.iterdir() if p.is_dir() and p not in taken):
        if folder.name[0] != "." and folder.name.lower() not in _NO_TAKES:
            takes = _takes(folder)
            if takes:
                subjects.append((folder.name, folder, takes))
    return subjects


def _takes(folder: Path) -> list[Path]:
    takes = []
    for container in [folder, *(folder / name for name in CONTAINERS)]:
        if not container.is_dir():
            continue
        for path in sorted(container.iterdir()):
            if path.name[0] == "." or path.stem.lower() in _NO_TAKES:
                continue
            # A folder with such a suffix counts as an unreadable take.
            if path.suffix.lower() in FILES or (path.is_dir() and has_frames(path)):
                takes.append(path)
    return takes


class MeshSource(FolderSource):
    """Subjects with mesh sequences; see the module."""

    layout = "meshes"

    def folders(self) -> list[tuple[str, Path, list[Path]]]:
        """Returns subjects by folder; see `FolderSource.folders`."""
        return _people(self.path)

    def recording(self, folder: Path, take: Path) -> Recording:
        """Returns a take's files; see `FolderSource.recording`."""
        name = take.stem if take.suffix.lower() in FILES else take.name
        inside = [take] if take.is_dir() else []
        return Recording(
            name=name,
            data=(take, *_tongue(take)),
            audio=find_take_audio(folder, self.path, name, *inside),
        )

    def recordings(self, folder: Path, take: Path) -> list[Recording]:
        """Returns one recording, or one for each animation of a file that has a sound file."""
        whole = self.recording(folder, take)
        if whole.audio is not None or take.suffix.lower() not in FILES:
            return [whole]
        reader = gltf if take.suffix.lower() in gltf.SUFFIXES else usd
        try:
            animations = reader.animation_names(take)
        except InputError:
            return [whole]  # opening the take reports it
        found = with_sound(
            take.stem,
            animations,
            self.options.animation,
            lambda name: find_take_audio(folder, self.path, name),
        )
        each = [Recording(name=name, data=(take,), audio=audio) for name, audio in found]
        return each or [whole]

    def open(self, path: Path, take: str) -> MotionFile:
        """Opens a folder of frames, a USD file or a glTF file; see `FolderSource.open`."""
        if path.is_dir():
            return read_folder(path)
        asked = self.options.animation
        if path.suffix.lower() in gltf.SUFFIXES:
            return gltf.read_gltf(path, animation=asked, take=take)
        keep_axes = self.options.axes != "auto"
        return usd.read_usd(path, animation=asked, take=take, keep_axes=keep_axes)


def _tongue(take: Path) -> tuple[Path, ...]:
    folder = take / "tongue"
    return (folder,) if folder.is_dir() and has_frames(folder) else ()
