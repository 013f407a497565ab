"""States of frozen encoders beside the shards: what is read instead of being computed again.

    SHARDS/encoded/<fingerprint>-<states>/manifest.json      which encoder, of which clips
                                         /clips-...          one a shard, of the same name

The fingerprint is of weights, layout and precision; another encoder is another folder. A file holds
[CHUNK, S, D] float16 stretches of its shard's clips, so that a window reads little more than its
own frames, and ends with a header: which encoder, and where each clip begins. A clip is known by
its id, its frames and its sound (`records.sound`): states of a sound that has changed are never
read, while captures that are solved again keep theirs. NumPy only: data workers read this without
jax.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from a2fjax import files
from a2fjax.data import records
from a2fjax.data.dataset import Entry, read_record
from a2fjax.errors import InputError

FOLDER = "encoded"
SCHEMA = 2
CHUNK = 100
"""Frames a record: two seconds."""

CACHE_BYTES = 256 << 20
WRITER_OPTIONS = "group_size:1,uncompressed"
"""ArrayRecord's: half floats shrink by 8 %, and reading them back would take five times as long."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """What a cache must hold for an encoder.

    Attributes:
      fingerprint: of the encoder and its weights.
      states: S, a frame.
      width: D, of a state.
    """

    fingerprint: str
    states: int
    width: int

    @property
    def name(self) -> str:
        """Name of the cache's folder."""
        return f"{self.fingerprint}-{self.states}"

    def folder(self, shards: str | Path) -> Path:
        """Returns where the cache of a set is."""
        return Path(shards) / FOLDER / self.name


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a clip's states are in a file.

    Attributes:
      frames: T of the clip.
      sound: `records.sound` of what was encoded.
      first: record of its first stretch; -1 where the clip could not be read.
    """

    frames: int
    sound: str
    first: int


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file of a cache says of itself.

    Attributes:
      stream: whose states they are.
      encoder: `audio.encoders.Encoder.describe`.
      clips: by id, in the shard's order.
    """

    stream: Stream
    encoder: dict[str, Any]
    clips: dict[str, Place]


