"""Reads hidden states from feature caches, for data workers."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.data import records
from a2fjax.data.dataset import Entry, read_record
from a2fjax.data.feature_cache import inventory
from a2fjax.data.feature_cache.format import (
    CHUNK,
    FeatureSpec,
    Header,
    chunk_count,
    decode_part,
    read_header,
)
from a2fjax.errors import InputError

CACHE_BYTES = 256 << 20


class Reader:
    """Reads the hidden states of clips; thread-safe, and may be pickled or forked."""

    def __init__(
        self,
        folders: Sequence[str],
        manifests: Sequence[records.Manifest],
        specs: Mapping[str, FeatureSpec],
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Checks the caches; no hidden states are read yet.

        Args:
          folders: shard folders.
          manifests: manifest of each folder.
          specs: feature specs by encoder key.
          cache_bytes: limit on the hidden states kept in memory.

        Raises:
          InputError: as `inventory.check`.
        """
        for folder, manifest in zip(folders, manifests, strict=True):
            for key, spec in specs.items():
                inventory.check(folder, spec, manifest, key)
        self.folders, self.specs = tuple(map(str, folders)), dict(specs)
        self._cache_bytes = cache_bytes
        self._start_process()

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._file_locks: dict[str, threading.Lock] = {}
        self._readers: dict[str, Any] = {}
        self._headers: dict[str, Header] = {}
        self._verified: set[tuple[str, str]] = set()
        self._chunks: collections.OrderedDict[tuple[str, int], np.ndarray] = (
            collections.OrderedDict()
        )
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without open files, locks and cached chunks."""
        return {k: self.__dict__[k] for k in ("folders", "specs", "_cache_bytes")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts with empty caches."""
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
          key: key of the encoder.
          entry: entry of the clip.
          start: first frame.
          stop: index after the last frame; None for the clip's end.
          clip: the clip, used to compute `records.sound` if the manifest lacks it; without either,
            the sound is not checked.

        Raises:
          InputError: a record is damaged, or has another clip, sound or shape.
        """
        if os.getpid() != self._pid:
            # After a fork, file positions are shared with the parent and its locks may stay held.
            self._start_process()
        stop = entry.frames if stop is None else stop
        spec = self.specs[key]
        path = str(spec.folder(self.folders[entry.folder]) / Path(entry.file).name)
        with self._lock:
            lock = self._file_locks.setdefault(path, threading.Lock())
        begin, end = start // CHUNK, chunk_count(stop)
        try:
            with lock:
                first = self._first(path, spec, entry, clip)
                parts = [self._chunk(path, first, k, spec, entry) for k in range(begin, end)]
        except records.BadRecord as error:
            raise InputError(
                f"{path}: {entry.id}: {error}; `a2fjax cache {self.folders[entry.folder]} "
                "--features ...` writes it again, data.encoder_features='live' needs no cache"
            ) from None
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined[start - begin * CHUNK : stop - begin * CHUNK]

    def _first(self, path: str, spec: FeatureSpec, entry: Entry, clip: records.Clip | None) -> int:
        """Returns the index of a clip's first record after checking that the states match it.

        Raises:
          BadRecord: they do not match.
        """
        if path not in self._headers:
            self._headers[path] = read_header(path, self._readers)
        header = self._headers[path]
        if header.spec != spec:
            raise records.BadRecord(f"holds states of encoder {header.spec.name}")
        location = header.clips.get(entry.id)
        if location is None or location.frames != entry.frames:
            raise records.BadRecord("holds other clips than the shard has now")
        if location.first < 0:
            raise records.BadRecord("the clip could not be read when the cache was written")
        if (path, entry.id) not in self._verified:
            sound = entry.sound or ("" if clip is None else records.sound(clip))
            if sound and sound != location.sound:
                raise records.BadRecord("holds states of another sound than the clip has now")
            if sound:
                self._verified.add((path, entry.id))
        return location.first

    def _chunk(self, path: str, first: int, k: int, spec: FeatureSpec, entry: Entry) -> np.ndarray:
        location = (path, first + k)
        with self._lock:
            if location in self._chunks:
                self._chunks.move_to_end(location)
                return self._chunks[location]
        data = read_record(self._readers, path, first + k)
        states = decode_part(data, spec, entry.id, entry.frames, k)
        with self._lock:
            self._chunks[location] = states
            self._bytes += states.nbytes
            while self._bytes > self._cache_bytes and len(self._chunks) > 1:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes
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
        """Returns the states [frames, S, D] float16 of a window, aligned with `windows.cut`.

        Frame t is frame `start + speed * t` of the clip, with linear interpolation between frames;
        the last frame is repeated beyond the clip's end.

        Raises:
          InputError: as `read`, which also documents `clip`.
        """
        last = entry.frames - 1
        location = np.minimum(start + speed * np.arange(frames), last)
        below = location.astype(np.int64)
        above = below if speed == 1.0 else np.minimum(below + 1, last)
        begin = int(below[0])
        states = self.read(key, entry, begin, int(above[-1]) + 1, clip=clip)
        if speed == 1.0:
            return states[below - begin]
        share = (location - below).astype(np.float32)[:, None, None]
        later = states[above - begin].astype(np.float32)
        return (states[below - begin] * (1 - share) + later * share).astype(np.float16)
