"""Gives random access to the clips of one split in one or several shard folders; NumPy only.

An unreadable record keeps its index, so the other records do not shift. A request for it returns
another clip of the same folder, chosen by the index and the set of readable records alone.
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.data import records
from a2fjax.errors import InputError, nearest

_log = logging.getLogger(__name__)

CACHE_BYTES = 256 << 20
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
"""ArrayRecord options for random access; by default it reads 16 MB ahead."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Location of a clip, with its values from the manifest.

    Attributes:
      folder: index of the shard folder in the source's `folders`.
      file: path of the shard.
      record: index in the shard.
      id, subject, frames: values from the manifest; a subject id is unique within its folder.
      sound: `records.sound` from the manifest; "" if the manifest lacks it.
    """

    folder: int
    file: str
    record: int
    id: str
    subject: str
    frames: int
    sound: str = ""

    @property
    def name(self) -> str:
        """Name of the record for messages."""
        return f"{self.file}: record {self.record} ({self.id})"


def _arrays(clip: records.Clip) -> tuple[np.ndarray, ...]:
    return clip.audio, clip.motion, clip.emotion, clip.frame_mask, clip.channel_mask


def _size(clip: records.Clip) -> int:
    return sum(array.nbytes for array in _arrays(clip))


def read_record(readers: dict[str, Any], file: str, record: int) -> bytes:
    """Returns the bytes of a record; opens the file on first use and keeps it in `readers`.

    A negative `record` counts from the end; -1 is the last record. Threads must not read the same
    file at the same time.

    Raises:
      BadRecord: there is no such record, or the file is damaged.
    """
    # Imported here because the import is slow and readers of the manifest alone do not need it.
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        if file not in readers:
            os.stat(file)  # Its error message is clearer than ArrayRecord's.
            readers[file] = ArrayRecordReader(file, _READER_OPTIONS)
        reader = readers[file]
        if reader.ok():
            count = reader.num_records()
            record += count if record < 0 else 0
            if not 0 <= record < count:
                raise records.BadRecord(f"the shard holds only {count} records")
        (data,) = reader.read([max(record, 0)])  # Raises if the reader is not ok.
        return data
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, records.BadRecord):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise records.BadRecord(reason.split(";")[0].strip()) from None


class ClipSource:
    """The clips of a split in manifest order, folder by folder.

    Each process opens files on first use, so a source may be pickled or forked. It is thread-safe.

    Attributes:
      folders: the shard folders.
      manifests: the manifest of each folder.
      split: name of the split.
      entries: one entry per clip; a clip's index is its position here.
      bad: reason by index for every unreadable record so far (in this process, and those
        reported to `note`).
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        split: str,
        *,
        on_bad: str = "skip",
        cache_bytes: int = CACHE_BYTES,
    ):
        """Reads the manifests; no record is read yet.

        Args:
          folders: shard folders, at least one.
          split: one of `records.SPLITS`; at least one folder must hold clips of it.
          on_bad: "skip" replaces an unreadable record with another clip, "raise" raises an error.
          cache_bytes: limit on the decoded clips kept in memory.

        Raises:
          InputError: no folder given, no such split, or as `records.read_manifest`.
        """
        if not folders:
            raise InputError("data.shards is empty: give at least one folder of shards")
        if split not in records.SPLITS:
            raise InputError(f"no split {split!r}{nearest(split, records.SPLITS)}")
        self.folders = tuple(str(f) for f in folders)
        self.manifests = tuple(records.read_manifest(f) for f in self.folders)
        self.split = split
        self.on_bad = on_bad
        records.check_split(split, self.manifests, self.folders)
        self.entries = tuple(self._find())
        counts = collections.Counter(entry.folder for entry in self.entries)
        self._spans: dict[int, tuple[int, int]] = {}
        for folder in sorted(counts):
            self._spans[folder] = (sum(n for _, n in self._spans.values()), counts[folder])
        self.bad: dict[int, str] = {}
        self._cache_bytes = cache_bytes
        self._quiet = False
        self._start_process()

    def _find(self) -> list[Entry]:
        entries = []
        for f, manifest in enumerate(self.manifests):
            for shard in manifest.shards:
                for record, clip in enumerate(shard.clips):
                    if clip["split"] == self.split:
                        entries.append(
                            Entry(
                                f,
                                str(Path(self.folders[f]) / shard.file),
                                record,
                                clip["id"],
                                clip["subject"],
                                int(clip["frames"]),
                                clip.get("sound", ""),
                            )
                        )
        return entries

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._readers: dict[str, Any] = {}
        self._shard_locks: dict[str, threading.Lock] = {}
        self._cache: collections.OrderedDict[int, records.Clip] = collections.OrderedDict()
        self._cached = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state without open files, locks and cached clips."""
        left = {"_lock", "_readers", "_shard_locks", "_cache", "_cached", "_pid"}
        return {key: value for key, value in self.__dict__.items() if key not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts with empty caches; the process that sent the source logs the bad records."""
        self.__dict__.update(state)
        self._quiet = True
        self._start_process()

    def __len__(self) -> int:
        """Returns the number of clips, readable or not."""
        return len(self.entries)

    @property
    def frames(self) -> np.ndarray:
        """Number of frames of each clip [N] int64, from the manifest."""
        return np.array([entry.frames for entry in self.entries], np.int64)

    @property
    def sets(self) -> np.ndarray:
        """Folder of each clip [N] int64, as an index into `folders`; never decreases."""
        return np.array([entry.folder for entry in self.entries], np.int64)

    def spread(self, most: int) -> np.ndarray:
        """Returns the indices of at most `most` clips, spread evenly over all, ascending."""
        return np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int))

    def load(self, index: int) -> records.Clip:
        """Returns a clip; its arrays are shared and must not be written to.

        Raises:
          BadRecord: the record cannot be read; the message gives the reason but not the name.
        """
        if os.getpid() != self._pid:
            # After a fork, file positions are shared with the parent and its lock may stay held.
            self._start_process()
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            if index in self.bad:
                raise records.BadRecord(self.bad[index])
            shard_lock = self._shard_locks.setdefault(self.entries[index].file, threading.Lock())
        with shard_lock:
            entry = self.entries[index]
            data = read_record(self._readers, entry.file, entry.record)
        clip = records.decode(data)
        self._check(clip, self.entries[index])
        for array in _arrays(clip):
            array.flags.writeable = False
        with self._lock:
            if index not in self._cache:
                self._cache[index] = clip
                self._cached += _size(clip)
            while self._cached > self._cache_bytes and len(self._cache) > 1:
                self._cached -= _size(self._cache.popitem(last=False)[1])
        return clip

    def _check(self, clip: records.Clip, entry: Entry) -> None:
        if clip.id != entry.id:
            raise records.BadRecord(f"holds clip {clip.id!r}, another than the manifest says")
        if clip.split != self.split:
            raise records.BadRecord(f"is of split {clip.split!r}, the manifest says {self.split!r}")
        if clip.subject != entry.subject:
            raise records.BadRecord(
                f"is of subject {clip.subject!r}, the manifest says {entry.subject!r}"
            )
        if clip.frames != entry.frames:
            raise records.BadRecord(f"has {clip.frames} frames, the manifest says {entry.frames}")

    def note(self, index: int, reason: str) -> None:
        """Marks a record as bad and logs its name the first time."""
        with self._lock:
            if index in self.bad:
                return
            self.bad[index] = reason
        if not self._quiet:
            _log.warning("skipped %s: %s", self.entries[index].name, reason)

    def get(self, index: int) -> tuple[int, records.Clip, dict[int, str]]:
        """Returns a clip, or a replacement if it cannot be read.

        Returns:
          (index of the returned clip, clip, reason by index for each skipped record).

        Raises:
          InputError: the record cannot be read and the policy is "raise", or no record of its
            folder can be read.
        """
        passed: dict[int, str] = {}
        for attempt in self._order(index):
            try:
                return attempt, self.load(attempt), passed
            except records.BadRecord as error:
                passed[attempt] = str(error)
                if self.on_bad == "raise":
                    raise InputError(f"{self.entries[attempt].name}: {error}") from None
                self.note(attempt, str(error))
        first = self.entries[index]
        raise InputError(
            f"no readable clip in split {self.split!r} of {self.folders[first.folder]}; "
            f"first: {first.name}: {passed[index]}"
        )

    def __getitem__(self, index: int) -> records.Clip:
        """Returns the clip that `get` returns."""
        return self.get(index)[1]

    def _order(self, index: int) -> Iterator[int]:
        """Yields `index`, then the other clips of its folder in steps that soon leave its shard.

        Clips of other folders are not used as replacements, because that would change the mixture
        of datasets.
        """
        begin, count = self._spans[self.entries[index].folder]
        step = max(1, round(count * 0.618))
        while math.gcd(step, count) != 1:
            step += 1
        for k in range(count):
            yield begin + (index - begin + k * step) % count
