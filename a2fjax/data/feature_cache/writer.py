"""Writes feature caches beside shards, completely or in parts on several machines.

Each shard has one cache file, which is written atomically and records the clips and audio it was
made from. A build that was killed therefore continues with the missing files, and after a rebuild
of the shards only the outdated files are written again. Existing files are read completely, so that
damaged ones are written again as well. Parts share nothing but the folder. The manifest is written
once every file is correct; training reads only caches that have one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from a2fjax import files, progress
from a2fjax.data import padding, records
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache import format as cache_format
from a2fjax.data.feature_cache import inventory
from a2fjax.encoders.param_paths import Params
from a2fjax.encoders.speech_encoder import SpeechEncoder, compiled_apply
from a2fjax.errors import InputError, WorkFailed

BATCH_FRAMES = 4000
"""Approximate number of frames per encoder batch."""

BATCH_BYTES = 192 << 20
"""Limit on the float32 states of a batch; encoders with many or wide states use fewer frames."""

_LENGTHS = (100, 200, 300, 400, 500, 600, 800, 1000)
"""Lengths in frames that clips are padded to; longer clips are padded to multiples of 500."""

_SAY_SECONDS = 10.0


def feature_spec(encoder: SpeechEncoder, params: Params) -> cache_format.FeatureSpec:
    """Returns the spec that identifies an encoder's hidden states."""
    return cache_format.FeatureSpec(encoder.fingerprint(params), encoder.num_states, encoder.width)


