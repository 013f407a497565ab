"""Writes caches of encoders' states beside shards: whole, in parts on many machines, or the rest.

A shard's file is the unit of work: it appears whole or not at all, so a build that was killed goes
on with the files that are missing. Parts share nothing but the folder; the manifest, written when
every file is there, makes the cache one that training reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from a2fjax import files
from a2fjax.audio import encoders
from a2fjax.data import batch as batch_lib
from a2fjax.data import encoded, records
from a2fjax.data.source import ClipSource
from a2fjax.errors import InputError, WorkFailed

BATCH_FRAMES = 4000
"""Frames that are encoded at once, about."""

_LENGTHS = (100, 200, 300, 400, 500, 600, 800, 1000)
"""Frames that clips are padded to; longer ones to multiples of 500."""


def stream(encoder: encoders.Encoder, params: encoders.Params) -> encoded.Stream:
    """Returns what a cache of an encoder holds."""
    return encoded.Stream(encoder.fingerprint(params), encoder.states, encoder.width)


def write(
    shards: str | Path,
    encoder: encoders.Encoder,
    params: encoders.Params,
    *,
    part: tuple[int, int] | None = None,
    finish: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Writes the cache of an encoder, or goes on with one.

    Args:
      shards: folder of the set.
      encoder: frozen.
      params: its parameters.
      part: (I, N) writes every N-th file from the I-th on, and no manifest.
      finish: only writes the manifest.
      say: is told how it goes.

    Returns:
      The cache's folder.

    Raises:
      InputError: no such set, a part that there is not, or with `finish` a file that is missing.
      WorkFailed: a clip cannot be read, a state is beyond 16 bits, or the disk is full.
    """
    manifest = records.read_manifest(shards)
    what = stream(encoder, params)
    folder = what.folder(shards)
    files.make_folder(folder)
    if part is not None and not 1 <= part[0] <= part[1]:
        raise InputError(f"--part {part[0]}/{part[1]}: expected I/N with I from 1 to N")
    names = [shard.file for shard in manifest.shards]
    chosen = names if part is None else names[part[0] - 1 :: part[1]]
    missing = [] if finish else [name for name in chosen if not (folder / name).is_file()]
    if missing:
        _Work(Path(shards), manifest, encoder, params, folder, say).run(missing)
    if part is not None:
        return folder
    left = [name for name in names if not (folder / name).is_file()]
    if left:
        raise InputError(
            f"{folder}: {left[0]} is missing ({len(left)} of {len(names)} files); run the part "
            "that writes it, or the command without --finish"
        )
    encoded.write_manifest(shards, what, encoder.describe(), manifest)
    return folder


class _Work:
    """Encodes the clips of some shards; lives for one call of `write`."""

    def __init__(
        self,
        shards: Path,
        manifest: records.Manifest,
        encoder: encoders.Encoder,
        params: encoders.Params,
        folder: Path,
        say: Callable[[str], None],
    ) -> None:
        self.shards, self.manifest, self.encoder = shards, manifest, encoder
        self.params = jax.device_put(params)
        self.folder, self.say = folder, say
        self.run_encoder = encoders.jitted(encoder)
        self.started = self.told = time.monotonic()
        self.done = 0

    def run(self, names: Sequence[str]) -> None:
        clips = {s.file: s.clips for s in self.manifest.shards}
        total = sum(c["frames"] for name in names for c in clips[name])
        splits = sorted({c["split"] for name in names for c in clips[name]})
        sources = {split: ClipSource([self.shards], split, on_bad="raise") for split in splits}
        places = {
            (Path(entry.file).name, entry.record): (source, i)
            for source in sources.values()
            for i, entry in enumerate(source.entries)
        }
        for name in names:
            wanted = [places[name, i] for i in range(len(clips[name]))]
            self._file(name, wanted, total)

    def _file(self, name: str, wanted: list[tuple[ClipSource, int]], total: int) -> None:
        from array_record.python.array_record_module import ArrayRecordWriter

        found: dict[int, bytes] = {}
        for members in _batches([source.entries[i].frames for source, i in wanted]):
            clips = [self._clip(*wanted[k]) for k in members]
            states = self._encode(clips)
            for k, clip, values in zip(members, clips, states, strict=True):
                try:
                    found[k] = encoded.encode(clip.id, values)
                except ValueError as error:
                    raise WorkFailed(f"{self.folder / name}: {error}") from None
            self.done += sum(clip.frames for clip in clips)
            self._tell(total)
        with files.whole(self.folder / name) as temporary:
            writer = ArrayRecordWriter(str(temporary), "group_size:1")
            for k in range(len(wanted)):
                writer.write(found[k])
            writer.close()

    def _clip(self, source: ClipSource, index: int) -> records.Clip:
        try:
            return source.load(index)
        except records.BadRecord as error:
            raise WorkFailed(f"{source.entries[index].name}: {error}") from None

    def _encode(self, clips: list[records.Clip]) -> Iterator[np.ndarray]:
        size = _padded(max(clip.frames for clip in clips))
        count = max(1, BATCH_FRAMES // size)
        rows = [batch_lib.padded_audio(clip, size) for clip in clips]
        rows += [rows[-1]] * (count - len(rows))
        audio = np.stack([row[0] for row in rows])
        lengths = np.array([row[1] for row in rows], np.int32)
        states = np.asarray(self.run_encoder(self.params, audio, lengths))
        return (states[i, : clip.frames] for i, clip in enumerate(clips))

    def _tell(self, total: int) -> None:
        now = time.monotonic()
        if now - self.told < 10 and self.done < total:
            return
        self.told = now
        rate = self.done / max(now - self.started, 1e-9)
        left = (total - self.done) / max(rate, 1e-9)
        self.say(
            f"{self.done:,} of {total:,} frames ({100 * self.done / total:.0f} %), "
            f"{rate:,.0f} frames/s, {left:.0f} s left"
        )


def _padded(frames: int) -> int:
    """Returns one of few lengths, so that few programs are compiled."""
    return next((n for n in _LENGTHS if n >= frames), -(-frames // 500) * 500)


def _batches(frames: Sequence[int]) -> Iterator[list[int]]:
    """Yields indices of clips of like length, of about `BATCH_FRAMES` together."""
    by_length: dict[int, list[int]] = {}
    for i, count in enumerate(frames):
        by_length.setdefault(_padded(count), []).append(i)
    for size, members in sorted(by_length.items()):
        count = max(1, BATCH_FRAMES // size)
        for start in range(0, len(members), count):
            yield members[start : start + count]
