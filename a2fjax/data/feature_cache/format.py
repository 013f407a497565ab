"""Format of feature caches: hidden states of frozen speech encoders, stored beside the shards.

    SHARDS/feature_cache/<fingerprint>-<states>/manifest.json   encoder and clips of the cache
                                               /clips-...       one file per shard, same name

The fingerprint covers weights, architecture and precision, so each encoder has its own folder. A
file holds records of [CHUNK, S, D] float16 states for the clips of its shard, so a window reads
little more than its own frames. The last record is a header with the encoder and the first record
of each clip. A clip is identified by id, frames and sound (`records.sound`): states of changed
audio are never read, and a capture that is solved again keeps its states. NumPy only, because data
workers run without JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import msgpack
import numpy as np

from a2fjax import budgets, files, typed_json
from a2fjax.data import records
from a2fjax.data.dataset import read_record
from a2fjax.errors import InputError

FOLDER = "feature_cache"
SCHEMA = 2
CHUNK = 100
"""Frames per record: two seconds."""

WRITER_OPTIONS = "group_size:1,uncompressed"
"""ArrayRecord options; compression saves 8 % on half floats but makes reading five times slower."""


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Identifies the hidden states of an encoder.

    Attributes:
      fingerprint: fingerprint of the encoder and its weights.
      states: number S of states per frame.
      width: width D of a state.
    """

    fingerprint: str
    states: int
    width: int

    @property
    def name(self) -> str:
        """Name of the cache's folder."""
        return f"{self.fingerprint}-{self.states}"

    def folder(self, shards: str | Path) -> Path:
        """Returns the folder of the cache in a dataset."""
        return Path(shards) / FOLDER / self.name


@dataclasses.dataclass(frozen=True)
class ClipRecords:
    """Location of a clip's states in a file.

    Attributes:
      frames: number of frames T of the clip.
      sound: `records.sound` of the encoded audio.
      first: index of the clip's first record; -1 if the clip could not be read.
    """

    frames: int
    sound: str
    first: int


@dataclasses.dataclass(frozen=True)
class Header:
    """Contents of a cache file, from its last record.

    Attributes:
      spec: identifies the encoder.
      encoder: `SpeechEncoder.describe`.
      clips: locations by clip id, in the shard's order.
    """

    spec: FeatureSpec
    encoder: dict[str, Any]
    clips: dict[str, ClipRecords]


