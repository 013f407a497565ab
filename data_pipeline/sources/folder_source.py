"""Base class of the layouts with a folder for each subject: meshes and vertex arrays.

Besides the takes, a subject's folder may hold

    neutral.(obj|ply|npy|npz)     the face at rest, in the units and axes of the takes
    rig.npz                       the subject's shapes, see `rigs.read_rig`; rig_tongue.npz: tongue
    rigid_vertex_list.json        vertices that only move with the head
    shots.json                    see `shot_list.ShotList`

The folder of the dataset may hold templates/<subject>.(obj|ply|npy|npz), and rig.npz,
rigid_vertex_list.json and shots.json for subjects that lack them.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.mesh import rigs
from data_pipeline.mesh.conventions import MILLIMETRES
from data_pipeline.mesh.file_checks import check_rate
from data_pipeline.sources import Actor, Blendshapes, Capture, SourceOptions, Take
from data_pipeline.sources.file_names import composed
from data_pipeline.sources.neutral import first_motion, given_neutral, read_neutral
from data_pipeline.sources.person_face import make_face
from data_pipeline.sources.person_files import PersonPlaces, person_files
from data_pipeline.sources.sequences import MotionFile
from data_pipeline.sources.shot_list import (
    SLATE,
    ShotList,
    make_take,
    read_shot_list,
    require_audio,
    sentence_from_name,
)
from data_pipeline.sources.subject_folders import Recording, SubjectFolder
from data_pipeline.timing import align


class FolderSource(abc.ABC):
    """A folder of subjects; subclasses find and open the takes."""

    layout: str

    def __init__(self, path: Path, options: SourceOptions):
        """Stores the arguments; reads nothing."""
        self.path = path
        self.options = options
        self._blendshapes: dict[tuple[str, str], Blendshapes | None] = {}
        self._subjects: dict[str, SubjectFolder] = {}
        self._first_recordings: dict[tuple[str, int], MotionFile | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Drops the caches, because each worker process reads its own share."""
        return {**self.__dict__, "_blendshapes": {}, "_subjects": {}, "_first_recordings": {}}

    @abc.abstractmethod
    def folders(self) -> list[tuple[str, Path, list[Path]]]:
        """Returns (name, folder, takes) of every subject.

        The user's `subject` replaces the name if the folder is that of the dataset. The folder need
        not exist if the takes of several subjects are in one folder.
        """

    @abc.abstractmethod
    def recording(self, folder: Path, take: Path) -> Recording:
        """Returns the files of a take that `folders` listed."""

    def recordings(self, folder: Path, take: Path) -> list[Recording]:
        """Returns the recordings in a file or folder that `folders` listed: one, or several."""
        return [self.recording(folder, take)]

    def find_subjects(self) -> list[SubjectFolder]:
        """Returns the subjects."""
        subjects = []
        for name, folder, takes in self.folders():
            if self.options.subject and folder == self.path:
                name = self.options.subject
            recordings: dict[str, Recording] = {}
            for take in takes:
                # Frames and a cache made from them are the same take.
                for recording in self.recordings(folder, take):
                    named = dataclasses.replace(recording, name=composed(recording.name))
                    recordings.setdefault(named.name, named)
            subjects.append(
                SubjectFolder(
                    name=composed(name),
                    folders=tuple(dict.fromkeys((folder, self.path))),
                    recordings=tuple(recordings[n] for n in sorted(recordings)),
                )
            )
        return subjects

    @abc.abstractmethod
    def open(self, path: Path, take: str) -> MotionFile:
        """Opens a file or folder of a take, which may hold several animations.

        Raises:
          InputError: the file is missing, damaged or of another kind.
        """

    def _open(self, path: Path, take: str) -> MotionFile:
        """Opens a file; what the user states counts instead of what the file states."""
        moving = dataclasses.replace(self.open(path, take), name=str(path))
        if self.options.units != "auto":
            scale = MILLIMETRES[self.options.units]
            moving = dataclasses.replace(moving, millimetres=scale)
        if self.options.axes != "auto":
            moving = dataclasses.replace(moving, axes=None)
        return moving

    def _person(self, actor: str) -> SubjectFolder:
        if not self._subjects:
            self._subjects = {subject.name: subject for subject in self.find_subjects()}
        return self._subjects[actor]

    def actors(self) -> list[Actor]:
        """Returns the actors; see `Source.actors`."""
        return [self._actor(p) for p in sorted(self.find_subjects(), key=lambda p: p.name)]

    def _actor(self, subject: SubjectFolder) -> Actor:
        list_path = subject.extra("shots.json")
        try:
            listed = read_shot_list(list_path) if list_path else ShotList()
        except InputError as error:
            return Actor(name=subject.name, takes=(), rejected=((subject.name, str(error)),))
        takes, rejected = [], []
        for recording in subject.recordings:
            try:
                takes.append(self._take(subject, recording, list_path, listed))
            except InputError as error:
                rejected.append((recording.name, str(error)))
        if list_path and list_path.parent == subject.folders[0]:
            names = {recording.name for recording in subject.recordings}
            rejected += [
                (shot, f"{list_path}: {shot} is listed, its motion is not in {list_path.parent}")
                for shot in sorted(set(listed.shots) - names)
            ]
        shared = ("shots.json", "rig.npz", "rig_tongue.npz", "rigid_vertex_list.json")
        files = [subject.extra(name) for name in shared]
        files += [subject.neutral(), self._template()]
        return Actor(
            name=subject.name,
            takes=tuple(takes),
            files=tuple(dict.fromkeys(f for f in files if f is not None and f.exists())),
            rejected=tuple(rejected),
        )

    def _template(self) -> Path | None:
        return Path(self.options.rig) if self.options.rig else None

    def _take(
        self, subject: SubjectFolder, recording: Recording, list_path: Path | None, listed: ShotList
    ) -> Take:
        # The shot list of a whole dataset names takes like its files: subject_take.
        full = f"{subject.name}_{recording.name}"
        entry = listed.shots.get(full) or listed.shots.get(recording.name, {})
        missing = f"{recording.data[0]}: no sound file {recording.name}.wav for it"
        require_audio(recording.audio, self.options, missing)
        return make_take(
            listed,
            entry,
            self.options,
            where=list_path or subject.folders[0],
            subject=subject.name,
            name=recording.name,
            audio=recording.audio,
            data=recording.data,
            emotion_name=recording.name,
            sentence=recording.sentence or sentence_from_name(recording.name),
            slate=recording.name == SLATE,
            fps=self.options.fps or listed.fps,
        )

    def capture(self, take: Take) -> Capture:
        """Returns vertices or curves; see `Source.capture`."""
        moving = self._open(take.data[0], take.name)
        times = _times(take, moving)
        tongue = None
        if len(take.data) > 1:
            other = self._open(take.data[1], take.name)
            tongue = other.vertices
            if tongue is None or tongue.shape[0] != len(times):
                frames = 0 if tongue is None else tongue.shape[0]
                raise InputError(f"{take.data[1]}: {frames} frames, the skin has {len(times)}")
            if not np.array_equal(other.numbers, moving.numbers):
                raise InputError(f"{take.data[1]}: other frames are missing than the skin's")
        return Capture(
            times=times,
            skin=moving.vertices,
            tongue=tongue,
            millimetres=moving.millimetres,
            axes=moving.axes,
            curves=moving.curves,
            observed=moving.observed,
            notes=moving.notes,
        )

    def _rig_path(self, subject: SubjectFolder) -> Path | None:
        """Returns the rig file used to solve the skin, or None."""
        subject_rig = subject.folders[0] / "rig.npz"
        return (
            subject_rig
            if os.path.lexists(subject_rig)
            else self._template() or subject.extra("rig.npz")
        )

    def blendshapes(self, actor: str, part: str) -> Blendshapes | None:
        """Returns the subject's blendshapes, else a template's transferred to the neutral.

        Raises:
          InputError: their topology differs from that of the takes.
        """
        key = (actor, part)
        if key not in self._blendshapes:
            self._blendshapes[key] = self._read_blendshapes(self._person(actor), part)
        return self._blendshapes[key]

    def _read_blendshapes(self, subject: SubjectFolder, part: str) -> Blendshapes | None:
        path = subject.folders[0] / f"rig_{part}.npz" if part != "skin" else self._rig_path(subject)
        if path is None or (part != "skin" and not os.path.lexists(path)):
            return None  # curves need no blendshapes
        rig = rigs.read_rig(path)
        files = person_files(self._places(subject), path, rig, part)
        if part == "skin" and not len(rig.faces):
            # Shapes are transferred more accurately with triangles of the same topology.
            rig = dataclasses.replace(rig, faces=self._triangles(subject, len(rig.neutral)))
        return make_face(rig, files, axes=self.options.axes, mouth_close=self.options.mouth_close)

    def _places(self, subject: SubjectFolder) -> PersonPlaces:
        own = subject.folders[0]
        hint = f" (pickles are refused: give templates/{subject.name}.npy instead)"

        def vertex_list(part: str) -> Path | None:
            return subject.extra("rigid_vertex_list.json") if part == "skin" else None

        return PersonPlaces(
            name=subject.name,
            options=self.options,
            shots=subject.extra("shots.json"),
            skin_rig=self._rig_path(subject),
            is_own=lambda path, part: path == own / ("rig.npz" if part == "skin" else path.name),
            vertex_list=vertex_list,
            neutral=lambda: given_neutral(subject.neutral()),
            takes=self._openers(subject),
            first=lambda vertices: self._first(subject, vertices),
            hint=hint if subject.extra("templates.pkl") else "",
        )

    def _openers(self, subject: SubjectFolder) -> list[Callable[[], MotionFile]]:
        return [functools.partial(self._open, r.data[0], r.name) for r in subject.recordings]

    def _first(self, subject: SubjectFolder, vertices: int = 0) -> MotionFile | None:
        key = subject.name, vertices
        if key not in self._first_recordings:
            self._first_recordings[key] = first_motion(self._openers(subject), vertices)
        return self._first_recordings[key]

    def _triangles(self, subject: SubjectFolder, vertices: int = 0) -> np.ndarray:
        """Returns the faces [F, 3] of the subject's neutral or takes; may be empty."""
        given, first = subject.neutral(), self._first(subject, vertices)
        faces = read_neutral(given)[1] if given is not None else np.zeros((0, 3), np.int32)
        return first.faces if not len(faces) and first is not None else faces

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the neutral in the rig's axes and its faces; see `Source.mesh`."""
        subject = self._person(actor)
        face, shapes = self.blendshapes(actor, "skin"), self._rig_path(subject)
        if face is None or shapes is None:
            first = self._first(subject)
            if first is None or first.rest is None:
                return None
            return first.rest * (first.millimetres or 1.0), first.faces
        faces = self._triangles(subject, len(face.neutral))
        if not len(faces):
            faces = rigs.read_rig(shapes).faces
        if len(faces) and faces.max() >= len(face.neutral):
            faces = np.zeros((0, 3), np.int32)
        return face.neutral / face.millimetres, faces


def _times(take: Take, moving: MotionFile) -> np.ndarray:
    if not len(moving.numbers):
        raise InputError(f"{take.data[0]}: has no frames")
    times = moving.times
    if take.fps > 0:
        times = moving.numbers / align.exact_rate(take.fps)
    if times is None:
        raise InputError(
            f"{take.data[0]}: its frame rate is in no file; give --config.fps=... or "
            '"fps" in shots.json (VOCASET has 60, BIWI 25, Multiface 30)'
        )
    check_rate(take.data[0], times)
    return times
