"""Folders of subjects: recordings, and files that belong to a subject rather than to a take."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from a2fjax.errors import InputError
from data_pipeline.sources import find_audio
from data_pipeline.sources.file_names import find_file, find_folder

AUDIO_FOLDERS = ("audio", "wav", "wavs")
RESERVED = ("neutral", "rig", "rig_tongue", "faces", "template", "templates", "rigid_vertex_list")
"""Stems of files that are not takes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """The files of a take.

    Attributes:
      name: name of the take.
      data: motion files or folders: the skin, then the tongue if there is one.
      audio: audio file, or None.
      sentence: key, or "" to derive it from the name.
    """

    name: str
    data: tuple[Path, ...]
    audio: Path | None
    sentence: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubjectFolder:
    """A subject's recordings, and the folders that are searched for the subject's other files.

    Attributes:
      name: name of the subject.
      folders: the subject's folder, then the dataset's; only one if both are the same.
      recordings: recordings, in order of their names.
    """

    name: str
    folders: tuple[Path, ...]
    recordings: tuple[Recording, ...]

    def extra(self, name: str) -> Path | None:
        """Returns the file of a name in the subject's folder, else in the dataset's, or None."""
        return next((f / name for f in self.folders if os.path.lexists(f / name)), None)

    def neutral(self) -> Path | None:
        """Returns the file of the subject's neutral mesh, or None."""
        stems = [self.folders[0] / "neutral"]
        stems += [folder / "templates" / self.name for folder in self.folders]
        for stem in stems:
            for ending in (".npy", ".npz", ".ply", ".obj"):
                path = find_file(stem.parent, stem.name + ending)
                if path is not None:
                    return path
        return None


def check_unique(path: Path, names: list[str]) -> None:
    """Checks that no two subjects have the same name.

    Raises:
      InputError: two subjects have the same name; the message gives it.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"{path}: takes of {', '.join(repeated[:3])} lie in two places; expected one folder"
        )


def find_take_audio(subject: Path, root: Path, name: str, *others: Path) -> Path | None:
    """Returns a take's audio file, beside it or in an audio folder of the subject or dataset.

    Args:
      subject: folder of the subject.
      root: folder of the dataset.
      name: name of the take.
      others: more folders to search.
    """
    folders = [subject, *(subject / f for f in AUDIO_FOLDERS), *others]
    if root != subject:
        folders += [find_folder(root / f, subject.name) for f in AUDIO_FOLDERS]
    for folder in folders:
        audio = find_audio(folder, name) if folder.is_dir() else None
        if audio is not None:
            return audio
    # In a folder shared by all subjects, file names start with the subject's name.
    for folder in [root / f for f in AUDIO_FOLDERS] if root != subject else []:
        audio = find_audio(folder, f"{subject.name}_{name}") if folder.is_dir() else None
        if audio is not None:
            return audio
    return None
