"""Random access to the clips of one split, in one or several shard folders; NumPy only.

A record that cannot be read never shifts the others: it keeps its index, and asking for it gives
another clip of the same folder that depends only on the index and on which records are readable.
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
"""ArrayRecord's setting for random access; it reads 16 MB ahead otherwise."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """Where a clip is.

    Attributes:
      folder: index of the shard folder in the source's `folders`.
      file: path of the shard.
      record: index in the shard.
      id, subject, frames: as the manifest says; subject ids belong to their folder.
      sound: `records.sound`, as the manifest says; "" where it does not.
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
        """Names the record in messages."""
        return f"{self.file}: record {self.record} ({self.id})"


def _arrays(clip: records.Clip) -> tuple[np.ndarray, ...]:
    return clip.audio, clip.motion, clip.emotion, clip.frame_mask, clip.channel_mask


def _size(clip: records.Clip) -> int:
    return sum(array.nbytes for array in _arrays(clip))


def read_record(readers: dict[str, Any], file: str, record: int) -> bytes:
    """Returns the bytes of a record; the file is opened on first use and kept in `readers`.

    A negative `record` counts from the end, as -1 for the last. Not safe for several threads with
    the same file.

    Raises:
      BadRecord: there is no such record, or the file is damaged.
    """
    # Not at the top: importing it costs time that users of the manifest alone need not pay.
    from array_record.python.array_record_module import ArrayRecordReader

    try:
        if file not in readers:
            os.stat(file)  # Its error says what is wrong in plainer words.
            readers[file] = ArrayRecordReader(file, _READER_OPTIONS)
        reader = readers[file]
        if reader.ok():
            count = reader.num_records()
            record += count if record < 0 else 0
            if not 0 <= record < count:
                raise records.BadRecord(f"the shard holds only {count} records")
        (data,) = reader.read([max(record, 0)])  # Raises where it is not ok.
        return data
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, records.BadRecord):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise records.BadRecord(reason.split(";")[0].strip()) from None


class ClipSource:
    """The clips of a split in manifest order, folder by folder.

    Files are opened on first use in each process, so a source may be pickled or forked. Safe for
    use from several threads.

    Attributes:
      folders: the shard folders.
      manifests: of each folder.
      split: of the manifests.
      entries: one a clip; the index of a clip is its place here.
      bad: reason by index of every record found unreadable so far (in this process, and those
        reported by `note`).
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
          folders: of shards, at least one.
          split: of `records.SPLITS`; at least one folder must hold clips of it.
          on_bad: "skip" gives another clip for a record that cannot be read, "raise" does not.
          cache_bytes: bound on the decoded clips kept in memory.

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
        found = []
        for f, manifest in enumerate(self.manifests):
            for shard in manifest.shards:
                for record, clip in enumerate(shard.clips):
                    if clip["split"] == self.split:
                        found.append(
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
        return found

    def _start_process(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._readers: dict[str, Any] = {}
        self._shard_locks: dict[str, threading.Lock] = {}
        self._cache: collections.OrderedDict[int, records.Clip] = collections.OrderedDict()
        self._cached = 0

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files, locks and cached clips behind."""
        left = {"_lock", "_readers", "_shard_locks", "_cache", "_cached", "_pid"}
        return {key: value for key, value in self.__dict__.items() if key not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Starts empty, and quiet: the process that sent the source reports bad records."""
        self.__dict__.update(state)
        self._quiet = True
        self._start_process()

    def __len__(self) -> int:
        """Returns the number of clips, readable or not."""
        return len(self.entries)

    @property
    def frames(self) -> np.ndarray:
        """Frames of each clip [N] int64, by the manifest."""
        return np.array([entry.frames for entry in self.entries], np.int64)

    @property
    def sets(self) -> np.ndarray:
        """Which folder each clip is of [N] int64, an index into `folders`; never decreases."""
        return np.array([entry.folder for entry in self.entries], np.int64)

    def load(self, index: int) -> records.Clip:
        """Returns a clip; its arrays are shared and must not be written to.

        Raises:
          BadRecord: the record cannot be read; the message says why, without naming it.
        """
        if os.getpid() != self._pid:
            # Forked: the parent's files share their position, its lock may be held for ever.
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
        if clip.frames == 0:
            raise records.BadRecord("has no frames")

    def note(self, index: int, reason: str) -> None:
        """Counts a record as bad, and names it in the log the first time."""
        with self._lock:
            if index in self.bad:
                return
            self.bad[index] = reason
        if not self._quiet:
            _log.warning("skipped %s: %s", self.entries[index].name, reason)

    def get(self, index: int) -> tuple[int, records.Clip, dict[int, str]]:
        """Returns a clip, or another one in its place when it cannot be read.

        Returns:
          (index of the clip that is returned, clip, reason by index of the records passed over).

        Raises:
          InputError: the record cannot be read and the policy is "raise", or none of its folder
            can be read.
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
        """Returns the clip of `get`."""
        return self.get(index)[1]

    def _order(self, index: int) -> Iterator[int]:
        """Yields `index`, then its folder's other clips in steps that leave its shard soon.

        Clips of other folders do not stand in: the mixture of the sets would no longer be the one
        that was asked for.
        """
        begin, count = self._spans[self.entries[index].folder]
        step = max(1, round(count * 0.618))
        while math.gcd(step, count) != 1:
            step += 1
        for k in range(count):
            yield begin + (index - begin + k * step) % count