def write(
    shards: str | Path,
    encoder: SpeechEncoder,
    params: Params,
    *,
    part: tuple[int, int] | None = None,
    finish: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes or continues the cache of an encoder.

    Undamaged files that match the current clips and audio of the shards are kept. Any number of
    parts gives byte-identical files. Memory use does not grow with the number of shards.

    Args:
      shards: folder of the dataset.
      encoder: the frozen encoder.
      params: parameters of the encoder.
      part: (I, N) writes every N-th file from the I-th on, and no manifest.
      finish: only checks the headers of files, which parts have just written or checked; removes
        other files, and writes the manifest.
      say: called with lines about the progress.

    Returns:
      The folder of the cache.

    Raises:
      InputError: there is no such dataset or part, the folder cannot be written, or, with
        `finish`, a file is missing or was made from other clips.
      WorkFailed: a state exceeds the range of float16, or the disk is full.
    """
    if part is not None and not 1 <= part[0] <= part[1]:
        raise InputError(f"--part {part[0]}/{part[1]}: expected I/N with I from 1 to N")
    manifest = records.read_manifest(shards)
    what = feature_spec(encoder, params)
    folder = what.folder(shards)
    if finish and not folder.is_dir():
        raise InputError(f"{folder}: is missing; run the parts, or the command without --finish")
    files.make_folder(folder)
    chosen = manifest.shards if part is None else manifest.shards[part[0] - 1 :: part[1]]
    with _writing(folder) as alone:
        with progress.shown("looking for files that are done", say):
            wrong = _wrong_files(Path(shards), chosen, folder, what, say=None if finish else say)
        todo = [shard for shard in chosen if wrong[shard.file]]
        if todo and finish:
            first = todo[0].file
            raise InputError(
                f"{folder / first}: {wrong[first]} ({len(todo)} of {len(chosen)} files); run the "
                "part that writes it, or the command without --finish"
            )
        if todo:
            # The cache is incomplete until all files are correct.
            (folder / "manifest.json").unlink(missing_ok=True)
            _Work(Path(shards), encoder, params, what, say).run(todo)
        elif not finish:
            say(f"{len(chosen)} of {len(chosen)} files were there already")
        if part is not None:
            return folder
        if alone():
            _clean(folder, {shard.file for shard in manifest.shards})
        cache_format.write_manifest(shards, what, encoder.describe(), manifest)
        inventory.check(shards, what, manifest, encoder.kind)
    return folder


def _wrong_files(
    shards: Path,
    chosen: Sequence[records.Shard],
    folder: Path,
    what: cache_format.FeatureSpec,
    *,
    say: Callable[[str], None] | None,
) -> dict[str, str]:
    """Returns the problem with each cache file, "" if there is none.

    Args:
      shards: folder of the dataset.
      chosen: shards whose cache files are checked.
      folder: folder of the cache.
      what: identifies the encoder.
      say: called with damaged files; None checks headers only.
    """
    problems = {shard.file: _wrong(shards, shard, folder, what) for shard in chosen}
    good = [] if say is None else [name for name, problem in problems.items() if not problem]
    if good and say is not None:
        say(f"checking the states of {len(good)} files")
        for name in good:
            path = folder / name
            try:
                cache_format.check_states(path, cache_format.read_header(path))
            except records.BadRecord as error:
                problems[name] = f"is damaged ({error})"
                say(f"{path}: {problems[name]}: writing it again")
    return problems


def _wrong(shards: Path, shard: records.Shard, folder: Path, what: cache_format.FeatureSpec) -> str:
    """Returns the problem with a cache file according to its header, "" if there is none."""
    path = folder / shard.file
    if not path.is_file():
        return "is missing"
    try:
        header = cache_format.read_header(path)
    except records.BadRecord as error:
        return f"is damaged ({error})"
    sounds: list[str] = []
    if not all(clip.get("sound") for clip in shard.clips):
        sounds = list(_sounds(shards / shard.file, len(shard.clips)))
    if not cache_format.is_current(header, what, shard, sounds):
        return "was made of other clips or sounds than the shard has now"
    return ""


def _sounds(path: Path, count: int) -> Iterator[str]:
    """Yields `records.sound` for each record of a shard; "" if a record cannot be read."""
    from a2fjax.data.dataset import read_record

    readers: dict[str, object] = {}
    for record in range(count):
        try:
            yield records.sound(records.decode(read_record(readers, str(path), record)))
        except records.BadRecord:
            yield ""


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[Callable[[], bool]]:
    """Locks a cache folder for writing; yields a function that returns True for the only writer.

    Several processes may write, because they write the same bytes. Only the sole writer removes
    the leftovers of killed builds, since they could be files that another writer is working on.
    """
    handle = os.open(folder, os.O_RDONLY)

    def lock(kind: int) -> bool:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError:
            return False  # Another process holds it, or a network disk cannot lock folders.
        return True

    try:
        lock(fcntl.LOCK_SH)
        yield lambda: lock(fcntl.LOCK_EX)
    finally:
        os.close(handle)


def _clean(folder: Path, names: set[str]) -> None:
    """Removes leftovers of killed builds and of builds with another number of shards."""
    for path in (*folder.glob("*.arrayrecord"), *folder.glob(".*.partial")):
        if path.name not in names:
            path.unlink(missing_ok=True)


class _Work:
    """Encodes the clips of several shards during one call of `write`."""

    def __init__(
        self,
        shards: Path,
        encoder: SpeechEncoder,
        params: Params,
        what: cache_format.FeatureSpec,
        say: Callable[[str], None],
    ) -> None:
        self.shards, self.encoder, self.what = shards, encoder, what
        self.params = jax.device_put(params)
        self.folder, self.say = what.folder(shards), say
        self.run_encoder = compiled_apply(encoder)
        size = 4 * encoder.num_states * encoder.width
        self.batch_frames = max(min(BATCH_FRAMES, BATCH_BYTES // size), 1)
        self.started = self.told = time.monotonic()
        self.done = self.total = 0

    def run(self, shards: Sequence[records.Shard]) -> None:
        self.total = sum(clip["frames"] for shard in shards for clip in shard.clips)
        splits = sorted({clip["split"] for shard in shards for clip in shard.clips})
        # Each clip is read once, so caching would only use memory.
        sources = {s: ClipSource([self.shards], s, on_bad="raise", cache_bytes=0) for s in splits}
        places = {
            (Path(entry.file).name, entry.record): (source, i)
            for source in sources.values()
            for i, entry in enumerate(source.entries)
        }
        # The first batch is compiled; from then on `_tell` says more.
        with progress.shown(lambda: "" if self.done else "encoding the first clips", self.say):
            for shard in shards:
                self._file(shard, [places[shard.file, i] for i in range(len(shard.clips))])

    def _file(self, shard: records.Shard, wanted: list[tuple[ClipSource, int]]) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        path = self.folder / shard.file
        written: dict[int, cache_format.ClipRecords] = {}
        with files.atomic_write(path) as temporary:
            writer = ArrayRecordWriter(str(temporary), cache_format.WRITER_OPTIONS)
            try:
                first = 0
                for members in self._batches([c["frames"] for c in shard.clips]):
                    clips = {k: self._clip(*wanted[k]) for k in members}
                    there = {k: clip for k, clip in clips.items() if clip is not None}
                    states = self._encode(list(there.values()))
                    for k, clip, values in zip(there, there.values(), states, strict=True):
                        for record in self._records(path, clip, values):
                            writer.write(record)
                        written[k] = cache_format.ClipRecords(
                            clip.frames, records.sound(clip), first
                        )
                        first += cache_format.chunk_count(clip.frames)
                    for k in set(clips) - set(there):
                        written[k] = cache_format.ClipRecords(shard.clips[k]["frames"], "", -1)
                    self.done += sum(shard.clips[k]["frames"] for k in members)
                    self._tell()
                places = {clip["id"]: written[k] for k, clip in enumerate(shard.clips)}
                header = cache_format.Header(self.what, self.encoder.describe(), places)
                writer.write(cache_format.encode_header(header))
            finally:
                writer.close()
            try:
                # Detects a full disk, which the writer does not always report.
                cache_format.read_header(temporary)
            except records.BadRecord as error:
                raise WorkFailed(f"{path}: could not be written ({error})") from None

    def _records(self, path: Path, clip: records.Clip, states: np.ndarray) -> Iterator[bytes]:
        try:
            yield from cache_format.encode(clip.id, states)
        except ValueError as error:
            raise WorkFailed(f"{path}: {error}; train with data.encoder_features='live'") from None

    def _clip(self, source: ClipSource, index: int) -> records.Clip | None:
        """Returns a clip, or None for one that training would skip too."""
        try:
            clip = source.load(index)
            if clip.frames != source.entries[index].frames:
                raise records.BadRecord(f"has {clip.frames} frames, the manifest says otherwise")
        except records.BadRecord as error:
            self.say(f"left out {source.entries[index].name}: {error}")
            return None
        return clip

    def _encode(self, clips: list[records.Clip]) -> Iterator[np.ndarray]:
        if not clips:
            return iter(())
        size = _padded(max(clip.frames for clip in clips))
        rows = [padding.padded_audio(clip, size) for clip in clips]
        rows += [rows[-1]] * (self._count(size) - len(rows))
        audio = np.stack([row[0] for row in rows])
        lengths = np.array([row[1] for row in rows], np.int32)
        states = np.asarray(self.run_encoder(self.params, audio, lengths))
        return (states[i, : clip.frames] for i, clip in enumerate(clips))

    def _count(self, frames: int) -> int:
        return max(1, self.batch_frames // frames)

    def _batches(self, frames: Sequence[int]) -> Iterator[list[int]]:
        """Yields indices of clips with similar lengths, about `batch_frames` frames in total."""
        by_length: dict[int, list[int]] = {}
        for i, count in enumerate(frames):
            by_length.setdefault(_padded(count), []).append(i)
        for size, members in sorted(by_length.items()):
            count = self._count(size)
            for start in range(0, len(members), count):
                yield members[start : start + count]

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self.told < _SAY_SECONDS and self.done < self.total:
            return
        self.told = now
        rate = self.done / max(now - self.started, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        self.say(
            f"{self.done:,} of {self.total:,} frames ({100 * self.done / self.total:.0f} %), "
            f"{rate:,.0f} frames/s, {left:.0f} s left"
        )


def _padded(frames: int) -> int:
    """Rounds a length up to one of a few values to limit the number of compiled programs."""
    return next((n for n in _LENGTHS if n >= frames), -(-frames // 500) * 500)