def chunk_count(frames: int) -> int:
    """Returns the number of records that hold the states of `frames` frames."""
    return -(-frames // CHUNK)


def encode(clip: str, states: np.ndarray) -> Iterator[bytes]:
    """Yields the records of a clip's states [T, S, D], in order.

    Raises:
      ValueError: a state is not finite or exceeds the range of float16.
    """
    largest = float(np.abs(states).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"{clip}: a state of {largest:g} is beyond 16-bit floating point")
    for start in range(0, len(states), CHUNK):
        part = states[start : start + CHUNK]
        body = msgpack.packb([clip, start, list(part.shape)])
        yield _sealed(len(body).to_bytes(4, "little") + body + part.astype("<f2").tobytes())


def decode(data: bytes) -> tuple[str, int, np.ndarray]:
    """Returns (clip id, first frame, states [T, S, D] float16) of a record.

    Raises:
      BadRecord: the record is damaged.
    """
    data = _opened(data)
    try:
        size = int.from_bytes(data[:4], "little")
        clip, start, shape = msgpack.unpackb(data[4 : 4 + size])
        values = np.frombuffer(data, "<f2", offset=4 + size).reshape(shape)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise records.BadRecord(f"not states ({error})") from None
    return clip, start, values


def decode_part(data: bytes, spec: FeatureSpec, clip: str, frames: int, number: int) -> np.ndarray:
    """Returns the states [T, S, D] float16 of a clip's record.

    Args:
      data: the record.
      spec: identifies the encoder.
      clip: id of the clip.
      frames: number of frames of the clip.
      number: number of the record among those of the clip.

    Raises:
      BadRecord: the record is damaged, or has another clip, place or shape.
    """
    name, start, states = decode(data)
    if (name, start) != (clip, number * CHUNK):
        raise records.BadRecord(f"holds frame {start} of {name!r} in place of {number * CHUNK}")
    if states.shape != (min(CHUNK, frames - start), spec.states, spec.width):
        raise records.BadRecord(f"has shape {states.shape}")
    return states


def encode_header(header: Header) -> bytes:
    """Encodes a header as the last record of a file."""
    clips = [[name, p.frames, p.sound, p.first] for name, p in header.clips.items()]
    spec = dataclasses.asdict(header.spec)
    return _sealed(msgpack.packb([SCHEMA, spec, json.dumps(header.encoder), clips]))


def decode_header(data: bytes) -> Header:
    """Decodes a header from `encode_header`.

    Raises:
      BadRecord: the record is damaged or has another schema.
    """
    try:
        schema, spec, encoder, clips = msgpack.unpackb(_opened(data))
        if schema == SCHEMA:
            places = {name: ClipRecords(*place) for name, *place in clips}
            return Header(FeatureSpec(**spec), budgets.parse_json(encoder, name="header"), places)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        if isinstance(error, records.BadRecord):
            raise
        raise records.BadRecord(f"not the header of a cache ({error})") from None
    raise records.BadRecord(f"schema {schema}, this version reads {SCHEMA}")


def _sealed(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little") + data


def _opened(data: bytes) -> bytes:
    if len(data) < 8 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise records.BadRecord("checksum does not match")
    return data[4:]


def read_header(path: str | Path, readers: dict[str, Any] | None = None) -> Header:
    """Returns the header of a file.

    Args:
      path: path of the file.
      readers: open files by path, as in `dataset.read_record`; None closes the file afterwards.

    Raises:
      BadRecord: the file is missing, damaged, truncated, or has another schema.
    """
    keep_open = readers is not None
    readers = {} if readers is None else readers
    header = decode_header(read_record(readers, str(path), -1))
    needed = sum(chunk_count(p.frames) for p in header.clips.values() if p.first >= 0)
    count = readers[str(path)].num_records() - 1
    if count != needed:
        raise records.BadRecord(f"holds {count} records of states, its header names {needed}")
    if not keep_open:
        readers.pop(str(path)).close()
    return header


def check_states(path: str | Path, header: Header) -> None:
    """Reads all states of a file, which takes as long as reading the file.

    Raises:
      BadRecord: a record is damaged or is not the one that the header names.
    """
    readers: dict[str, Any] = {}
    for name, place in header.clips.items():
        for k in range(chunk_count(place.frames) if place.first >= 0 else 0):
            try:
                data = read_record(readers, str(path), place.first + k)
                decode_part(data, header.spec, name, place.frames, k)
            except records.BadRecord as error:
                raise records.BadRecord(f"record {place.first + k} ({name}): {error}") from None
    for reader in readers.values():
        reader.close()


def clips_digest(manifest: records.Manifest) -> str:
    """Returns 16 hex digits that change if the clips of a dataset or their audio change."""
    clips = [
        [shard.file, *((c["id"], c["frames"], c.get("sound", "")) for c in shard.clips)]
        for shard in manifest.shards
    ]
    return hashlib.sha256(json.dumps(clips).encode()).hexdigest()[:16]


def is_current(
    header: Header, spec: FeatureSpec, shard: records.Shard, sounds: Sequence[str] = ()
) -> bool:
    """Returns whether a file holds an encoder's states for the current clips of a shard.

    Args:
      header: header of the file.
      spec: identifies the encoder.
      shard: the shard in the dataset's manifest.
      sounds: `records.sound` of each clip, if the manifest lacks them.
    """
    now = [
        (clip["id"], clip["frames"], clip.get("sound") or (sounds[i] if sounds else ""))
        for i, clip in enumerate(shard.clips)
    ]
    then = [(name, p.frames, p.sound) for name, p in header.clips.items()]
    if header.spec != spec or len(now) != len(then):
        return False
    return all(
        a[:2] == b[:2] and (a[2] == b[2] or not a[2] or p.first < 0)
        for a, b, p in zip(now, then, header.clips.values(), strict=True)
    )


def write_manifest(
    shards: str | Path, spec: FeatureSpec, encoder: Mapping[str, Any], manifest: records.Manifest
) -> None:
    """Writes the manifest of a cache, which marks the cache as complete, unless it is there."""
    folder = spec.folder(shards)
    values = {
        "schema": SCHEMA,
        **dataclasses.asdict(spec),
        "encoder": dict(encoder),
        "clips": clips_digest(manifest),
        "files": {s.file: (folder / s.file).stat().st_size for s in manifest.shards},
    }
    text, path = json.dumps(values, indent=1) + "\n", folder / "manifest.json"
    with contextlib.suppress(InputError):
        if budgets.read_bytes(path) == text.encode():
            return
    files.write_text(path, text)


class _Manifest(TypedDict):
    schema: int
    fingerprint: str
    states: int
    width: int
    encoder: dict[str, Any]
    clips: str
    files: dict[str, int]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Reads the manifest in a cache folder.

    Raises:
      InputError: the manifest is damaged or has another schema.
    """
    path = Path(folder) / "manifest.json"
    values = budgets.load_json(path)
    if not isinstance(values, dict) or "schema" not in values:
        raise InputError(f"{path}: not the manifest of a cache (it states no schema)")
    if values["schema"] != SCHEMA:
        raise InputError(f"{path}: schema {values['schema']!r}, this version reads {SCHEMA}")
    return dict(typed_json.build(_Manifest, values, name=str(path)))
