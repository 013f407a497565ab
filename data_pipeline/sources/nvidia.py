"""NVIDIA's capture layout: one folder an actor, moving vertices a shot, shapes to solve on.

    <actor>/audio/<shot>.wav
           /cache/{skin,tongue}/[<shot>/]<shot>.{npy,pc2,mc}      [frames, V, 3]
           /geom/skin/{neutral_pose,faces}.npy
           /geom/tongue/{neutral_pose.npy,rigid_vertex_list.json}
           /xform/eye_rotations_all.npz                           {shot: [frames, 2, 2] degrees}
           /bs_data/{bs_skin,bs_tongue}.npz           poseNames, neutral, <pose> deltas, frontalMask
           /shots.json                                            optional: see `shots.ShotList`

Layout and meanings follow the Audio2Face-3D-Training-Framework's preparation guide.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path

import numpy as np

from a2fjax.errors import InputError
from data_pipeline import align, rigs
from data_pipeline.sources import Actor, Capture, Face, SourceOptions, Take, caches, find_audio
from data_pipeline.sources.shots import ShotList, emotion_weights, read_shot_list, sentence_of

SLATE = "slate"
_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, zlib.error, zipfile.BadZipFile)


def recognise(path: Path) -> str | None:
    """Returns why a folder is in NVIDIA's layout, or None."""
    found = _actor_folders(path)
    if not found:
        return None
    if found == [path]:
        return "audio/ and cache/skin/ of one actor"
    return f"{len(found)} folders with audio/ and cache/skin/"


def open_source(path: Path, options: SourceOptions) -> NvidiaSource:
    """Returns the source of an actor's folder or of a folder of actors.

    Raises:
      InputError: there is no actor, or an option has a value nobody knows.
    """
    if not _actor_folders(path):
        raise InputError(f"{path}: no folder with audio/ and cache/skin/ in it")
    return NvidiaSource(path, options)


def _actor_folders(path: Path) -> list[Path]:
    def is_actor(folder: Path) -> bool:
        return (folder / "audio").is_dir() and (folder / "cache" / "skin").is_dir()

    if is_actor(path):
        return [path]
    # Folders with a dot are half-written ones of whoever captures.
    return sorted(p for p in path.iterdir() if p.name[0] != "." and p.is_dir() and is_actor(p))


