"""Reads Live Link Face recordings, as stored on the phone or as a flat folder of CSV files.

    <person>/<date>_<slate>_<take>/<slate>_<take>_<device>.csv          weights, uncalibrated
                                  /<slate>_<take>_<device>_cal.csv      calibrated, then with
                                  /<slate>_<take>_<device>_raw.csv      the uncalibrated and
                                  /<slate>_<take>_<device>_neutral.csv  the neutral pose apart
                                  /<slate>_<take>_<device>.mov          video with sound
                                  /take.json, frame_log.csv, thumbnail.jpg, ...

File names are those that Epic's importers expect. A .wav (or other audio file) of the same name is
preferred to the video's sound, and calibrated files to raw ones.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections import Counter
from pathlib import Path

from a2fjax import budgets, timecode
from a2fjax.animation import livelink, row_times
from a2fjax.audio import io as audio_io
from a2fjax.errors import InputError
from data_pipeline.sources import AUDIO_SUFFIXES, Actor, Capture, SourceOptions, Take, shot_list
from data_pipeline.sources.curves import CurveSource, read_curves
from data_pipeline.sources.file_names import composed

_NAME = re.compile(r"(?P<slate>.+)_(?P<take>\d+)_(?P<device>.+)", re.DOTALL)
_KINDS = ("cal", "", "raw")
_SAID = {"cal": "calibrated", "": "uncalibrated", "raw": "uncalibrated"}
_FILMS = (".m4a", ".mp4", ".mov")
_GENERIC = re.compile(r"(?:my)?(?:iphone|ipad)[\w ,.-]*", re.IGNORECASE)
_DEFAULT_SLATES = ("myslate", "defaultslate")
_DEEPEST = 3  # folder levels below the given one: person, export, take


@dataclasses.dataclass(frozen=True)
class Recording:
    """The files of one take.

    Attributes:
      folder: folder that contains the files.
      base: their common name, <slate>_<take>_<device>.
      files: CSV by kind ("cal", "" or "raw").
    """

    folder: Path
    base: str
    files: dict[str, Path]

    @property
    def parts(self) -> tuple[str, str, str]:
        """Slate, take and device; only a slate if the name has another form."""
        match = _NAME.fullmatch(self.base)
        return (match["slate"], match["take"], match["device"]) if match else (self.base, "", "")

    @property
    def kind(self) -> str:
        """Kind of the file to read."""
        return next(k for k in _KINDS if k in self.files)

    def named_after_it(self, folder: str) -> bool:
        """Returns whether a folder's name ends with this take's, so that it holds nothing else."""
        slate, take, _ = self.parts
        name = folder.lower()
        return name.endswith((self.base.lower(), f"{slate}_{take}".lower())) and bool(take)


def recognise(path: Path) -> str | None:
    """Returns why a folder holds Live Link Face recordings, or None."""
    recordings = [
        r for r in _recordings(path) if any(livelink.is_recording(p) for p in r.files.values())
    ]
    if not recordings:
        return None
    return f"{len(recordings)} Live Link Face recordings"


def open_source(path: Path, options: SourceOptions) -> LiveLinkSource:
    """Returns the source of a folder of recordings, of one take, or of folders per person.

    Raises:
      InputError: there is no Live Link Face CSV.
    """
    if not recognise(path):
        raise InputError(f"{path}: no Live Link Face CSV in it or in its folders")
    return LiveLinkSource(path, options)


def _recordings(path: Path) -> list[Recording]:
    grouped: dict[tuple[Path, str], dict[str, Path]] = {}
    for file in _tables(path, _DEEPEST):
        stem = file.stem
        kind = next((k for k in ("cal", "raw", "neutral") if stem.lower().endswith(f"_{k}")), "")
        base = stem[: -len(kind) - 1] if kind else stem
        if kind != "neutral" and base:
            grouped.setdefault((file.parent, base), {})[kind] = file
    return [Recording(folder, base, files) for (folder, base), files in grouped.items()]


def _tables(folder: Path, depth: int) -> list[Path]:
    # scandir finds folders without a stat call per file; scans have hundreds of thousands.
    try:
        with os.scandir(folder) as inside:
            entries = sorted((e.name, e.is_dir()) for e in inside if not e.name.startswith("."))
    except OSError:
        return []
    # A file with such a name counts as a recording, even if it is empty or damaged.
    files = [
        folder / name
        for name, is_folder in entries
        if name.lower().endswith(".csv")
        and (_NAME.fullmatch(name[:-4]) or (not is_folder and livelink.is_recording(folder / name)))
        and not (is_folder and _holds(folder / name))
    ]
    for name, is_folder in entries:
        if depth and is_folder:
            files += _tables(folder / name, depth - 1)
    return files


def _holds(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return True


class LiveLinkSource(CurveSource):
    """Recordings by person; see the module."""

    layout = "livelink"

    def actors(self) -> list[Actor]:
        """Returns one actor per folder or named device; see `Source.actors`."""
        people: dict[str, list[Recording]] = {}
        for recording in _recordings(self.path):
            people.setdefault(self._subject(recording), []).append(recording)
        return [self._actor(name, people[name]) for name in sorted(people)]

    def _person(self, recording: Recording) -> Path:
        """Returns the folder that holds a person's takes."""
        folder = recording.folder
        while folder != self.path and recording.named_after_it(folder.name):
            folder = folder.parent
        return folder

    def _subject(self, recording: Recording) -> str:
        folder = self._person(recording)
        if folder != self.path:
            return folder.relative_to(self.path).as_posix()
        if self.options.subject:
            return self.options.subject
        device = str(_take_json(recording).get("subject") or recording.parts[2])
        if device and not _GENERIC.fullmatch(device):
            return device
        name = self.path.resolve().name
        return (device if recording.named_after_it(name) else "") or name

    def _actor(self, name: str, recordings: list[Recording]) -> Actor:
        takes: list[Take] = []
        rejected: list[tuple[str, str]] = []
        files: dict[Path, None] = {}
        often = Counter(r.base for r in recordings)
        for recording in recordings:
            shot = recording.base
            if often[shot] > 1:
                shot = "_".join([*recording.folder.relative_to(self.path).parts, shot])
            listed = self._person(recording) / "shots.json"
            if listed.is_file():
                files[listed] = None
            try:
                takes.append(self._take(name, shot, recording, listed))
            except InputError as error:
                rejected.append((shot, str(error)))
        return Actor(
            name=name,
            takes=tuple(sorted(takes, key=lambda t: t.name)),
            files=tuple(files),
            rejected=tuple(rejected),
        )

    def _take(self, subject: str, shot: str, recording: Recording, list_path: Path) -> Take:
        listed = shot_list.read_shot_list(list_path)
        slate = recording.parts[0]
        entry = listed.shots.get(shot, listed.shots.get(recording.base, {}))
        # Names of persons and devices must not be searched for emotions ("Joyce").
        says = shot if {"emotion", "emotion_track"} & entry.keys() else slate
        file = recording.files[recording.kind]
        table = row_times.read_timecodes(file)
        audio, silent = _sound(recording)
        nothing = f"{recording.folder / recording.base}.wav: no such file, and no .mov"
        shot_list.require_audio(audio, self.options, silent or nothing)
        # The app's default slate does not identify a sentence; a named slate is a line, and its
        # takes are readings of that line.
        line = shot if slate.lower() in _DEFAULT_SLATES else slate
        return shot_list.make_take(
            listed,
            entry,
            self.options,
            where=list_path,
            subject=subject,
            name=shot,
            audio=audio,
            data=(file, *self.settings_files()),
            emotion_name=says,
            sentence=shot_list.sentence_from_name(line),
            slate=slate.lower() == shot_list.SLATE,
            offset=None if audio is None else _offset(recording, audio, table),
        )

    def capture(self, take: Take) -> Capture:
        """Returns the channels at the rows' timecodes; see `Source.capture`."""
        named = read_curves(take.data[0], self.options)
        stem = take.data[0].stem.lower()
        kind = next((k for k in ("cal", "raw") if stem.endswith(f"_{k}")), "")
        others = [
            p.name
            for r in _recordings(take.data[0].parent)
            for p in r.files.values()
            if take.data[0] in r.files.values() and p != take.data[0]
        ]
        which = f"{_SAID[kind]} weights"
        if others:
            which += f" ({take.data[0].name} is taken before {', '.join(sorted(others))})"
        return Capture(
            times=named.times,
            curves=named.curves,
            observed=named.observed,
            notes=(which, *named.notes),
        )


