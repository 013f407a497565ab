"""Format of a dataset on disk: one record per clip in ArrayRecord shards, and one manifest.

    SHARDS/manifest.json               schema, rig fingerprint, subjects, splits, counts, statistics
          /clips-00000-of-00004.arrayrecord
          /subjects/<subject>.npz      neutral mesh: vertices [V, 3], faces [F, 3]

NumPy only: data workers and the data pipeline import this without jax.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from a2fjax import archives, budgets, files, rig
from a2fjax.audio import num_frames
from a2fjax.data import manifest_checks
from a2fjax.errors import InputError, nearest

SCHEMA = 1

SPLITS = ("train", "val", "test_sentences", "test_subjects", "unused")
"""No sentence of `val` and `test_sentences` occurs in training; neither the subjects nor the
sentences of `test_subjects` do. `unused` holds the clips that would leak between splits."""


_EMOTION_TOLERANCE = 1e-3


class BadRecord(ValueError):
    """A record cannot be read; the message gives the reason."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance by one subject.

    Attributes:
      id: unique in the dataset, "<subject>/<take>" or "<subject>/<take>#<segment>".
      subject: id of the subject, which selects the neutral mesh.
      sentence: key of the spoken sentence; clips with equal keys are never in different splits.
      language: BCP-47 code, such as "en"; "" if unknown.
      split: one of `SPLITS`.
      audio: [samples] float32 in [-1, 1], 16 kHz, mono; motion frame t is at sample 320 * t.
      motion: [T, 72] float32; T = ceil(samples / 320).
      channel_mask: [72] bool, True for observed channels.
      frame_mask: [T] bool, True for valid frames.
      emotion: [T, 5] float32, non-negative, each row sums to 1.
      speech_level: linear RMS level of the take's speech; level normalisation divides by it.
      synthetic: True if the clip does not come from a recorded person.
      extra: small JSON values (estimated audio offset, solve residual, phone times).
    """

    id: str
    subject: str
    sentence: str
    language: str
    split: str
    audio: np.ndarray
    motion: np.ndarray
    channel_mask: np.ndarray
    frame_mask: np.ndarray
    emotion: np.ndarray
    speech_level: float
    synthetic: bool
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def frames(self) -> int:
        """Number of motion frames."""
        return len(self.motion)


_ARRAYS = {
    "audio": np.int16,
    "motion": np.float32,
    "channel_mask": np.bool_,
    "frame_mask": np.bool_,
    "emotion": np.float32,
}


def encode(clip: Clip) -> bytes:
    """Returns the record of a clip: a CRC-32, then its values and raw arrays as MessagePack.

    Audio is stored as 16-bit integers.

    Raises:
      ValueError: a shape or a value is not that of a clip.
    """
    problem = _problem(clip)
    if problem:
        raise ValueError(f"{clip.id}: {problem}")
    body: dict[str, Any] = {
        f.name: getattr(clip, f.name) for f in dataclasses.fields(Clip) if f.name not in _ARRAYS
    }
    body["speech_level"] = float(clip.speech_level)
    for name, dtype in _ARRAYS.items():
        value = getattr(clip, name)
        if name == "audio":
            value = _stored(value)
        value = np.ascontiguousarray(value, dtype)
        body[name] = {"shape": value.shape, "data": value.tobytes()}
    packed = msgpack.packb(body)
    return zlib.crc32(packed).to_bytes(4, "little") + packed


def _problem(clip: Clip) -> str:
    """Returns what is wrong with a clip's values, "" if nothing is."""
    frames = num_frames(len(clip.audio))
    shapes = {
        "audio": (clip.audio.size,),
        "motion": (frames, rig.NUM_CHANNELS),
        "channel_mask": (rig.NUM_CHANNELS,),
        "frame_mask": (frames,),
        "emotion": (frames, rig.NUM_EMOTIONS),
    }
    for name, shape in shapes.items():
        value = getattr(clip, name)
        if value.shape != shape:
            return f"{name} has shape {value.shape}, expected {shape}"
        if not np.isfinite(value).all():
            return f"{name} has values that are not finite"
    if frames and clip.emotion.min() < 0:
        return f"emotion has the weight {clip.emotion.min():g}, expected at least 0"
    if frames and np.abs(clip.emotion.sum(axis=1) - 1.0).max() > _EMOTION_TOLERANCE:
        return "emotion has weights that do not sum to 1"
    if not 0 < clip.speech_level < float("inf"):
        return f"speech_level is {clip.speech_level:g}, expected a number above 0"
    return ""


