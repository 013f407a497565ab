"""Writes clips as shards with statistics, meshes and a manifest.

Readers see either a complete dataset or none: files are written under temporary names, the old
manifest is removed before the first file is replaced, and the new one is written after the last.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import SAMPLE_RATE
from a2fjax.data import records
from a2fjax.errors import InputError, WorkFailed

BYTES_PER_FILE = 64_000_000


@dataclasses.dataclass
class Statistics:
    """Running sums over training frames."""

    count: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(72))
    total: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(72))
    square: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(72))
    emotion_count: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((5, 72)))
    emotion_total: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((5, 72)))
    hours: dict[str, float] = dataclasses.field(
        default_factory=lambda: dict.fromkeys(records.SPLITS, 0.0)
    )
    level_db: list[float] = dataclasses.field(default_factory=list)

    def add(self, clip: records.Clip) -> None:
        """Adds a clip; motion counts for the training split only."""
        self.hours[clip.split] += len(clip.audio) / SAMPLE_RATE / 3600.0
        self.level_db.append(20.0 * float(np.log10(max(clip.speech_level, 1e-9))))
        if clip.split != "train":
            return
        motion = clip.motion[clip.frame_mask].astype(np.float64)
        observed = clip.channel_mask.astype(np.float64)
        self.count += len(motion) * observed
        self.total += motion.sum(axis=0) * observed
        self.square += (motion**2).sum(axis=0) * observed
        emotion = clip.emotion[clip.frame_mask].astype(np.float64)
        self.emotion_count += emotion.sum(axis=0)[:, None] * observed
        self.emotion_total += (emotion.T @ motion) * observed

    def result(self) -> dict[str, Any]:
        """Returns the manifest's "statistics"; an emotion without frames has the overall mean."""
        mean = self.total / np.maximum(self.count, 1.0)
        variance = np.maximum(self.square / np.maximum(self.count, 1.0) - mean**2, 0.0)
        has_frames = self.emotion_count > 1e-6
        each = np.where(
            has_frames, self.emotion_total / np.where(has_frames, self.emotion_count, 1.0), mean
        )
        return {
            "motion_mean": _numbers(mean),
            "motion_std": _numbers(np.sqrt(variance)),
            "emotion_mean": {e: _numbers(m) for e, m in zip(rig.EMOTIONS, each, strict=True)},
            "hours": {k: round(v, 6) for k, v in self.hours.items()},
            "speech_level_db": round(float(np.mean(self.level_db or [0.0])), 3),
        }


def _numbers(values: np.ndarray) -> list[float]:
    return [float(f"{v:.7g}") for v in values]


def write_shards(
    out: Path,
    clips: Callable[[], Iterator[records.Clip]],
    count: int,
    size: int,
    *,
    files: int,
    subjects: list[records.Subject],
    meshes: dict[str, tuple[np.ndarray, np.ndarray]],
    source: Callable[[dict[str, Any]], dict[str, Any]],
    before_manifest: Callable[[records.Manifest], None] = lambda manifest: None,
) -> records.Manifest:
    """Writes the shards, the neutral meshes and the manifest of a dataset.

    Args:
      out: folder of the dataset.
      clips: yields the clips in their final order, with their splits and masks.
      count: number of clips.
      size: approximate bytes of all records.
      files: number of shards; 0 for one per `BYTES_PER_FILE`.
      subjects: the manifest's "subjects".
      meshes: (vertices, faces) by subject.
      source: returns the manifest's "source" from its statistics.
      before_manifest: writes files that must exist before the manifest does.

    Raises:
      InputError: there are no clips, or two have the same name.
      WorkFailed: there are not `count` clips, or a file does not hold as many records as were
        written to it.
    """
    from array_record.python import array_record_module

    if not count:
        raise InputError("no take could be used: nothing to write")
    number = min(files or max(1, -(-size // BYTES_PER_FILE)), count)
    names = [f"clips-{i:05d}-of-{number:05d}.arrayrecord" for i in range(number)]
    bounds = [count * (i + 1) // number for i in range(number)]
    statistics, mask, synthetic = Statistics(), np.zeros(72, bool), False
    index: list[list[dict[str, Any]]] = [[] for _ in names]
    which, writer = 0, None
    ids: set[str] = set()
    try:
        for i, clip in enumerate(clips()):
            if i == count:
                raise WorkFailed(f"{out}: more than the {count} clips that takes were cut into")
            if clip.id in ids:
                raise InputError(f"{clip.id}: two clips have this name; rename one of the takes")
            ids.add(clip.id)
            while i >= bounds[which]:
                which += 1
            if not index[which]:
                if writer is not None:
                    writer.close()
                writer = array_record_module.ArrayRecordWriter(
                    str(out / f"{names[which]}.partial"), "group_size:1"
                )
            assert writer is not None  # each file's first clip opens it
            writer.write(records.encode(clip))
            statistics.add(clip)
            mask |= clip.channel_mask
            synthetic |= clip.synthetic
            index[which].append(records.index_entry(clip))
    finally:
        if writer is not None:
            writer.close()
    if len(ids) != count:
        raise WorkFailed(f"{out}: {len(ids)} of the {count} clips that takes were cut into")
    values = statistics.result()
    manifest = records.Manifest(
        subjects=subjects,
        shards=[records.Shard(n, c) for n, c in zip(names, index, strict=True)],
        channel_mask=mask.tolist(),
        statistics=values,
        synthetic=bool(synthetic),
        source=json.loads(json.dumps(source(values))),  # as read back from the file
    )
    for name, entries in zip(names, index, strict=True):
        reader = array_record_module.ArrayRecordReader(str(out / f"{name}.partial"))
        count_read = reader.num_records()
        reader.close()
        if count_read != len(entries):
            raise WorkFailed(
                f"{out / name}: holds {count_read} records, {len(entries)} were written"
            )
    (out / "manifest.json").unlink(missing_ok=True)
    for name, (vertices, faces) in meshes.items():
        records.write_mesh(out / "subjects" / f"{name}.npz", vertices, faces)
    for name in names:
        (out / f"{name}.partial").replace(out / name)
    for old in out.glob("clips-*.arrayrecord*"):
        if old.name not in names:
            old.unlink()
    for old in [*out.glob(".*.partial"), *out.glob("subjects/.*.partial")]:
        old.unlink()  # left by a killed build
    for old in (out / "subjects").glob("*.npz"):
        if old.stem not in meshes:
            old.unlink()
    before_manifest(manifest)
    records.write_manifest(out, manifest)
    return manifest