def _take_json(recording: Recording) -> dict:
    """Returns the content of take.json (slate, take, subject, calibrated, frames, ...), or {}.

    It only repeats the files' names and counts, so recordings without it, or with a damaged one,
    are complete.
    """
    try:
        data = budgets.load_json(recording.folder / "take.json")
    except (OSError, ValueError):
        return {}
    same = isinstance(data, dict) and str(data.get("slate")) == recording.parts[0]
    return data if same else {}


def _sound(recording: Recording) -> tuple[Path | None, str]:
    """Returns the audio of a take or None, and the reason if its video has no sound."""
    slate, take, _ = recording.parts
    stems = [recording.base, *(f.stem for f in recording.files.values())]
    if take:
        stems.append(f"{slate}_{take}")
    inside = {
        composed(p.name).lower(): p for p in sorted(recording.folder.iterdir()) if p.is_file()
    }
    names = [composed(f"{stem}{suffix}").lower() for suffix in AUDIO_SUFFIXES for stem in stems]
    candidates = [inside[name] for name in names if name in inside]
    if not candidates and recording.named_after_it(recording.folder.name):
        # An audio file in the take's folder belongs to the take, whatever its name.
        sounds = [p for p in inside.values() if p.suffix.lower() in AUDIO_SUFFIXES]
        candidates = sounds if len(sounds) == 1 else []
    why = ""
    for path in candidates:
        if path.suffix.lower() not in _FILMS:
            return path, ""
        try:
            audio_io.info(path)
        except InputError as error:
            if "no audio track" not in str(error):
                return path, ""  # The error is reported when it is read.
            why = str(error)
        else:
            return path, ""
    return None, why


