"""Finds files by name in any Unicode form: systems store "é" as one character or as two."""

from __future__ import annotations

import unicodedata
from pathlib import Path

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".mp4", ".mov")
"""Suffixes of audio files and videos, in order of preference."""


def find_audio(folder: Path, stem: str) -> Path | None:
    """Returns the audio file with a stem in a folder, WAV first and videos last, or None."""
    for suffix in AUDIO_SUFFIXES:
        for name in (f"{stem}{suffix}", f"{stem}{suffix.upper()}"):
            if (folder / name).is_file():
                return folder / name
    if stem.isascii():
        return None
    for suffix in AUDIO_SUFFIXES:
        file = find_file(folder, f"{stem}{suffix}")
        if file is not None:
            return file
    return None


def find_file(folder: Path, name: str) -> Path | None:
    """Returns the file of a name in a folder, in any Unicode form and case of its ending, or None.

    Example:
        >>> find_file(Path("no/such/folder"), "a.wav") is None
        True
    """
    if (folder / name).is_file():
        return folder / name
    if name.isascii() or not folder.is_dir():
        return None
    wanted = composed(name)
    stem, dot, ending = wanted.rpartition(".")
    for path in sorted(folder.iterdir()):
        have = composed(path.name)
        same = have == wanted or have == f"{stem}{dot}{ending.upper()}"
        if same and path.is_file():
            return path
    return None


def find_folder(parent: Path, name: str) -> Path:
    """Returns the folder of a name in a folder, in any Unicode form; it need not exist."""
    if name.isascii() or (parent / name).is_dir() or not parent.is_dir():
        return parent / name
    same = (p for p in sorted(parent.iterdir()) if composed(p.name) == composed(name))
    return next((p for p in same if p.is_dir()), parent / name)


def composed(text: str) -> str:
    """Returns text in composed Unicode (NFC), the form that names of takes and subjects have."""
    return unicodedata.normalize("NFC", text)
