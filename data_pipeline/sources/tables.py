"""Layout of curves solved by other tools: a file of named channels beside an audio file of the same
stem, in one folder or in a folder per subject.

The formats are those of `a2fjax.animation.curve_reader`. An optional shots.json in the folder holds
metadata that file names cannot express, and an .npz may hold the strings sentence, language,
subject, text and emotion.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a2fjax.errors import InputError
from data_pipeline.sources import Actor, Capture, SourceOptions, Take, curves, find_audio, shot_list
from data_pipeline.sources.file_names import composed


def recognise(path: Path) -> str | None:
    """Returns why a folder holds curve tables, or None."""
    kinds = [
        files[0].suffix.lower()
        for folder in _folders(path)
        for stem, files in _tables(folder, SourceOptions()).items()
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
        raise InputError(f"{path}: no file of curves in it or in its folders")
    return source


def _folders(path: Path) -> Iterator[Path]:
    yield path
    yield from sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _tables(folder: Path, options: SourceOptions) -> dict[str, list[Path]]:
    """Returns tables by stem, best format first; those without audio must look like curves."""
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in curves.ENDINGS:
            continue
        if path.name != "shots.json":
            by_stem.setdefault(_stem(path), []).append(path)
    tables = {}
    for stem, files in by_stem.items():
        # A text beside an audio file is more often its transcript.
        checked = [f for f in files if f.suffix.lower() == ".txt"]
        if find_audio(folder, stem) is None:
            checked = files
        files = [f for f in files if f not in checked or curves.looks_like_curves(f, options)]
        if files:
            tables[stem] = sorted(files, key=lambda f: curves.ENDINGS.index(f.suffix.lower()))
    return tables


def _stem(path: Path) -> str:
    """Returns a table's name without the suffix that `a2fjax infer` adds, in composed Unicode."""
    return composed(path.stem).removesuffix(".channels")


class TableSource(curves.CurveSource):
    """Tables in one folder (one subject) or in a folder per subject."""

    layout = "table"

    def folders(self) -> Iterator[Path]:
        """Yields the folders that may hold tables."""
        return _folders(self.path)

    def stem_metadata(self, stem: str) -> dict[str, Any]:
        """Returns the entry of a shot list that a table's name implies."""
        return {}

    def audio(self, folder: Path, stem: str) -> Path | None:
        """Returns the audio file of a table, or None."""
        return find_audio(folder, stem)

    def actors(self) -> list[Actor]:
        """Returns an actor for each folder; see `Source.actors`."""
        listed_takes: list[tuple[Path, Take]] = []
        rejected: dict[str, list[tuple[str, str]]] = {}
        listed: dict[str, list[Path]] = {}
        for folder in self.folders():
            subject = composed(folder.resolve().name)
            if self.options.subject and folder == self.path:
                subject = self.options.subject
            for stem, files in _tables(folder, self.options).items():
                try:
                    take = self._take(folder, stem, files[0], subject)
                except InputError as error:
                    rejected.setdefault(subject, []).append((stem, str(error)))
                    continue
                listed_takes.append((folder, take))
                list_path = folder / "shots.json"
                if list_path.is_file() and list_path not in listed.get(take.subject, []):
                    listed.setdefault(take.subject, []).append(list_path)
        # One subject's files may be in several folders, under the same names.
        often = Counter((take.subject, take.name) for _, take in listed_takes)
        grouped: dict[str, list[Take]] = {}
        for folder, take in listed_takes:
            if often[take.subject, take.name] > 1:
                take = dataclasses.replace(take, name=f"{folder.resolve().name}_{take.name}")
            grouped.setdefault(take.subject, []).append(take)
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
        audio = self.audio(folder, stem)
        shot_list.require_audio(audio, self.options, f"{file}: no sound file {stem}.wav beside it")
        listed = shot_list.read_shot_list(folder / "shots.json")
        entry = {
            **self.stem_metadata(stem),
            **curves.read_metadata(file),
            **listed.shots.get(stem, {}),
        }
        return shot_list.make_take(
            listed,
            entry,
            self.options,
            where=file,
            subject=str(entry.get("subject") or subject),
            name=stem,
            audio=audio,
            data=(file, *self.settings_files()),
            emotion_name=stem,
            sentence=shot_list.sentence_from_name(stem),
            slate=stem.lower() == shot_list.SLATE,
            fps=self.options.fps or listed.fps,
        )

    def capture(self, take: Take) -> Capture:
        """Returns curves in rig order; see `Source.capture`."""
        file = take.data[0]
        table = curves.read_curves(file, self.options, otherwise=take.fps)
        notes = list(table.notes)
        others = [
            p.name for p in _tables(file.parent, self.options).get(_stem(file), []) if p != file
        ]
        if others:
            notes.append(f"{file.name} is taken before {', '.join(others)}")
        return Capture(
            times=table.times, curves=table.curves, observed=table.observed, notes=tuple(notes)
        )