def _offset(recording: Recording, audio: Path, table: livelink.Table) -> float | None:
    """Returns audio time minus capture time in s if both files state the time of day, or None."""
    try:
        started = None
        if audio.suffix.lower() == ".mov":
            started = _film_start(recording.folder / "frame_log.csv", table.column.reading)
        if started is None:
            started = audio_io.recording_start(audio)
        if started is None:
            return None
        seconds = audio_io.info(audio)[0]
    except InputError:
        return None  # The error is reported when it is read.
    day, length = timecode.DAY, float(table.times()[-1])
    offsets = [(s - started + day / 2) % day - day / 2 for s in table.column.possible_starts()]
    # Clocks that were never synchronised give no offset.
    return min((s for s in offsets if -length < s < seconds), key=abs, default=None)


def _film_start(log: Path, reading: timecode.Reading) -> float | None:
    """Returns the time of day of a video's first frame, to fractions of a frame, or None.

    Rows of the app's frame_log.csv are: kind (V for video), number, time, time unit, timecode.
    """
    try:
        text = budgets.read_table(log).decode("utf-8-sig")
        for row in csv.reader(io.StringIO(text, newline="")):
            if len(row) >= 5 and row[0].strip() == "V" and row[1].strip() == "0":
                return reading.time_of_day(timecode.parse(row[4]))
    except (OSError, UnicodeDecodeError, csv.Error, InputError):
        return None
    return None
