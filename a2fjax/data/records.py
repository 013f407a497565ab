"""What is on disk: one record a clip in ArrayRecord shards, and one manifest for the set.

    SHARDS/manifest.json               schema, rig fingerprint, subjects, splits, counts, statistics
          /clips-00000-of-00004.arrayrecord
          /subjects/<subject>.npz      neutral mesh: vertices [V, 3], faces [F, 3]

NumPy only: data workers and the data pipeline import this without jax.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from a2fjax import files, rig
from a2fjax.audio import num_frames
from a2fjax.errors import InputError, nearest

SCHEMA = 1

SPLITS = ("train", "val", "test_sentences", "test_subjects", "unused")
"""`val` and `test_sentences` hold sentences no training clip says; `test_subjects` holds people
no training clip shows, saying sentences no training clip says. `unused` is what would leak."""


class BadRecord(ValueError):
    """A record that cannot be read; the message says why."""


@dataclasses.dataclass(frozen=True)
class Clip:
    """One utterance of one person.

    Attributes:
      id: unique in the set, "<subject>/<take>" or "<subject>/<take>#<segment>".
      subject: whose neutral mesh applies.
      sentence: key of what is said; equal keys never cross splits.
      language: BCP-47 code, such as "en"; "" when not known.
      split: of `SPLITS`.
      audio: [samples] float32 in [-1, 1], 16 kHz, mono; motion frame t is at sample 320 * t.
      motion: [T, 72] float32; T = ceil(samples / 320).
      channel_mask: [72] bool, which channels were observed.
      frame_mask: [T] bool, which frames are good.
      emotion: [T, 5] float32, non-negative, each row sums to 1.
      speech_level: RMS level of the take's speech, linear; what level normalisation divides by.
      synthetic: True when no person was recorded.
      extra: small JSON values that travel along (offset found, solve residual, phone times).
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
    """Returns the record of a clip: CRC-32, then MessagePack of values and raw arrays.

    Audio is stored as 16-bit integers.

    Raises:
      ValueError: shapes do not fit together, or a value is not finite.
    """
    frames = num_frames(len(clip.audio))
    shapes = {
        "motion": (frames, rig.NUM_CHANNELS),
        "channel_mask": (rig.NUM_CHANNELS,),
        "frame_mask": (frames,),
        "emotion": (frames, rig.NUM_EMOTIONS),
    }
    for name, shape in shapes.items():
        value = getattr(clip, name)
        if value.shape != shape:
            raise ValueError(f"{clip.id}: {name} has shape {value.shape}, expected {shape}")
        if not np.isfinite(value).all():
            raise ValueError(f"{clip.id}: {name} has values that are not finite")
    if not np.isfinite(clip.audio).all():
        raise ValueError(f"{clip.id}: audio has values that are not finite")
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
        return Clip(**body)
    except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
        raise BadRecord(f"not a clip of schema {SCHEMA}: {error}") from None


@dataclasses.dataclass(frozen=True)
class Subject:
    """A person in the set.

    Attributes:
      id: as in the clips.
      mesh: path of the neutral mesh, relative to the shards' folder; None if there is none.
      held_out: True when every clip of the person is kept out of training.
    """

    id: str
    mesh: str | None
    held_out: bool


@dataclasses.dataclass(frozen=True)
class Shard:
    """One file of records: its name, record count and the clips' index entries in order.

    Attributes:
      file: relative to the shards' folder.
      clips: `index_entry` of each record: {"id", "subject", "sentence", "split", "frames",
        "emotion", "language", "sound"} where emotion is the name of the strongest on average;
        sets built by earlier versions lack "language" and "sound".
    """

    file: str
    clips: list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is in a set of shards.

    Attributes:
      subjects, shards: see there.
      channel_mask: [72] channels observed in at least one clip.
      statistics: "motion_mean", "motion_std" [72] and "emotion_mean" {name: [72]} of the training
        split's observed frames; "hours" by split; "speech_level_db" mean.
      synthetic: True when any clip is.
      source: what the set was built from, with the builder's settings.
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
        """Returns the subject of that name.

        Raises:
          InputError: no such subject; names the nearest.
        """
        for subject in self.subjects:
            if subject.id == name:
                return subject
        raise InputError(f"unknown subject {name!r}{nearest(name, [s.id for s in self.subjects])}")

    def entries(self, split: str) -> list[dict[str, Any]]:
        """Returns the index entries of the clips of a split, in order; there may be none."""
        return [e for shard in self.shards for e in shard.clips if e["split"] == split]


def index_entry(clip: Clip) -> dict[str, Any]:
    """Returns what a `Shard` says of a clip."""
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
    """Returns 8 hex digits that change with a clip's stored audio or speech level, and only then.

    They tell whether what was computed from the sound before still belongs to the clip.
    """
    level = np.float64(clip.speech_level).tobytes()
    return f"{zlib.crc32(level, zlib.crc32(_stored(clip.audio).tobytes())):08x}"


def _stored(audio: np.ndarray) -> np.ndarray:
    """Returns audio as records hold it, int16."""
    return np.clip(np.round(audio * 32767.0), -32768, 32767).astype(np.int16)


def check_split(split: str, manifests: Sequence[Manifest], folders: Sequence[str | Path]) -> None:
    """Checks that at least one of several sets has clips of a split.

    Args:
      split: of `SPLITS`.
      manifests: of the sets.
      folders: of the same, for the message.

    Raises:
      InputError: none has; names the nearest split that there is.
    """
    if not any(manifest.entries(split) for manifest in manifests):
        have = {e["split"] for m in manifests for shard in m.shards for e in shard.clips}
        where = ", ".join(map(str, folders))
        raise InputError(f"{where}: no clips in split {split!r}{nearest(split, sorted(have))}")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes manifest.json whole or not at all."""
    files.write_text(folder / "manifest.json", json.dumps(dataclasses.asdict(manifest), indent=1))


def read_manifest(folder: str | Path) -> Manifest:
    """Reads SHARDS/manifest.json.

    Raises:
      InputError: no folder or manifest, not readable, of another schema or rig, or a shard is
        missing.
    """
    folder = Path(folder)
    path = folder / "manifest.json"
    if not path.is_file():
        what = "has no manifest.json" if folder.is_dir() else "does not exist"
        raise InputError(f"shards folder {folder} {what}; build it with data_pipeline.build")
    try:
        data = json.loads(path.read_text())
        if data["schema"] != SCHEMA:
            raise InputError(f"{path}: schema {data['schema']}, this version reads {SCHEMA}")
        data["subjects"] = [Subject(**s) for s in data["subjects"]]
        data["shards"] = [Shard(**s) for s in data["shards"]]
        manifest = Manifest(**data)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a manifest ({error})") from None
    if manifest.rig != rig.FINGERPRINT:
        raise InputError(
            f"{path}: made for rig {manifest.rig}, this version has {rig.FINGERPRINT}; build anew"
        )
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
    """Returns (vertices [V, 3] float32, faces [F, 3] int32) of a mesh that `write_mesh` wrote.

    Raises:
      InputError: missing or damaged file, no vertices, values that are not finite, or faces that
        name vertices that are not there.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"mesh {path}: no such file")
    try:
        with np.load(path, allow_pickle=False) as data:
            vertices = np.asarray(data["vertices"], np.float32)
            faces = np.asarray(data["faces"], np.int32) if "faces" in data else np.zeros((0, 3))
    except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"mesh {path}: not a mesh file ({error})") from None
    return check_mesh(vertices, faces, name=str(path))


def check_mesh(
    vertices: np.ndarray, faces: np.ndarray, *, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mesh as float32 and int32 when it is one.

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
