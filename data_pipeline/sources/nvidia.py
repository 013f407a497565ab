"""Reads NVIDIA's capture layout: a folder per actor with moving vertices per shot, and shapes.

    <actor>/audio/<shot>.wav, audio/aug/<voice>/<shot>.wav        aug: the line in a cloned voice
           /cache/{skin,tongue}/[<shot>/]<shot>.{npy,pc2,mc+xml}  [frames, V, 3]
           /geom/skin/{neutral_pose,faces}.npy, *_pose_delta.npy
           /geom/tongue/{neutral_pose.npy,rigid_vertex_list.json}
           /xform/eye_rotations_all.npz                           {shot: [frames, 2, 2] degrees}
           /xform/jaw_keypoints_{neutral.npy,cache_all.npz}       [K, 3], {shot: [frames, K, 3]}
           /bs_data/{bs_skin,bs_tongue}.npz           poseNames, neutral, <pose> deltas, frontalMask
           /shots.json                                            optional: see `shot_list.ShotList`

The layout follows the preparation guide of the Audio2Face-3D-Training-Framework. Pose deltas and
jaw keypoints are checked but not used: the rig's jaw channels are solved from the skin.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

import numpy as np

from a2fjax import archives
from a2fjax.errors import InputError
from data_pipeline.mesh import rigs
from data_pipeline.mesh.file_checks import READ_ERRORS, check_rate
from data_pipeline.mesh.geometry import Vertices
from data_pipeline.sources import (
    Actor,
    Blendshapes,
    Capture,
    SourceOptions,
    Take,
    caches,
    find_audio,
)
from data_pipeline.sources.file_names import composed, find_folder
from data_pipeline.sources.neutral import first_motion
from data_pipeline.sources.person_face import PlacedMesh, make_face
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
from data_pipeline.timing import align


def recognise(path: Path) -> str | None:
    """Returns why a folder is in NVIDIA's layout, or None."""
    actors = _actor_folders(path)
    if not actors:
        return None
    if actors == [path]:
        return "audio/ and cache/skin/ of one actor"
    return f"{len(actors)} folders with audio/ and cache/skin/"


def open_source(path: Path, options: SourceOptions) -> NvidiaSource:
    """Returns the source of an actor's folder or of a folder of actors.

    Raises:
      InputError: there is no actor, or an option has an unknown value.
    """
    if not _actor_folders(path):
        raise InputError(f"{path}: no folder with audio/ and cache/skin/ in it")
    return NvidiaSource(path, options)


def _actor_folders(path: Path) -> list[Path]:
    def is_actor(folder: Path) -> bool:
        return (folder / "audio").is_dir() and (folder / "cache" / "skin").is_dir()

    if is_actor(path):
        return [path]
    # The capture software is still writing folders with a dot.
    return sorted(p for p in path.iterdir() if p.name[0] != "." and p.is_dir() and is_actor(p))


