"""Curves that someone else solved: a .npz, .json or .csv of named channels beside a sound file of
the same stem, in one folder or in a folder for each person.

What the files may look like: `curves`. An optional shots.json in the folder says what file names
cannot, and an .npz may hold the strings sentence, language, subject, text and emotion.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.sources import (
    Actor,
    Capture,
    Face,
    SourceOptions,
    Take,
    curves,
    find_audio,
    shots,
)


def recognise(path: Path) -> str | None:
    """Returns why a folder holds curve tables, or None."""
    kinds = [
        files[0].suffix.lower()
        for folder in _folders(path)
        for stem, files in _tables(folder).items()
        if find_audio(folder, stem)
    ]
    if not kinds:
        return None
    named = " or ".join(e for e in curves.ENDINGS if e in kinds)
    return f"{len(kinds)} {named} beside sound files of the same name"


def open_source(path: Path, options: SourceOptions) -> TableSource:
    """Returns the source of a folder, or of folders, of tables.

    Raises:
      InputError: there are no tables.
    """
    source = TableSource(path, options)
    if not source.actors():
        raise InputError(f"{path}: no .npz, .json or .csv with curves in it or in its folders")
    return source


def _folders(path: Path) -> Iterator[Path]:
    yield path
    yield from sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _tables(folder: Path) -> dict[str, list[Path]]:
    """Returns tables by stem, the best kind first; those without sound only if they seem meant."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in curves.ENDINGS:
            continue
        if path.name != "shots.json":
            # What `a2fjax infer` writes ends in .channels.csv.
            found.setdefault(path.stem.removesuffix(".channels"), []).append(path)
    kept = {}
    for stem, files in found.items():
        if find_audio(folder, stem) is None:
            files = [f for f in files if curves.seems(f)]
        if files:
            kept[stem] = sorted(files, key=lambda f: curves.ENDINGS.index(f.suffix.lower()))
    return kept


class TableSource:
    """Tables in one folder (a person) or in a folder for each person."""

    layout = "table"

    def __init__(self, path: Path, options: SourceOptions):
        """Keeps where and how; reads nothing."""
        self.path = path
        self.options = options

    def actors(self) -> list[Actor]:
        """Returns one person a folder; see `Source.actors`."""
        grouped: dict[str, list[Take]] = {}
        rejected: dict[str, list[tuple[str, str]]] = {}
        listed: dict[str, list[Path]] = {}
        for folder in _folders(self.path):
            subject = folder.resolve().name
            if self.options.subject and folder == self.path:
                subject = self.options.subject
            for stem, files in _tables(folder).items():
                try:
                    take = self._take(folder, stem, files[0], subject)
                except InputError as error:
                    rejected.setdefault(subject, []).append((stem, str(error)))
                    continue
                grouped.setdefault(take.subject, []).append(take)
                shot_list = folder / "shots.json"
                if shot_list.is_file() and shot_list not in listed.get(take.subject, []):
                    listed.setdefault(take.subject, []).append(shot_list)
        return [
            Actor(
                name=name,
                takes=tuple(sorted(grouped.get(name, []), key=lambda t: t.name)),
                files=tuple(listed.get(name, [])),
                rejected=tuple(rejected.get(name, [])),
            )
            for name in sorted({*grouped, *rejected})
        ]

    def _take(self, folder: Path, stem: str, file: Path, subject: str) -> Take:
        audio = find_audio(folder, stem)
        if audio is None and self.options.missing_audio != "silence":
            raise InputError(
                f"{file}: no sound file {stem}.wav beside it; --config.missing_audio=silence takes "
                "it as performed in silence"
            )
        listed = shots.read_shot_list(folder / "shots.json")
        said = {**curves.words(file), **listed.shots.get(stem, {})}
        emotion, track = shots.emotion_weights(file, stem, said, self.options.emotion)
        held_out = said.get("held_out")
        return Take(
            subject=str(said.get("subject") or subject),
            name=stem,
            audio=audio,
            data=(file,),
            sentence=str(said.get("sentence") or shots.sentence_of(stem)),
            language=str(said.get("language") or self.options.language),
            emotion=emotion,
            emotion_track=track,
            slate=stem.lower() == "slate",
            synthetic=listed.synthetic,
            held_out=None if held_out is None else bool(held_out),
            fps=self.options.fps or listed.fps,
            text=str(said.get("text") or ""),
        )

    def capture(self, take: Take) -> Capture:
        """Returns curves in rig order; see `Source.capture`."""
        file = take.data[0]
        found = curves.read(file, self.options.fps, otherwise=take.fps)
        notes = list(found.notes)
        others = [p.name for p in _tables(file.parent).get(take.name, []) if p != file]
        if others:
            notes.append(f"{file.name} is taken before {', '.join(others)}")
        return Capture(
            times=found.times, curves=found.curves, observed=found.observed, notes=tuple(notes)
        )

    def face(self, actor: str, part: str) -> Face | None:
        """Returns None: curves need no solving."""
        return None

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns None: tables have no mesh."""
        return None
