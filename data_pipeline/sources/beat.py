"""Reads the datasets BEAT and BEAT2 as they are distributed; file names say who, what and how.

    beat_english_v0.2.1/<speaker>/1_wayne_0_65_72.json, .wav          BEAT: ARKit weights
    beat_english_v2.0.0/smplxflame_30/1_wayne_0_65_72.npz             BEAT2: FLAME, needs a map
                       /wave16k/1_wayne_0_65_72.wav

A name is <speaker id>_<speaker>_<kind>_<first>_<last>, as the README of PantoMatrix explains. The
kind is 0 for English speech, 1 for English conversation, then the same in Chinese, Spanish and
Japanese. All speakers read the same 118 texts of a language, so the number of the first one is the
sentence; ranges of numbers were spoken in an emotion (`EMOTIONS`). Conversations are free: their
sentence is the speaker's own, and their name states no emotion. Channels of BEAT2 come from
expressions and the jaw by `--config.columns.map` (see `a2fjax.animation.linear_map`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a2fjax import archives
from a2fjax.animation import text_files
from a2fjax.errors import InputError
from data_pipeline.sources import SourceOptions, find_audio
from data_pipeline.sources.tables import TableSource

NAME = re.compile(r"(?P<id>\d+)_(?P<name>[^\W\d_]+)_(?P<kind>[0-7])_(?P<first>\d+)_(?P<last>\d+)")
LANGUAGES = ("en", "zh", "es", "ja")
EMOTIONS = (
    (64, "neutral"),
    (72, "joy"),
    (80, "anger"),
    (86, "sadness"),
    (94, "disgust"),  # contempt
    (102, "amazement"),
    (110, "fear"),
    (118, "disgust"),
)
"""Last number of each range of texts, and its emotion as one of NVIDIA's names."""

_SOUND_FOLDERS = ("wave16k", "wav", "audio")
_DEEPEST = 3


def recognise(path: Path) -> str | None:
    """Returns why a folder holds BEAT or BEAT2, or None."""
    recording = next(_recordings(path), None)
    return None if recording is None else f"recordings named as in BEAT, such as {recording.name}"


def open_source(path: Path, options: SourceOptions) -> BeatSource:
    """Returns the source of the dataset, of one language or of one speaker.

    Raises:
      InputError: there is no recording of BEAT.
    """
    if recognise(path) is None:
        raise InputError(f"{path}: no recording of BEAT in it or in its folders")
    return BeatSource(path, options)


def _recordings(path: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    try:
        with os.scandir(path) as inside:
            entries = sorted((e.name, e.is_dir()) for e in inside if not e.name.startswith("."))
    except OSError:
        return
    for name, is_folder in entries:
        file = path / name
        if not is_folder and NAME.fullmatch(file.stem) and _holds_face(file):
            yield file
    for name, is_folder in entries:
        if is_folder and depth:
            yield from _recordings(path / name, depth - 1)


def _holds_face(path: Path) -> bool:
    if path.suffix == ".json":
        head = text_files.read_head(path, 4096)
        return '"names"' in head or '"weights"' in head
    if path.suffix != ".npz":
        return False
    try:
        with archives.load_npz(path) as archive:
            return {"expressions", "poses"} <= set(archive)
    except InputError:
        return False


class BeatSource(TableSource):
    """Recordings by speaker; see the module."""

    layout = "beat"

    def folders(self) -> Iterator[Path]:
        """Yields the folders that hold recordings."""
        yield from dict.fromkeys(file.parent for file in _recordings(self.path))

    def stem_metadata(self, stem: str) -> dict[str, Any]:
        """Returns speaker, sentence, language and emotion of a recording; {} for other names."""
        match = NAME.fullmatch(stem)
        if match is None:
            return {}
        kind, first, last = (int(match[k]) for k in ("kind", "first", "last"))
        speaker = f"{match['id']}_{match['name']}"
        labels: dict[str, Any] = {"subject": speaker, "language": LANGUAGES[kind // 2]}
        if kind % 2:
            return {**labels, "sentence": f"{speaker}_{kind}_{first}"}
        labels["sentence"] = f"beat_{kind}_{first}"
        ends = [end for end, _ in EMOTIONS]
        ranges = [sum(number > end for end in ends) for number in (first, last)]
        if ranges[0] == ranges[1] < len(EMOTIONS):
            labels["emotion"] = {EMOTIONS[ranges[0]][1]: 1.0}
        return labels

    def audio(self, folder: Path, stem: str) -> Path | None:
        """Returns the audio file beside a recording, or in BEAT2's folder of audio."""
        folders = [folder, *(folder.parent / name for name in _SOUND_FOLDERS)]
        return next((a for f in folders if f.is_dir() and (a := find_audio(f, stem))), None)
