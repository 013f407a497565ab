"""States of frozen encoders beside the shards: what is read instead of being computed again.

    SHARDS/encoded/<fingerprint>-<states>/manifest.json      which encoder, of which clips
                                         /clips-...          one a shard, of the same name

Record i of a file belongs to record i of the shard: MessagePack of the clip's id and the shape,
then [T, S, D] float16. The fingerprint is of weights, layout and precision; another encoder is
another folder. NumPy only: data workers read this without jax.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import threading
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from a2fjax.data import records
from a2fjax.data.source import Entry, read_record
from a2fjax.errors import InputError

FOLDER = "encoded"
SCHEMA = 1
CACHE_BYTES = 512 << 20


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


def digest(manifest: records.Manifest) -> str:
    """Returns 16 hex digits that change when the clips of a set do."""
    clips = [
        [shard.file, *((c["id"], c["frames"]) for c in shard.clips)] for shard in manifest.shards
    ]
    return hashlib.sha256(json.dumps(clips).encode()).hexdigest()[:16]


def encode(clip: str, states: np.ndarray) -> bytes:
    """Returns the record of a clip's states [T, S, D].

    Raises:
      ValueError: they are beyond what 16 bits hold.
    """
    largest = float(np.abs(states).max(initial=0.0))
    if not largest <= float(np.finfo(np.float16).max):
        raise ValueError(f"{clip}: a state of {largest:g} is beyond 16-bit floating point")
    body = msgpack.packb([clip, list(states.shape)])
    data = len(body).to_bytes(4, "little") + body + states.astype("<f2").tobytes()
    return zlib.crc32(data).to_bytes(4, "little") + data


def decode(data: bytes) -> tuple[str, np.ndarray]:
    """Returns (clip's id, states [T, S, D] float16).

    Raises:
      BadRecord: damaged.
    """
    if len(data) < 8 or zlib.crc32(data[4:]) != int.from_bytes(data[:4], "little"):
        raise records.BadRecord("checksum does not match")
    try:
        size = int.from_bytes(data[4:8], "little")
        clip, shape = msgpack.unpackb(data[8 : 8 + size])
        values = np.frombuffer(data, "<f2", offset=8 + size).reshape(shape)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise records.BadRecord(f"not states ({error})") from None
    return clip, values


def write_manifest(
    shards: str | Path, stream: Stream, encoder: Mapping[str, Any], manifest: records.Manifest
) -> None:
    """Writes the cache's manifest, after which it is whole."""
    from a2fjax import files

    values = {
        "schema": SCHEMA,
        **dataclasses.asdict(stream),
        "encoder": dict(encoder),
        "clips": digest(manifest),
        "files": [shard.file for shard in manifest.shards],
    }
    files.write_text(stream.folder(shards) / "manifest.json", json.dumps(values, indent=1) + "\n")


def check(shards: str | Path, stream: Stream, manifest: records.Manifest, key: str) -> None:
    """Checks that a set has the cache of an encoder.

    Args:
      shards: folder of the set.
      stream: what is needed.
      manifest: of the set.
      key: of the encoder, for the message.

    Raises:
      InputError: there is none, it is not finished, or it was made of other clips.
    """
    folder = stream.folder(shards)
    path = folder / "manifest.json"
    how = f"; write it with `a2fjax cache {shards} --features ...`, or set data.encoded='live'"
    if not path.is_file():
        others = sorted(p.parent.name for p in folder.parent.glob("*/manifest.json"))
        have = f" (there: {', '.join(others)})" if others else ""
        state = "is not finished" if folder.is_dir() else f"is missing{have}"
        raise InputError(f"{folder}: the cache of encoder {key} {state}{how}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        schema, clips = values["schema"], values["clips"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the manifest of a cache ({error})") from None
    if schema != SCHEMA:
        raise InputError(f"{path}: schema {schema}, this version reads {SCHEMA}{how}")
    if clips != digest(manifest):
        raise InputError(f"{folder}: was made of other clips than {shards} has now{how}")
    for shard in manifest.shards:
        if not (folder / shard.file).is_file():
            raise InputError(f"{folder}: {shard.file} is missing{how}")


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
        """Checks the caches; no record is read yet.

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
        self.folders, self.streams = tuple(folders), dict(streams)
        self._cache_bytes = cache_bytes
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._readers: dict[str, Any] = {}
        self._kept: collections.OrderedDict[tuple[str, str, int], np.ndarray]
        self._kept = collections.OrderedDict()
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files, locks and kept states behind."""
        return {k: self.__dict__[k] for k in ("folders", "streams", "_cache_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts empty."""
        self.__dict__.update(state)
        self._start_process()

    def read(self, key: str, entry: Entry) -> np.ndarray:
        """Returns a clip's states [T, S, D] float16, not to be written to.

        Raises:
          InputError: the record cannot be read, or is of another clip or shape.
        """
        if os.getpid() != self._pid:
            self._start_process()  # Forked: files share their position, locks may be held.
        stream = self.streams[key]
        path = str(stream.folder(self.folders[entry.folder]) / Path(entry.file).name)
        place = (key, path, entry.record)
        with self._lock:
            if place in self._kept:
                self._kept.move_to_end(place)
                return self._kept[place]
            try:
                clip, states = decode(read_record(self._readers, path, entry.record))
                if clip != entry.id:
                    raise records.BadRecord(f"holds clip {clip!r}")
                if states.shape != (entry.frames, stream.states, stream.width):
                    raise records.BadRecord(f"has shape {states.shape}")
            except records.BadRecord as error:
                raise InputError(
                    f"{path}: record {entry.record} ({entry.id}): {error}; remove the file and "
                    "write the cache again"
                ) from None
            self._kept[place] = states
            self._bytes += states.nbytes
            while self._bytes > self._cache_bytes and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
            return states

    def window(
        self, key: str, entry: Entry, start: int, frames: int, speed: float = 1.0
    ) -> np.ndarray:
        """Returns the states [frames, S, D] float16 of a window, as `augment.cut` has its motion.

        Frame t is at frame `start + speed * t` of the clip, between frames by linear
        interpolation; beyond its end the last frame is repeated.

        Raises:
          InputError: as `read`.
        """
        states = self.read(key, entry)
        last = len(states) - 1
        place = np.minimum(start + speed * np.arange(frames), last)
        below = place.astype(np.int64)
        if speed == 1.0:
            return states[below]
        share = (place - below).astype(np.float32)[:, None, None]
        above = states[np.minimum(below + 1, last)].astype(np.float32)
        return (states[below] * (1 - share) + above * share).astype(np.float16)