def decode(record: bytes) -> Clip:
    """Returns the clip of a record.

    Raises:
      BadRecord: the checksum or the contents are wrong.
    """
    if len(record) < 5 or zlib.crc32(record[4:]) != int.from_bytes(record[:4], "little"):
        raise BadRecord("checksum does not match: the record is damaged")
    try:
        body = msgpack.unpackb(record[4:])
        for name, dtype in _ARRAYS.items():
            value = np.frombuffer(body[name]["data"], dtype).reshape(body[name]["shape"])
            body[name] = value.astype(np.float32) / 32767.0 if name == "audio" else value
        clip = Clip(**body)
        problem = _problem(clip)
        if not problem:
            return clip
    except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
        raise BadRecord(f"not a clip of schema {SCHEMA}: {error}") from None
    raise BadRecord(problem)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A subject of the dataset.

    Attributes:
      id: subject id, as in the clips.
      mesh: path of the neutral mesh, relative to the shard folder; None if there is none.
      held_out: True if no clip of the subject is used for training.
    """

    id: str
    mesh: str | None
    held_out: bool


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records, with the index entries of its clips in order.

    Attributes:
      file: path relative to the shard folder.
      clips: `index_entry` of each record: {"id", "subject", "sentence", "split", "frames",
        "emotion", "language", "sound"}; "emotion" names the emotion with the highest mean.
        Datasets built by earlier versions lack "language" and "sound".
    """

    file: str
    clips: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """Contents of a dataset.

    Attributes:
      subjects, shards: see `Subject` and `Shard`.
      channel_mask: [72] True for channels observed in at least one clip.
      statistics: "motion_mean", "motion_std" [72] and "emotion_mean" {name: [72]} over the observed
        frames of the training split; "hours" by split; "speech_level_db", the mean.
      synthetic: True if any clip is synthetic.
      source: the data source and the settings of the build.
    """

    subjects: list[Subject]
    shards: list[Shard]
    channel_mask: list[bool]
    statistics: dict[str, Any]
    synthetic: bool
    source: dict[str, Any]
    schema: int = SCHEMA
    rig: str = rig.FINGERPRINT

    def subject(self, name: str) -> Subject:
        """Returns the subject with a given id.

        Raises:
          InputError: there is no such subject; the message names the nearest.
        """
        for subject in self.subjects:
            if subject.id == name:
                return subject
        raise InputError(f"unknown subject {name!r}{nearest(name, [s.id for s in self.subjects])}")

    def entries(self, split: str) -> list[dict[str, Any]]:
        """Returns the index entries of a split's clips in order, or an empty list."""
        return [e for shard in self.shards for e in shard.clips if e["split"] == split]


def index_entry(clip: Clip) -> dict[str, Any]:
    """Returns the entry of a clip in `Shard.clips`."""
    return {
        "id": clip.id,
        "subject": clip.subject,
        "sentence": clip.sentence,
        "split": clip.split,
        "frames": clip.frames,
        "emotion": rig.EMOTIONS[int(clip.emotion.mean(axis=0).argmax())],
        "language": clip.language,
        "sound": sound(clip),
    }


def sound(clip: Clip) -> str:
    """Returns 8 hex digits that change only if a clip's stored audio or speech level changes.

    Feature caches use them to detect values computed from an older version of the audio.
    """
    level = np.float64(clip.speech_level).tobytes()
    return f"{zlib.crc32(level, zlib.crc32(_stored(clip.audio).tobytes())):08x}"


def _stored(audio: np.ndarray) -> np.ndarray:
    """Returns audio in the int16 format of records."""
    return np.clip(np.round(audio * 32767.0), -32768, 32767).astype(np.int16)