class NvidiaSource:
    """Actors' folders; see the module."""

    layout = "nvidia"

    def __init__(self, path: Path, options: SourceOptions):
        """Keeps where and how; reads nothing."""
        self.path = path
        self.options = options

    def actors(self) -> list[Actor]:
        """Returns everyone; see `Source.actors`."""
        return [self._actor(folder) for folder in _actor_folders(self.path)]

    def _folder(self, actor: str) -> Path:
        found = _actor_folders(self.path)
        return self.path if found == [self.path] else self.path / actor

    def _actor(self, folder: Path) -> Actor:
        name = folder.resolve().name
        if self.options.subject and folder == self.path:
            name = self.options.subject
        try:
            listed = read_shot_list(folder / "shots.json")
        except InputError as error:
            return Actor(name=name, takes=(), rejected=((name, str(error)),))
        caches_of = set(caches.list_caches(folder / "cache" / "skin"))
        heard = {p.stem for p in (folder / "audio").iterdir() if p.is_file()}
        takes, rejected = [], []
        for shot in sorted(caches_of | set(listed.shots)):
            try:
                takes.append(self._take(folder, name, shot, listed, shot in caches_of))
            except InputError as error:
                rejected.append((shot, str(error)))
        for shot in sorted(heard - caches_of - set(listed.shots)):
            where = folder / "cache" / "skin" / shot
            rejected.append((shot, f"{where}: no cache of type {', '.join(caches.SUFFIXES)}"))
        files = [
            folder / p
            for p in (
                "shots.json",
                "bs_data/bs_skin.npz",
                "bs_data/bs_tongue.npz",
                "geom/skin/neutral_pose.npy",
                "geom/skin/faces.npy",
                "geom/skin/rigid_vertex_list.json",
                "geom/tongue/rigid_vertex_list.json",
                "xform/eye_rotations_all.npz",
            )
            if (folder / p).is_file()
        ]
        return Actor(name=name, takes=tuple(takes), files=tuple(files), rejected=tuple(rejected))

    def _take(self, folder: Path, name: str, shot: str, listed: ShotList, cached: bool) -> Take:
        skin = caches.find_cache(folder / "cache" / "skin", shot)
        if not cached or skin is None:
            where = folder / "cache" / "skin" / shot
            raise InputError(f"{where}: no cache of type {', '.join(caches.SUFFIXES)}")
        audio = find_audio(folder / "audio", shot)
        if audio is None:
            raise InputError(f"{folder / 'audio' / shot}.wav: no such file")
        said = listed.shots.get(shot, {})
        tongue = caches.find_cache(folder / "cache" / "tongue", shot)
        data = (skin,) if tongue is None else (skin, tongue)
        emotion, track = emotion_weights(folder / "shots.json", shot, said, self.options.emotion)
        held_out = said.get("held_out")
        return Take(
            subject=name,
            name=shot,
            audio=audio,
            data=data,
            sentence=str(said.get("sentence") or sentence_of(shot)),
            language=str(said.get("language") or self.options.language),
            emotion=emotion,
            emotion_track=track,
            slate=shot == SLATE,
            synthetic=listed.synthetic,
            held_out=None if held_out is None else bool(held_out),
            fps=self.options.fps or listed.fps,
            text=str(said.get("text") or ""),
        )

    def capture(self, take: Take) -> Capture:
        """Returns vertices and eye angles; see `Source.capture`."""
        skin, times = caches.read_cache(take.data[0])
        frames = skin.shape[0]
        if not frames:
            raise InputError(f"{take.data[0]}: has no frames")
        if take.fps > 0:
            times = np.arange(frames) / align.exact_rate(take.fps)
        elif times is None:
            raise InputError(f"{take.data[0]}: its frame rate is in no file; give --config.fps=...")
        tongue = None
        if len(take.data) > 1:
            tongue, _ = caches.read_cache(take.data[1])
            if tongue.shape[0] != frames:
                raise InputError(
                    f"{take.data[1]}: {tongue.shape[0]} frames, the skin's cache has {frames}"
                )
        return Capture(times=times, skin=skin, tongue=tongue, eyes=self._eyes(take, frames))

    def _eyes(self, take: Take, frames: int) -> np.ndarray | None:
        path = self._folder(take.subject) / "xform" / "eye_rotations_all.npz"
        if not path.is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as data:
                angles = np.asarray(data[take.name]) if take.name in data.files else None
        except _READ_ERRORS as error:
            raise InputError(f"{path}: damaged ({error})") from None
        if angles is None:
            return None
        if angles.shape != (frames, 2, 2) or not np.isfinite(angles).all():
            raise InputError(
                f"{path}: {take.name} has shape {angles.shape}, expected ({frames}, 2, 2) degrees"
            )
        return angles.reshape(frames, 4).astype(np.float64)  # right X, Y, left X, Y: rig order

    def face(self, actor: str, part: str) -> Face | None:
        """Returns the shapes of bs_data/bs_<part>.npz; see `Source.face`."""
        folder = self._folder(actor)
        path = folder / "bs_data" / f"bs_{part}.npz"
        if not path.is_file():
            return None
        shapes = rigs.read(path)
        rigid = folder / "geom" / part / "rigid_vertex_list.json"
        return rigs.face(
            shapes,
            units=self._units(folder, part),
            axes=self.options.axes,
            mouth_close=self.options.mouth_close,
            stable=_vertex_list(rigid, len(shapes.neutral)),
            part=part,
            name=str(path),
        )

    def _units(self, folder: Path, part: str) -> str:
        if self.options.units != "auto":
            return self.options.units
        unit = read_shot_list(folder / "shots.json").units
        mesh = folder / "bs_data" / "bs_skin.npz"
        if not unit and part != "skin" and mesh.is_file():
            # The tongue has no size of its own to go by: the head's decides.
            unit = rigs.units_of(rigs.read(mesh).neutral)
        return unit or "auto"

    def mesh(self, actor: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns geom/skin/neutral_pose.npy with faces.npy, or the shapes' neutral."""
        folder = self._folder(actor)
        pose, faces_file = folder / "geom/skin/neutral_pose.npy", folder / "geom/skin/faces.npy"
        faces = np.zeros((0, 3), np.int32)
        try:
            if pose.is_file():
                vertices = np.load(pose, allow_pickle=False)
            elif (folder / "bs_data/bs_skin.npz").is_file():
                with np.load(folder / "bs_data/bs_skin.npz", allow_pickle=False) as data:
                    vertices = data["neutral"]
            else:
                return None
            if faces_file.is_file():
                faces = np.load(faces_file, allow_pickle=False)
        except _READ_ERRORS as error:
            raise InputError(f"{pose}: damaged ({error})") from None
        return vertices, faces


def _vertex_list(path: Path, count: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
        if isinstance(data, dict):
            data = next(iter(data.values()))
        indices = np.unique(np.asarray(data, np.int64))
    except (OSError, ValueError, TypeError, StopIteration) as error:
        raise InputError(f"{path}: not a list of vertices ({error})") from None
    if len(indices) < 3 or indices[0] < 0 or indices[-1] >= count:
        raise InputError(f"{path}: expected at least 3 of {count} vertices")
    return indices