class NvidiaSource:
    """Actors' folders; see the module."""

    layout = "nvidia"

    def __init__(self, path: Path, options: SourceOptions):
        """Stores the arguments; reads nothing."""
        self.path = path
        self.options = options

    def actors(self) -> list[Actor]:
        """Returns the actors; see `Source.actors`."""
        return [self._actor(folder) for folder in _actor_folders(self.path)]

    def _folder(self, actor: str) -> Path:
        folders = _actor_folders(self.path)
        return self.path if folders == [self.path] else find_folder(self.path, actor)

    def _actor(self, folder: Path) -> Actor:
        name = composed(folder.resolve().name)
        if self.options.subject and folder == self.path:
            name = self.options.subject
        try:
            listed = read_shot_list(folder / "shots.json")
        except InputError as error:
            return Actor(name=name, takes=(), rejected=((name, str(error)),))
        caches_of = {composed(c) for c in caches.list_caches(folder / "cache" / "skin")}
        audio_stems = {composed(p.stem) for p in (folder / "audio").iterdir() if p.is_file()}
        takes, rejected = [], []
        for shot in sorted(caches_of | set(listed.shots)):
            voices = {"": find_audio(folder / "audio", shot), **_voices(folder, shot)}
            if len(voices) > 1 and voices[""] is None:
                del voices[""]  # There are only cloned voices.
            for voice, audio in voices.items():
                full = f"{shot}@{voice}" if voice else shot
                try:
                    takes.append(self._take(folder, name, shot, full, listed, audio))
                except InputError as error:
                    rejected.append((full, str(error)))
        for shot in sorted(audio_stems - caches_of - set(listed.shots)):
            where = folder / "cache" / "skin" / shot
            rejected.append((shot, f"{where}: no cache of type {', '.join(caches.SUFFIXES)}"))
        named = (
            "shots.json",
            "bs_data/bs_skin.npz",
            "bs_data/bs_tongue.npz",
            "geom/skin/neutral_pose.npy",
            "geom/skin/faces.npy",
            "geom/skin/rigid_vertex_list.json",
            "geom/tongue/rigid_vertex_list.json",
        )
        files = [folder / p for p in named if (folder / p).is_file()]
        if self.options.rig and not (folder / "bs_data" / "bs_skin.npz").is_file():
            files.append(Path(self.options.rig))
        return Actor(name=name, takes=tuple(takes), files=tuple(files), rejected=tuple(rejected))

    def _take(
        self, folder: Path, name: str, shot: str, full: str, listed: ShotList, audio: Path | None
    ) -> Take:
        skin = _find_cache(folder / "cache" / "skin", shot)
        if skin is None:
            where = folder / "cache" / "skin" / shot
            raise InputError(f"{where}: no cache of type {', '.join(caches.SUFFIXES)}")
        require_audio(audio, self.options, f"{folder / 'audio' / shot}.wav: no such file")
        entry = listed.shots.get(full, listed.shots.get(shot, {}))
        tongue = _find_cache(folder / "cache" / "tongue", shot)
        data = [*caches.cache_files(skin), *(caches.cache_files(tongue) if tongue else [])]
        data += [p for p in (_eyes_file(folder), _jaw_file(folder)) if p.is_file()]
        return make_take(
            listed,
            entry,
            self.options,
            where=folder / "shots.json",
            subject=name,
            name=full,
            audio=audio,
            data=tuple(data),
            emotion_name=shot,
            sentence=sentence_from_name(shot),
            slate=shot == SLATE,
            fps=self.options.fps or listed.fps,
        )

    def capture(self, take: Take) -> Capture:
        """Returns vertices and eye angles; see `Source.capture`."""
        folder, path = self._folder(take.subject), take.data[0]
        shot = path.stem
        skin, times = self._cache(folder, path, "skin")
        frames = skin.shape[0]
        if take.fps > 0:
            times = np.arange(frames) / align.exact_rate(take.fps)
        elif times is None:
            raise InputError(f"{path}: its frame rate is in no file; give --config.fps=...")
        check_rate(path, times)
        tongue = None
        of_tongue = next((p for p in take.data if folder / "cache" / "tongue" in p.parents), None)
        if of_tongue is not None:
            tongue, _ = self._cache(folder, of_tongue, "tongue")
            if tongue.shape[0] != frames:
                raise InputError(
                    f"{of_tongue}: {tongue.shape[0]} frames, the skin's cache has {frames}"
                )
        eyes, eye_notes = _eyes(folder, shot, frames)
        return Capture(
            times=times,
            skin=skin,
            tongue=tongue,
            eyes=eyes,
            notes=(*eye_notes, *_jaw_notes(folder, shot, frames)),
        )

    def _cache(self, folder: Path, path: Path, part: str) -> tuple[Vertices, np.ndarray | None]:
        return caches.read_cache(path, self._vertices(folder, part), self.options.animation)

    def _vertices(self, folder: Path, part: str) -> int | None:
        """Returns the number of vertices of a part's neutral mesh, or None."""
        pose = folder / "geom" / part / "neutral_pose.npy"
        shapes = folder / "bs_data" / f"bs_{part}.npz"
        try:
            if os.path.lexists(pose):
                return len(archives.load_npy(pose, mmap=True))
            if os.path.lexists(shapes):
                with archives.load_npz(shapes) as data:
                    return data.shape("neutral")[0]
        except READ_ERRORS:
            return None  # Reading the mesh itself reports the error.
        return None

    def blendshapes(self, actor: str, part: str) -> Blendshapes | None:
        """Returns the shapes of bs_data/bs_<part>.npz, or the template's; see `Source`."""
        folder = self._folder(actor)
        path = folder / "bs_data" / f"bs_{part}.npz"
        if not os.path.lexists(path):
            if part != "skin" or not self.options.rig:
                return None
            path = Path(self.options.rig)
        shapes = rigs.read_rig(path)
        files = person_files(self._places(folder), path, shapes, part)
        face = make_face(
            shapes, files, axes=self.options.axes, mouth_close=self.options.mouth_close
        )
        notes = _pose_notes(folder, len(shapes.neutral)) if part == "skin" else ()
        return dataclasses.replace(face, notes=(*face.notes, *notes))

    def _places(self, folder: Path) -> PersonPlaces:
        pose, skin = folder / "geom/skin/neutral_pose.npy", folder / "bs_data" / "bs_skin.npz"
        shots = caches.list_caches(folder / "cache" / "skin")
        openers = [functools.partial(self._open_skin, folder, shot) for shot in shots]

        def vertex_list(part: str) -> Path | None:
            path = folder / "geom" / part / "rigid_vertex_list.json"
            return path if os.path.lexists(path) else None

        def neutral() -> PlacedMesh | None:
            if not os.path.lexists(pose):
                return None
            return PlacedMesh(vertices=_array(pose), origin=f"read from {pose}")

        return PersonPlaces(
            name=folder.name,
            options=self.options,
            shots=folder / "shots.json",
            skin_rig=skin if os.path.lexists(skin) else None,
            is_own=lambda path, part: path.parent == folder / "bs_data",
            vertex_list=vertex_list,
            neutral=neutral,
            takes=openers,
            first=lambda vertices: first_motion(openers, vertices),
        )

    def _open_skin(self, folder: Path, shot: str) -> MotionFile:
        path = _find_cache(folder / "cache" / "skin", shot)
        if path is None:
            raise InputError(f"{folder}: no cache of {shot}")
        vertices, _ = self._cache(folder, path, "skin")
        return MotionFile(numbers=np.arange(vertices.shape[0]), vertices=vertices, name=str(path))

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns geom/skin/neutral_pose.npy with faces.npy, or the shapes' neutral."""
        folder = self._folder(actor)
        pose, faces_file = folder / "geom/skin/neutral_pose.npy", folder / "geom/skin/faces.npy"
        face = self.blendshapes(actor, "skin")
        if os.path.lexists(pose):
            vertices = _array(pose)
            if face is not None:
                vertices = vertices @ face.axes.T
        elif face is not None:
            vertices = face.neutral / face.millimetres
        else:
            return None
        faces = np.zeros((0, 3), np.int32)
        if os.path.lexists(faces_file):
            faces = archives.load_npy(faces_file)
        return vertices, faces


