"""People in folders: what the layouts of meshes and of vertex arrays have in common.

Beside their takes, a person's folder may hold

    neutral.(obj|ply|npy|npz)     the face at rest, in the units and axes of the takes
    rig.npz                       their own shapes, see `rigs.read`; rig_tongue.npz of the tongue
    rigid_vertex_list.json        vertices that only move with the head
    shots.json                    see `shots.ShotList`

and the folder of the whole set templates/<person>.(obj|ply|npy|npz), and for everyone who has none
rig.npz, rigid_vertex_list.json and shots.json.
"""

from __future__ import annotations

import abc
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.animation import mesh as mesh_files
from a2fjax.errors import InputError
from data_pipeline.mesh import rest, rigs
from data_pipeline.mesh.conventions import MILLIMETRES
from data_pipeline.mesh.file_checks import READ_ERRORS, check_rate, one_line
from data_pipeline.mesh.geometry import Vertices
from data_pipeline.sources import Actor, Blendshapes, Capture, SourceOptions, Take, find_audio
from data_pipeline.sources.sequences import MotionFile, ScaledVertices
from data_pipeline.sources.shot_list import (
    SLATE,
    ShotList,
    make_take,
    read_shot_list,
    require_audio,
    sentence_from_name,
)
from data_pipeline.timing import align

AUDIO_FOLDERS = ("audio", "wav", "wavs")
RESERVED = ("neutral", "rig", "rig_tongue", "faces", "template", "templates", "rigid_vertex_list")
"""Stems of files that are no takes."""

_NEUTRAL_TAKES = 8
_NEUTRAL_ENDS = 4  # frames at the start and at the end of a take
_NEUTRAL_SPREAD = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A take as it lies on disk.

    Attributes:
      name: of the take.
      data: its files or folders of motion: skin, then tongue if there is one.
      audio: its sound file, or None.
      sentence: key, or "" to take it from the name.
    """

    name: str
    data: tuple[Path, ...]
    audio: Path | None
    sentence: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubjectFolder:
    """A person's recordings, and where what belongs to the person is looked for.

    Attributes:
      name: of the person.
      folders: the person's own, then the set's; the same once where there is only one.
      recordings: in order of their names.
    """

    name: str
    folders: tuple[Path, ...]
    recordings: tuple[Recording, ...]

    def extra(self, name: str) -> Path | None:
        """Returns a file of that name from the person's folder, else from the set's, or None."""
        return next((f / name for f in self.folders if (f / name).is_file()), None)

    def neutral(self) -> Path | None:
        """Returns the person's neutral mesh, or None."""
        stems = [self.folders[0] / "neutral"]
        stems += [folder / "templates" / self.name for folder in self.folders]
        for stem in stems:
            for ending in (".npy", ".npz", ".ply", ".obj"):
                path = stem.with_name(stem.name + ending)
                if path.is_file():
                    return path
        return None