def stretches(frames: int) -> int:
    """Returns how many records the states of so many frames take."""
    return -(-frames // CHUNK)


def encode(clip: str, states: np.ndarray) -> Iterator[bytes]:
    """Yields the records of a clip's states [T, S, D], in order.

    Raises:
      ValueError: they are not finite, or beyond what 16 bits hold.
    """
    largest = float(np.abs(states).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"{clip}: a state of {largest:g} is beyond 16-bit floating point")
    for start in range(0, len(states), CHUNK):
        part = states[start : start + CHUNK]
        body = msgpack.packb([clip, start, list(part.shape)])
        yield _sealed(len(body).to_bytes(4, "little") + body + part.astype("<f2").tobytes())


def decode(data: bytes) -> tuple[str, int, np.ndarray]:
    """Returns (clip's id, first frame, states [T, S, D] float16) of a record.

    Raises:
      BadRecord: damaged.
    """
    data = _opened(data)
    try:
        size = int.from_bytes(data[:4], "little")
        clip, start, shape = msgpack.unpackb(data[4 : 4 + size])
        values = np.frombuffer(data, "<f2", offset=4 + size).reshape(shape)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise records.BadRecord(f"not states ({error})") from None
    return clip, start, values


def encode_header(header: Header) -> bytes:
    """Returns the last record of a file."""
    clips = [[name, p.frames, p.sound, p.first] for name, p in header.clips.items()]
    stream = dataclasses.asdict(header.stream)
    return _sealed(msgpack.packb([SCHEMA, stream, json.dumps(header.encoder), clips]))


def decode_header(data: bytes) -> Header:
    """Returns what `encode_header` encoded.

    Raises:
      BadRecord: damaged, or of another schema.
    """
    try:
        schema, stream, encoder, clips = msgpack.unpackb(_opened(data))
        if schema == SCHEMA:
            places = {name: Place(*place) for name, *place in clips}
            return Header(Stream(**stream), json.loads(encoder), places)
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
      path: of the file.
      readers: open files, as `source.read_record` keeps them; None opens and closes it.

    Raises:
      BadRecord: no such file, damaged, cut short, or of another schema.
    """
    found: dict[str, Any] = {} if readers is None else readers
    header = decode_header(read_record(found, str(path), -1))
    needed = sum(stretches(p.frames) for p in header.clips.values() if p.first >= 0)
    there = found[str(path)].num_records() - 1
    if there != needed:
        raise records.BadRecord(f"holds {there} records of states, its header names {needed}")
    if readers is None:
        found.pop(str(path)).close()
    return header


def digest(manifest: records.Manifest) -> str:
    """Returns 16 hex digits that change when the clips of a set, or their sound, do."""
    clips = [
        [shard.file, *((c["id"], c["frames"], c.get("sound", "")) for c in shard.clips)]
        for shard in manifest.shards
    ]
    return hashlib.sha256(json.dumps(clips).encode()).hexdigest()[:16]


def is_current(
    header: Header, stream: Stream, shard: records.Shard, sounds: Sequence[str] = ()
) -> bool:
    """Returns whether a file holds an encoder's states of the clips that a shard has now.

    Args:
      header: of the file.
      stream: of the encoder.
      shard: of the set's manifest.
      sounds: of its clips, where the manifest does not say them.
    """
    now = [
        (clip["id"], clip["frames"], clip.get("sound") or (sounds[i] if sounds else ""))
        for i, clip in enumerate(shard.clips)
    ]
    then = [(name, p.frames, p.sound) for name, p in header.clips.items()]
    if header.stream != stream or len(now) != len(then):
        return False
    return all(
        a[:2] == b[:2] and (a[2] == b[2] or not a[2] or p.first < 0)
        for a, b, p in zip(now, then, header.clips.values(), strict=True)
    )


def write_manifest(
    shards: str | Path, stream: Stream, encoder: Mapping[str, Any], manifest: records.Manifest
) -> None:
    """Writes the cache's manifest, after which it is whole."""
    folder = stream.folder(shards)
    values = {
        "schema": SCHEMA,
        **dataclasses.asdict(stream),
        "encoder": dict(encoder),
        "clips": digest(manifest),
        "files": {s.file: (folder / s.file).stat().st_size for s in manifest.shards},
    }
    files.write_text(folder / "manifest.json", json.dumps(values, indent=1) + "\n")


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Returns the manifest of a cache's folder.

    Raises:
      InputError: damaged, or of another schema.
    """
    path = Path(folder) / "manifest.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        schema = values["schema"]
        if schema == SCHEMA:
            Stream(values["fingerprint"], values["states"], values["width"])
            dict(values["encoder"]), str(values["clips"]), dict(values["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of a cache ({error})") from None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema}, this version reads {SCHEMA}")
    return dict(values)


def check(shards: str | Path, stream: Stream, manifest: records.Manifest, key: str) -> None:
    """Checks that a set has the cache of an encoder.

    Args:
      shards: folder of the set.
      stream: what is needed.
      manifest: of the set.
      key: of the encoder, for the message.

    Raises:
      InputError: there is none, it is not finished, it was made of other clips or sounds, or a
        file is missing or has another size than it was written with.
    """
    folder = stream.folder(shards)
    if not (folder / "manifest.json").is_file():
        others = [c.folder.name for c in caches(shards, manifest) if c.folder != folder]
        have = f" (there: {', '.join(others)})" if others else ""
        state = "is not finished" if folder.is_dir() else f"is missing{have}"
        raise InputError(f"{folder}: the cache of encoder {key} {state}; {_how(shards)}")
    try:
        values = read_manifest(folder)
    except InputError as error:
        raise InputError(f"{error}; {_how(shards)}") from None
    if values["clips"] != digest(manifest):
        raise InputError(
            f"{folder}: was made of other clips or sounds than {shards} has now; {_how(shards)}"
        )
    for shard in manifest.shards:
        try:
            size = (folder / shard.file).stat().st_size
        except OSError:
            size = -1
        if size != values["files"].get(shard.file):
            what = "is missing" if size < 0 else f"has {size} bytes, not those it was written with"
            raise InputError(f"{folder / shard.file}: {what}; {_how(shards)}")


def _how(shards: str | Path) -> str:
    return (
        f"`a2fjax cache {shards} --features ...` writes what is missing, "
        "data.encoder_features='live' needs no cache"
    )


@dataclasses.dataclass(frozen=True)
class Cache:
    """A cache as `a2fjax inspect` lists it.

    Attributes:
      folder: of the cache.
      encoder: `audio.encoders.Encoder.describe`; {} where no file says it.
      stream: whose states; None where no file says it.
      files: of how many of the set's shards there is a file.
      size: bytes on disk.
      state: "complete", or what is wrong.
    """

    folder: Path
    encoder: dict[str, Any]
    stream: Stream | None
    files: int
    size: int
    state: str


def caches(shards: str | Path, manifest: records.Manifest) -> list[Cache]:
    """Returns the caches that a set has, whole or not, sorted by folder."""
    found = []
    for folder in sorted(Path(shards).glob(f"{FOLDER}/*-*")):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        there = [s.file for s in manifest.shards if (folder / s.file).is_file()]
        size = sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
        header, wrong = None, ""
        for name in there[:1]:
            try:
                header = read_header(folder / name)
            except records.BadRecord as error:
                wrong = f"{name}: {error}"
        if not (folder / "manifest.json").is_file():
            state = wrong or f"not finished, {len(there)} of {len(manifest.shards)} files"
        else:
            try:
                values = read_manifest(folder)
                stream = Stream(*(values[k] for k in ("fingerprint", "states", "width")))
                header = header or Header(stream, values["encoder"], {})
                check(shards, stream, manifest, folder.name)
                state = wrong or "complete"
            except InputError as error:
                state = str(error).partition("; ")[0].partition(": ")[2]
        encoder, of = (header.encoder, header.stream) if header else ({}, None)
        found.append(Cache(folder, encoder, of, len(there), size, state))
    return found


class Reader:
    """States of clips by key of their encoder; may be pickled or forked, safe for threads."""

    def __init__(
        self,
        folders: Sequence[str],
        manifests: Sequence[records.Manifest],
        streams: Mapping[str, Stream],
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Checks the caches; no state is read yet.

        Args:
          folders: of shards.
          manifests: of the same.
          streams: by key of the encoder.
          cache_bytes: bound on the states kept in memory.

        Raises:
          InputError: as `check`.
        """
        for folder, manifest in zip(folders, manifests, strict=True):
            for key, stream in streams.items():
                check(folder, stream, manifest, key)
        self.folders, self.streams = tuple(map(str, folders)), dict(streams)
        self._cache_bytes = cache_bytes
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._file_locks: dict[str, threading.Lock] = {}
        self._readers: dict[str, Any] = {}
        self._headers: dict[str, Header] = {}
        self._right: set[tuple[str, str]] = set()
        self._kept: collections.OrderedDict[tuple[str, int], np.ndarray] = collections.OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files, locks and kept states behind."""
        return {k: self.__dict__[k] for k in ("folders", "streams", "_cache_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts empty."""
        self.__dict__.update(state)
        self._start_process()

    def read(
        self,
        key: str,
        entry: Entry,
        start: int = 0,
        stop: int | None = None,
        *,
        clip: records.Clip | None = None,
    ) -> np.ndarray:
        """Returns frames `start` to `stop` of a clip's states [stop - start, S, D] float16.

        Args:
          key: of the encoder.
          entry: of the clip.
          start: first frame.
          stop: one beyond the last frame; None for the clip's end.
          clip: says its sound where the manifest does not; with neither, it is not compared.

        Raises:
          InputError: a record is damaged, or is of another clip, sound or shape.
        """
        if os.getpid() != self._pid:
            self._start_process()  # Forked: files share their position, locks may be held.
        stop = entry.frames if stop is None else stop
        stream = self.streams[key]
        path = str(stream.folder(self.folders[entry.folder]) / Path(entry.file).name)
        with self._lock:
            lock = self._file_locks.setdefault(path, threading.Lock())
        begin, end = start // CHUNK, stretches(stop)
        try:
            with lock:
                first = self._first(path, stream, entry, clip)
                parts = [self._stretch(path, first, k, stream, entry) for k in range(begin, end)]
        except records.BadRecord as error:
            raise InputError(
                f"{path}: {entry.id}: {error}; remove the file and write it again with `a2fjax "
                f"cache {self.folders[entry.folder]} --features ...`, or "
                "set data.encoder_features='live'"
            ) from None
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined[start - begin * CHUNK : stop - begin * CHUNK]

    def _first(self, path: str, stream: Stream, entry: Entry, clip: records.Clip | None) -> int:
        """Returns the record where a clip's states begin, once they are known to be of its sound.

        Raises:
          BadRecord: they are not.
        """
        if path not in self._headers:
            self._headers[path] = read_header(path, self._readers)
        header = self._headers[path]
        if header.stream != stream:
            raise records.BadRecord(f"holds states of encoder {header.stream.name}")
        place = header.clips.get(entry.id)
        if place is None or place.frames != entry.frames:
            raise records.BadRecord("holds other clips than the shard has now")
        if place.first < 0:
            raise records.BadRecord("the clip could not be read when the cache was written")
        if (path, entry.id) not in self._right:
            sound = entry.sound or ("" if clip is None else records.sound(clip))
            if sound and sound != place.sound:
                raise records.BadRecord("holds states of another sound than the clip has now")
            if sound:
                self._right.add((path, entry.id))
        return place.first

    def _stretch(self, path: str, first: int, k: int, stream: Stream, entry: Entry) -> np.ndarray:
        place = (path, first + k)
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
        clip, start, states = decode(read_record(self._readers, path, first + k))
        frames = min(CHUNK, entry.frames - k * CHUNK)
        if (clip, start) != (entry.id, k * CHUNK):
            raise records.BadRecord(f"holds frame {start} of {clip!r} in place of {k * CHUNK}")
        if states.shape != (frames, stream.states, stream.width):
            raise records.BadRecord(f"has shape {states.shape}")
        with self._lock:
            self._kept[place] = states
            self._bytes += states.nbytes
            while self._bytes > self._cache_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return states

    def window(
        self,
        key: str,
        entry: Entry,
        start: int,
        frames: int,
        speed: float = 1.0,
        *,
        clip: records.Clip | None = None,
    ) -> np.ndarray:
        """Returns the states [frames, S, D] float16 of a window, as `augment.cut` has its motion.

        Frame t is at frame `start + speed * t` of the clip, between frames by linear
        interpolation; beyond its end the last frame is repeated.

        Raises:
          InputError: as `read`, which also says what `clip` is for.
        """
        last = entry.frames - 1
        place = np.minimum(start + speed * np.arange(frames), last)
        below = place.astype(np.int64)
        above = below if speed == 1.0 else np.minimum(below + 1, last)
        begin = int(below[0])
        states = self.read(key, entry, begin, int(above[-1]) + 1, clip=clip)
        if speed == 1.0:
            return states[below - begin]
        share = (place - below).astype(np.float32)[:, None, None]
        later = states[above - begin].astype(np.float32)
        return (states[below - begin] * (1 - share) + later * share).astype(np.float16)