def check_split(split: str, manifests: Sequence[Manifest], folders: Sequence[str | Path]) -> None:
    """Checks that at least one of several datasets has clips of a split.

    Args:
      split: one of `SPLITS`.
      manifests: manifests of the datasets.
      folders: folders of the datasets, for the message.

    Raises:
      InputError: no dataset has clips of the split; the message names the nearest split present.
    """
    if not any(manifest.entries(split) for manifest in manifests):
        have = {e["split"] for m in manifests for shard in m.shards for e in shard.clips}
        where = ", ".join(map(str, folders))
        raise InputError(f"{where}: no clips in split {split!r}{nearest(split, sorted(have))}")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json atomically."""
    files.write_text(folder / "manifest.json", json.dumps(dataclasses.asdict(manifest), indent=1))


def read_manifest(folder: str | Path) -> Manifest:
    """Reads SHARDS/manifest.json.

    Raises:
      InputError: the folder or manifest is missing or unreadable, has another schema or rig or a
        value that is not valid (see `manifest_checks.check`), or a shard is missing.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise InputError(f"shards folder {folder} {what}; build it with data_pipeline.build")
    try:
        data = budgets.load_json(path)
        if data["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {data['schema']}, this version reads {SCHEMA}")
        if data["rig"] != rig.FINGERPRINT:
            raise InputError(
                f"{path}: made for rig {data['rig']}, this version has {rig.FINGERPRINT}; "
                "build anew"
            )
        manifest_checks.check(data, SPLITS)
        data["subjects"] = [Subject(**s) for s in data["subjects"]]
        data["shards"] = [Shard(**s) for s in data["shards"]]
        manifest = Manifest(**data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path}: not a manifest ({what})") from None
    for i, shard in enumerate(manifest.shards):
        files.inside(folder, shard.file, where=f"{path}: shards[{i}].file", plain=True)
    for i, subject in enumerate(manifest.subjects):
        if subject.mesh is not None:
            files.inside(folder, subject.mesh, where=f"{path}: subjects[{i}].mesh")
    for shard in manifest.shards:
        if not (folder / shard.file).is_file():
            raise InputError(f"{folder}: shard {shard.file} is named in the manifest but missing")
    return manifest


def write_mesh(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Writes a neutral mesh: vertices [V, 3] float32, faces [F, 3] int32 (F may be 0)."""
    files.make_folder(path.parent)
    with files.atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, vertices=np.asarray(vertices, np.float32), faces=np.asarray(faces, np.int32))


def read_mesh(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads a mesh that `write_mesh` wrote: (vertices [V, 3] float32, faces [F, 3] int32).

    Raises:
      InputError: the file is missing or damaged, there are no vertices, a value is not finite, or a
        face refers to a vertex that does not exist.
    """
    path = Path(path)
    try:
        with archives.load_npz(path) as data:
            vertices = np.asarray(data["vertices"], np.float32)
            faces = np.asarray(data["faces"], np.int32) if "faces" in data else np.zeros((0, 3))
    except (ValueError, KeyError) as error:
        raise InputError(f"mesh {path}: not a mesh file ({error})") from None
    return check_mesh(vertices, faces, name=str(path))


def check_mesh(
    vertices: np.ndarray, faces: np.ndarray, *, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Checks a mesh and returns its vertices as float32 and its faces as int32.

    Raises:
      InputError: as `read_mesh`.
    """
    vertices = np.asarray(vertices, np.float32)
    faces = np.asarray(faces, np.int32).reshape(-1, 3)
    if vertices.ndim != 2 or vertices.shape[-1] != 3:
        raise InputError(f"mesh {name}: vertices have shape {vertices.shape}, expected [V, 3]")
    if len(vertices) < 4:
        raise InputError(f"mesh {name}: has {len(vertices)} vertices, expected at least 4")
    if not np.isfinite(vertices).all():
        raise InputError(f"mesh {name}: has coordinates that are not finite")
    if np.ptp(vertices, axis=0).max() <= 0:
        raise InputError(f"mesh {name}: all vertices are at one point")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertices)):
        wrong = faces.min() if faces.min() < 0 else faces.max()
        raise InputError(f"mesh {name}: a face names vertex {wrong}, the mesh has {len(vertices)}")
    return vertices, faces