class FolderSource(abc.ABC):
    """A set of people in folders; layouts say how takes are found and opened."""

    layout: str

    def __init__(self, path: Path, options: SourceOptions):
        """Keeps where and how; reads nothing."""
        self.path = path
        self.options = options
        self._faces: dict[tuple[str, str], Blendshapes | None] = {}
        self._people: dict[str, SubjectFolder] = {}
        self._firsts: dict[tuple[str, int], MotionFile | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves what was read behind: a worker process reads its own part."""
        return {**self.__dict__, "_faces": {}, "_people": {}, "_firsts": {}}

    @abc.abstractmethod
    def folders(self) -> list[tuple[str, Path, list[Path]]]:
        """Returns (name, folder, takes) of everyone; the whole set's folder is the user's to name.

        It need not exist where takes of several people lie in one folder.
        """

    @abc.abstractmethod
    def recording(self, folder: Path, take: Path) -> Recording:
        """Returns what belongs to a take that `folders` found."""

    def find_people(self) -> list[SubjectFolder]:
        """Returns everyone in the set."""
        people = []
        for name, folder, takes in self.folders():
            if self.options.subject and folder == self.path:
                name = self.options.subject
            recordings: dict[str, Recording] = {}
            for take in takes:
                # A take in two forms (frames, and a cache made of them) is one take.
                found = self.recording(folder, take)
                recordings.setdefault(found.name, found)
            people.append(
                SubjectFolder(
                    name=name,
                    folders=tuple(dict.fromkeys((folder, self.path))),
                    recordings=tuple(recordings[n] for n in sorted(recordings)),
                )
            )
        return people

    @abc.abstractmethod
    def open(self, path: Path) -> MotionFile:
        """Opens a recording.

        Raises:
          InputError: missing, damaged or not such a file.
        """

    def _person(self, actor: str) -> SubjectFolder:
        if not self._people:
            self._people = {person.name: person for person in self.find_people()}
        return self._people[actor]

    def actors(self) -> list[Actor]:
        """Returns everyone; see `Source.actors`."""
        return [self._actor(p) for p in sorted(self.find_people(), key=lambda p: p.name)]

    def _actor(self, person: SubjectFolder) -> Actor:
        where = person.extra("shots.json")
        try:
            listed = read_shot_list(where) if where else ShotList()
        except InputError as error:
            return Actor(name=person.name, takes=(), rejected=((person.name, str(error)),))
        takes, rejected = [], []
        for recording in person.recordings:
            try:
                takes.append(self._take(person, recording, where, listed))
            except InputError as error:
                rejected.append((recording.name, str(error)))
        if where and where.parent == person.folders[0]:
            found = {recording.name for recording in person.recordings}
            rejected += [
                (shot, f"{where}: {shot} is listed, its motion is not in {where.parent}")
                for shot in sorted(set(listed.shots) - found)
            ]
        names = ("shots.json", "rig.npz", "rig_tongue.npz", "rigid_vertex_list.json")
        files = [person.extra(name) for name in names]
        files += [person.neutral(), self._template()]
        return Actor(
            name=person.name,
            takes=tuple(takes),
            files=tuple(dict.fromkeys(f for f in files if f is not None and f.exists())),
            rejected=tuple(rejected),
        )

    def _template(self) -> Path | None:
        return Path(self.options.rig) if self.options.rig else None

    def _take(
        self, person: SubjectFolder, recording: Recording, where: Path | None, listed: ShotList
    ) -> Take:
        # A list for the whole set names takes as the set's files are: person_take.
        full = f"{person.name}_{recording.name}"
        said = listed.shots.get(full) or listed.shots.get(recording.name, {})
        missing = f"{recording.data[0]}: no sound file {recording.name}.wav for it"
        require_audio(recording.audio, self.options, missing)
        return make_take(
            listed,
            said,
            self.options,
            where=where or person.folders[0],
            subject=person.name,
            name=recording.name,
            audio=recording.audio,
            data=recording.data,
            acted=recording.name,
            line=recording.sentence or sentence_from_name(recording.name),
            slate=recording.name == SLATE,
            fps=self.options.fps or listed.fps,
        )

    def capture(self, take: Take) -> Capture:
        """Returns vertices or curves; see `Source.capture`."""
        moving = self.open(take.data[0])
        times = _times(take, moving)
        skin = moving.vertices
        if skin is not None:
            skin = self._in_the_faces_unit(self._person(take.subject), moving.units, skin)
        tongue = None
        if len(take.data) > 1:
            other = self.open(take.data[1])
            tongue = other.vertices
            if tongue is None or tongue.shape[0] != len(times):
                frames = 0 if tongue is None else tongue.shape[0]
                raise InputError(f"{take.data[1]}: {frames} frames, the skin has {len(times)}")
            if not np.array_equal(other.numbers, moving.numbers):
                raise InputError(f"{take.data[1]}: other frames are missing than the skin's")
        return Capture(
            times=times,
            skin=skin,
            tongue=tongue,
            curves=moving.curves,
            observed=moving.observed,
        )

    def _in_the_faces_unit(self, person: SubjectFolder, units: str, vertices: Vertices) -> Vertices:
        """Returns vertices in the unit that the person's face is in: files may say another one."""
        first = self._first(person)
        if self._shapes(person) is None or (
            units == (first.units if first else "") and person.neutral() is None
        ):
            return vertices
        own = units or self._units(person)
        face = self.face(person.name, "skin")
        if own == "auto" or face is None:
            return vertices
        scale = MILLIMETRES[own] / face.millimetres
        return vertices if scale == 1.0 else ScaledVertices(vertices, scale)

    def _shapes(self, person: SubjectFolder) -> Path | None:
        """Returns the file of the shapes that the skin is solved on, or None."""
        own = person.folders[0] / "rig.npz"
        return own if own.is_file() else self._template() or person.extra("rig.npz")

    def face(self, actor: str, part: str) -> Blendshapes | None:
        """Returns the person's own shapes, else a template's on their neutral; see `Source.face`.

        Raises:
          InputError: they are not of the takes' topology.
        """
        key = (actor, part)
        if key not in self._faces:
            self._faces[key] = self._read_face(self._person(actor), part)
        return self._faces[key]

    def _read_face(self, person: SubjectFolder, part: str) -> Blendshapes | None:
        own = person.folders[0] / ("rig.npz" if part == "skin" else f"rig_{part}.npz")
        if part != "skin" and not own.is_file():
            return None
        path = own if own.is_file() else self._shapes(person)
        if path is None:
            return None  # Curves need none.
        rig = rigs.read_rig(path)
        neutral, stated, units = None, "", self._units(person)
        how = ""
        if part == "skin":
            neutral = self._given_neutral(person)
            how = f"neutral: {person.neutral()}" if neutral is not None else ""
            if neutral is None:
                neutral, stated = self._rest(person, len(rig.neutral))
                units = stated or units
            # Shapes of their own are in the capture's unit and axes, unless its files say theirs.
            if neutral is None and (path != own or stated):
                neutral = self._estimated_neutral(person, rig)
                how = "neutral: estimated from frames at rest"
                if person.extra("templates.pkl"):
                    how += f" (pickles are refused: give templates/{person.name}.npy instead)"
            if neutral is not None and not len(rig.faces):
                # The topology is the same: shapes are carried over better along its triangles.
                rig = dataclasses.replace(rig, faces=self._triangles(person, len(rig.neutral)))
        rigid = person.extra("rigid_vertex_list.json") if part == "skin" else None
        face = rigs.make_blendshapes(
            rig,
            neutral=neutral,
            units=units,
            axes=self.options.axes,
            mouth_close=self.options.mouth_close,
            stable=read_vertex_list(rigid, len(rig.neutral)) if rigid else None,
            part=part,
            name=f"{person.name}: {path}",
        )
        return dataclasses.replace(face, notes=(*face.notes, how)) if how else face

    def _units(self, person: SubjectFolder) -> str:
        if self.options.units != "auto":
            return self.options.units
        where = person.extra("shots.json")
        return (read_shot_list(where).units if where else "") or "auto"

    def _given_neutral(self, person: SubjectFolder) -> np.ndarray | None:
        path = person.neutral()
        if path is None:
            return None
        return read_neutral(path)[0].astype(np.float64)

    def _first(self, person: SubjectFolder, vertices: int = 0) -> MotionFile | None:
        """Returns a recording, with one frame of it, or None where none can be opened.

        It is the first that has this number of vertices, else the first: one take of another
        topology is not to decide for all.
        """
        key = person.name, vertices
        if key not in self._firsts:
            found = None
            for recording in person.recordings:
                try:
                    opened = self.open(recording.data[0])
                    if opened.vertices is not None:  # a whole archive is not to be kept
                        frame = np.array(opened.vertices[0:1])
                        opened = dataclasses.replace(opened, vertices=frame)
                except InputError:
                    continue
                found = found or opened
                mesh = opened.rest if opened.vertices is None else opened.vertices[0:1][0]
                if not vertices or (mesh is not None and len(mesh) == vertices):
                    found = opened
                    break
            self._firsts[key] = found
        return self._firsts[key]

    def _triangles(self, person: SubjectFolder, vertices: int = 0) -> np.ndarray:
        """Returns the faces [F, 3] that the person's neutral or takes have; maybe none."""
        given, first = person.neutral(), self._first(person, vertices)
        faces = read_neutral(given)[1] if given is not None else np.zeros((0, 3), np.int32)
        return first.faces if not len(faces) and first is not None else faces

    def _rest(self, person: SubjectFolder, vertices: int) -> tuple[np.ndarray | None, str]:
        first = self._first(person, vertices)
        return (None, "") if first is None else (first.rest, first.units)

    def _estimated_neutral(self, person: SubjectFolder, rig: rigs.Rig) -> np.ndarray:
        """Returns the neutral [V, 3] from a few frames of a few takes, always the same ones.

        At the start and the end of a take people are at rest; the rest is spread over it.
        """
        every = -(-len(person.recordings) // _NEUTRAL_TAKES)
        frames: list[np.ndarray] = []
        reasons: list[str] = []
        for recording in person.recordings[::every]:
            try:
                vertices = self.open(recording.data[0]).vertices
                if vertices is None:
                    continue
                count = vertices.shape[0]
                if vertices.shape[1] != len(rig.neutral):
                    raise InputError(
                        f"{recording.data[0]}: {vertices.shape[1]} vertices, the rig has "
                        f"{len(rig.neutral)}: its topology must be the capture's"
                    )
                ends = np.r_[:_NEUTRAL_ENDS, count - _NEUTRAL_ENDS : count]
                spread = np.rint(np.linspace(0, count - 1, _NEUTRAL_SPREAD)).astype(int)
                for frame in np.unique(np.clip(np.r_[ends, spread], 0, count - 1)).tolist():
                    frames.append(np.asarray(vertices[frame : frame + 1], np.float32))
            except InputError as error:
                reasons.append(str(error))
        if not frames:
            why = reasons[0] if reasons else "no take has vertices"
            raise InputError(f"{person.name}: no neutral mesh, and none can be estimated: {why}")
        return rest.estimate_neutral(
            np.concatenate(frames), rig.neutral, name=f"{person.name}: no neutral mesh"
        )

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns the neutral in the rig's axes and its faces; see `Source.mesh`."""
        person = self._person(actor)
        face, shapes = self.face(actor, "skin"), self._shapes(person)
        if face is None or shapes is None:
            first = self._first(person)
            rest = first.rest if first is not None else None
            return None if first is None or rest is None else (rest, first.faces)
        faces = self._triangles(person, len(face.neutral))
        if not len(faces):
            faces = rigs.read_rig(shapes).faces
        if len(faces) and faces.max() >= len(face.neutral):
            faces = np.zeros((0, 3), np.int32)
        return face.neutral / face.millimetres, faces


def check_unique(path: Path, names: list[str]) -> None:
    """Raises where two people of a set have one name.

    Raises:
      InputError: they do; names them.
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{path}: takes of {', '.join(twice[:3])} lie in two places; expected one folder"
        )


def find_take_audio(person: Path, root: Path, name: str, *others: Path) -> Path | None:
    """Returns the sound file of a take: beside it, or in a folder of sounds of person or set."""
    folders = [person, *(person / f for f in AUDIO_FOLDERS), *others]
    if root != person:
        folders += [root / f / person.name for f in AUDIO_FOLDERS]
    for folder in folders:
        found = find_audio(folder, name) if folder.is_dir() else None
        if found is not None:
            return found
    # One folder for all: the person's name tells their takes apart.
    for folder in [root / f for f in AUDIO_FOLDERS] if root != person else []:
        found = find_audio(folder, f"{person.name}_{name}") if folder.is_dir() else None
        if found is not None:
            return found
    return None


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


def read_neutral(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vertices [V, 3], faces [F, 3]) of a neutral mesh; arrays may also be flat, [3 V].

    Raises:
      InputError: not a mesh.
    """
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except READ_ERRORS as error:
            raise InputError(f"{path}: not an array of vertices ({one_line(error)})") from None
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: an archive, expected one array of vertices: name it .npz")
        if array.dtype.kind == "f" and array.size % 3 == 0 and array.shape[-1:] != (3,):
            from a2fjax.data import records

            flat = array.reshape(-1, 3)
            return records.check_mesh(flat, np.zeros((0, 3)), name=str(path))
    return mesh_files.read(path)


def read_vertex_list(path: Path, count: int) -> np.ndarray:
    """Returns the indices in a list of vertices, sorted, each once.

    Args:
      path: JSON: a list of numbers, or a group whose first value is one.
      count: of vertices of the mesh.

    Raises:
      InputError: not a list, fewer than three, or not vertices of the mesh.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict):
            data = next(iter(data.values()))
        indices = np.unique(np.asarray(data, np.int64))
    except (*READ_ERRORS, StopIteration) as error:
        raise InputError(f"{path}: not a list of vertices ({one_line(error)})") from None
    if indices.ndim != 1 or len(indices) < 3 or indices[0] < 0 or indices[-1] >= count:
        raise InputError(f"{path}: expected at least 3 of {count} vertices")
    return indices