def _find_cache(folder: Path, shot: str) -> Path | None:
    """Returns a shot's cache, whatever Unicode form its name has, or None."""
    if not shot.isascii() and folder.is_dir():
        names = caches.list_caches(folder)
        shot = next((name for name in names if composed(name) == composed(shot)), shot)
    return caches.find_cache(folder, shot)


def _voices(folder: Path, shot: str) -> dict[str, Path]:
    """Returns the audio files of a shot in cloned voices, by voice."""
    augmented = folder / "audio" / "aug"
    if not augmented.is_dir():
        return {}
    named = {p.name: find_audio(p, shot) for p in sorted(augmented.iterdir()) if p.is_dir()}
    return {voice: path for voice, path in named.items() if path is not None}


def _eyes_file(folder: Path) -> Path:
    return folder / "xform" / "eye_rotations_all.npz"


def _jaw_file(folder: Path) -> Path:
    return folder / "xform" / "jaw_keypoints_cache_all.npz"


def _eyes(folder: Path, shot: str, frames: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Returns a shot's eye angles [F, 4] in degrees, NaN in frames without them, or None; notes."""
    rotations = _shot_of(_eyes_file(folder), shot, (frames, 2, 2), "degrees", holes=True)
    if rotations is None:
        return None, ()
    eyes = rotations.reshape(frames, 4).astype(np.float64)  # the rig's order: right X, Y, left X, Y
    lost = int(np.isnan(eyes).any(axis=1).sum())
    if lost == frames:
        return None, ("the eye rotations hold no numbers and count as not observed",)
    return eyes, (f"{lost} of {frames} frames without eye rotations",) if lost else ()


def _shot_of(
    path: Path, shot: str, shape: tuple[int | None, ...], what: str, holes: bool = False
) -> np.ndarray | None:
    """Returns a shot's numbers from an archive of all shots, or None if it is absent.

    They are finite, or NaN where `holes` allows it.
    """
    if not os.path.lexists(path):
        return None
    with archives.load_npz(path) as data:
        key = next((k for k in data.files if composed(k) == composed(shot)), None)
        values = None if key is None else data[key]
    if values is None:
        return None
    fits = len(values.shape) == len(shape) and all(
        s in (None, v) for s, v in zip(shape, values.shape, strict=True)
    )
    usable = values.dtype.kind in "fiu" and not np.isinf(values).any()
    if not fits or not usable or (not holes and np.isnan(values).any()):
        expected = ", ".join("K" if s is None else str(s) for s in shape)
        raise InputError(
            f"{path}: {shot} has shape {values.shape}, expected finite ({expected}) {what}"
        )
    return values


def _jaw_notes(folder: Path, shot: str, frames: int) -> tuple[str, ...]:
    """Checks a shot's jaw keypoints against its frames and the neutral ones; returns notes."""
    try:
        moved = _shot_of(_jaw_file(folder), shot, (frames, None, 3), "displacements")
        still = folder / "xform" / "jaw_keypoints_neutral.npy"
        if moved is None:
            return ()
        count = len(_array(still)) if os.path.lexists(still) else moved.shape[1]
        if count != moved.shape[1]:
            raise InputError(f"{still}: {count} jaw keypoints, {shot} has {moved.shape[1]}")
    except InputError as error:
        return (f"jaw keypoints are not right, and not used: {error}",)
    return (f"{count} jaw keypoints agree in number of frames; the jaw is solved from the skin",)


def _pose_notes(folder: Path, vertices: int) -> tuple[str, ...]:
    """Checks the extra poses beside the neutral one; returns notes about faults."""
    notes = []
    for path in sorted((folder / "geom" / "skin").glob("*_pose_delta.npy")):
        try:
            count = len(_array(path))
            if count != vertices:
                raise InputError(f"{path}: {count} vertices, expected {vertices}")
        except InputError as error:
            notes.append(f"a pose is not right, and not used: {error}")
    return tuple(notes)


def _array(path: Path) -> np.ndarray:
    """Returns finite points [N, 3] float64 from a .npy."""
    array = archives.load_npy(path)
    if array.ndim != 2 or array.shape[1:] != (3,):
        raise InputError(f"{path}: shape {array.shape}, expected [N, 3]")
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"{path}: its points are not finite numbers")
    return array.astype(np.float64)
