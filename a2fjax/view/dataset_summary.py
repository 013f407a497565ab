"""Summaries of datasets as lines of text."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets, rig
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.data.feature_cache import inventory
from a2fjax.errors import InputError
from a2fjax.view.text import WIDTH, beside, short, table

MOST_RECORDS = 200
"""Maximum number of records read for statistics that are missing in the manifest."""

_REGIONS = ("jaw", "mouth", "cheeks_nose", "brows", "eyes", "tongue")
_ROWS = 8


@dataclasses.dataclass(frozen=True)
class DatasetSummary:
    """Summary of a dataset's content.

    Attributes:
      folder: folder of the shards.
      manifest: manifest of the shards.
      clips: index entries of all clips.
      records_read: number of records read.
      unreadable: name and reason of each record that could not be read, of those tried.
      problems: other files that could not be read, with the reason.
      languages: frames by language; "" is unknown.
      channel_share: [72] share of the read clips that observe each channel; None if every clip has
        the dataset's mask.
      quality: content of the build's quality.json; {} if there is none.
    """

    folder: Path
    manifest: records.Manifest
    clips: list[dict[str, Any]]
    records_read: int
    unreadable: list[str]
    problems: list[str]
    languages: Counter[str]
    channel_share: np.ndarray | None
    quality: dict[str, Any]

    @property
    def mask(self) -> np.ndarray:
        """Channels observed in at least one clip [72] bool."""
        return np.asarray(self.manifest.channel_mask, bool)

    def seconds(self, split: str | None = None) -> float:
        """Returns the length of a split in seconds; of all clips by default."""
        return sum(c["frames"] for c in self.clips if split in (None, c["split"])) / rig.FPS


def read(folder: str | Path) -> DatasetSummary:
    """Reads the manifest and at most `MOST_RECORDS` records spread over the dataset.

    Raises:
      InputError: the dataset is damaged or uses another rig, or none of its records can be read.
    """
    folder = Path(folder)
    manifest = records.read_manifest(folder)
    clips = [clip for shard in manifest.shards for clip in shard.clips]
    unreadable: list[str] = []
    sample = list(_sample(folder, clips, unreadable))
    if unreadable and not sample:
        raise InputError(
            f"{folder}: none of the {len(unreadable)} records that were tried can be read; first: "
            f"{unreadable[0]}; build it again with data_pipeline.build"
        )
    languages: Counter[str] = Counter()
    if all("language" in clip for clip in clips):
        for clip in clips:
            languages[clip["language"]] += clip["frames"]
    else:
        # Manifests of earlier versions have no languages, so extrapolate from the sample.
        for each in sample:
            languages[each.language] += each.frames
        seen, every = sum(languages.values()), sum(c["frames"] for c in clips)
        languages = Counter({k: round(n * every / seen) for k, n in languages.items()})
    share = None
    if sample:
        observed = np.stack([each.channel_mask for each in sample])
        if not (observed == np.asarray(manifest.channel_mask, bool)).all():
            share = observed.mean(0)
    quality, problems = _quality(folder)
    return DatasetSummary(
        *(folder, manifest, clips, len(sample), unreadable, problems, languages, share, quality)
    )


def _sample(
    folder: Path, clips: list[dict[str, Any]], unreadable: list[str]
) -> Iterator[records.Clip]:
    """Yields readable clips, evenly over each split; appends the others to `unreadable`."""
    for split in sorted({clip["split"] for clip in clips}):
        source = ClipSource([folder], split, cache_bytes=0)
        part = -(-MOST_RECORDS * len(source) // len(clips))
        for index in source.spread(part):
            try:
                yield source.load(int(index))
            except records.BadRecord as error:
                unreadable.append(f"{source.entries[int(index)].name}: {error}")


def _quality(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns the content of quality.json, {} if there is none, and why it cannot be read."""
    path = folder / "quality.json"
    try:
        if not path.exists():
            return {}, []
        report = budgets.load_json(path)
    except InputError as error:
        return {}, [str(error)]
    return (report, []) if isinstance(report, dict) else ({}, [f"{path}: is not a quality report"])


def summary_lines(folder: str | Path) -> list[str]:
    """Returns the summary of a dataset as lines of text.

    Raises:
      InputError: as for `read`.
    """
    dataset = read(folder)
    out = [*_head(dataset), *_problems(dataset), ""]
    by_language = _counted(dataset, lambda c: c.get("language", ""), "language")
    if not all("language" in clip for clip in dataset.clips):
        by_language = _languages(dataset)
    out += beside(
        [
            _counted(dataset, lambda c: c["split"], "split", order=records.SPLITS),
            _counted(dataset, lambda c: c["emotion"], "emotion"),
            by_language,
        ]
    )
    out += beside([_subjects(dataset), _moving(dataset)])
    out += [*_channels(dataset), ""]
    out += _provenance(dataset)
    out += _caches(dataset)
    return out


def _head(dataset: DatasetSummary) -> list[str]:
    manifest, folder = dataset.manifest, dataset.folder
    size = sum((folder / shard.file).stat().st_size for shard in manifest.shards)
    held_out = sum(s.held_out for s in manifest.subjects)
    meshes = sum(s.mesh is not None for s in manifest.subjects)
    kind = "synthetic" if manifest.synthetic else "recorded"
    level = manifest.statistics.get("speech_level_db")
    return [
        f"shards {folder}: {kind}, schema {manifest.schema}, rig {manifest.rig}",
        f"  {len(dataset.clips)} clips, {dataset.seconds() / 3600:.2f} hours, "
        f"{count(len(manifest.subjects), 'subject')} ({held_out} held out, {meshes} with a mesh), "
        f"{count(len({c['sentence'] for c in dataset.clips}), 'sentence')}, "
        f"{count(len(manifest.shards), 'file')}, {size / 1e6:.1f} MB"
        + (f", speech at {level:.0f} dB" if level is not None else ""),
    ]


def _problems(dataset: DatasetSummary) -> list[str]:
    out = [line for problem in dataset.problems for line in wrapped(problem)]
    if dataset.unreadable:
        number = len(dataset.unreadable)
        tried = number + dataset.records_read
        out += wrapped(
            f"{number} of {tried} records tried cannot be read; first: {dataset.unreadable[0]}"
        )
    return out


def count(number: int, what: str) -> str:
    """Returns a number with its noun, such as "2 sets"."""
    return f"{number} {what}" + ("" if number == 1 else "s")


def _counted(
    dataset: DatasetSummary,
    key: Callable[[dict[str, Any]], Any],
    title: str,
    order: Sequence[str] = (),
) -> list[str]:
    clips: Counter[str] = Counter()
    frames: Counter[str] = Counter()
    for clip in dataset.clips:
        name = str(key(clip)) or "unknown"
        clips[name] += 1
        frames[name] += clip["frames"]
    names = sorted(frames, key=lambda n: (order.index(n) if n in order else 0, -frames[n], n))
    rows = [(short(n, 28), clips[n], _hours(frames[n])) for n in names]
    out = table(rows[:_ROWS], (title, "clips", "hours"))
    if len(rows) > _ROWS:
        out.append(
            f"  and {len(rows) - _ROWS} more, {_hours(sum(frames[n] for n in names[_ROWS:]))} h"
        )
    return out


def _hours(frames: float) -> str:
    return f"{frames / rig.FPS / 3600:.3f}"


def _languages(dataset: DatasetSummary) -> list[str]:
    ordered = sorted(dataset.languages.items(), key=lambda item: -item[1])[:_ROWS]
    exact = dataset.records_read == len(dataset.clips)
    rows = [(name or "unknown", _hours(frames)) for name, frames in ordered]
    return table(
        rows, ("language", "hours" if exact else f"hours (of {dataset.records_read} clips)")
    )


def _subjects(dataset: DatasetSummary) -> list[str]:
    held_out = {s.id for s in dataset.manifest.subjects if s.held_out}
    return _counted(
        dataset,
        lambda c: c["subject"] + (" (held out)" if c["subject"] in held_out else ""),
        "subject",
    )


def _moving(dataset: DatasetSummary) -> list[str]:
    statistics, mask = dataset.manifest.statistics, dataset.mask
    mean, std = (np.asarray(statistics.get(f"motion_{k}", []), float) for k in ("mean", "std"))
    if not len(mean) == len(std) == rig.NUM_CHANNELS:
        return []
    order = [i for i in np.argsort(-std / rig.SCALE, kind="stable") if mask[i]]
    rows = [(rig.CHANNELS[i], f"{mean[i]:.3f}", f"{std[i]:.3f}") for i in order[:_ROWS]]
    out = table(rows, ("most moving channels", "mean", "std"))
    still = sum(1 for i in order if std[i] / rig.SCALE[i] < 1e-3)
    if still:
        out.append(f"  {still} observed channels hardly move")
    return out


def _channels(dataset: DatasetSummary) -> list[str]:
    mask, share = dataset.mask, dataset.channel_share
    parts = [f"{r} {mask[rig.GROUPS[r]].sum()}/{len(rig.GROUPS[r])}" for r in _REGIONS]
    out = [f"  observed channels: {mask.sum()} of {rig.NUM_CHANNELS} ({', '.join(parts)})"]
    missing = [name for name, seen in zip(rig.CHANNELS, mask, strict=True) if not seen]
    if missing:
        out += wrapped(f"never observed: {', '.join(grouped(missing))}")
    if share is not None:
        # List channels observed in the same share of clips together.
        groups: dict[float, list[str]] = {}
        for name, seen, part in zip(rig.CHANNELS, mask, share, strict=True):
            if seen and part < 1:
                groups.setdefault(round(float(part), 3), []).append(name)
        for part, names in sorted(groups.items()):
            text = f"in {part:.0%} of clips: {', '.join(grouped(names))}"
            out += wrapped(text)
        if dataset.records_read < len(dataset.clips):
            out.append(f"    (of {dataset.records_read} clips that were read)")
    return out


def grouped(names: list[str]) -> list[str]:
    """Returns channel names with complete regions as one name: "all brows (5)"."""
    left, out = list(names), []
    for region in _REGIONS:
        members = [rig.CHANNELS[i] for i in rig.GROUPS[region]]
        if set(members) <= set(left):
            out.append(f"all {region.replace('_', ' and ')} ({len(members)})")
            left = [name for name in left if name not in members]
    return out + left


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Returns a text as indented lines."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


def _provenance(dataset: DatasetSummary) -> list[str]:
    source = dataset.manifest.source
    out = []
    if source.get("input") or source.get("layout"):
        rates = _rates(dataset)
        out += wrapped(
            f"built from {source.get('input', 'unknown')}, layout {source.get('layout', 'unknown')}"
            + (f", {rates}" if rates else "")
        )
    offsets = source.get("offsets") or {}
    by_method: dict[str, list[dict[str, Any]]] = {}
    for each in offsets.values() if isinstance(offsets, dict) else ():
        if isinstance(each, dict) and "method" in each:
            by_method.setdefault(str(each["method"]), []).append(each)
    for method, some in sorted(by_method.items(), key=lambda item: -len(item[1])):
        out.append(f"  clock offset: {_offset(method, some)}")
    residual = source.get("residual_mm")
    if residual:
        out.append(f"  solve: residual {residual:.3f} mm on average")
    for key, what in (("rejected", "could not be used"), ("quarantined", "quarantined")):
        out += _reasons(source.get(key) or [], what)
    notes = source.get("warnings") or []
    if notes:
        out += wrapped(f"{count(len(notes), 'warning')}, first: {notes[0]}")
    page = dataset.folder / "quality.html"
    if page.is_file():
        out.append(f"  quality report: {page}")
    return out


def _caches(dataset: DatasetSummary) -> list[str]:
    """Returns a table of the feature caches, empty if there are none."""
    rows = []
    for cache in inventory.caches(dataset.folder, dataset.manifest):
        kind, layers = (str(cache.encoder.get(k, "?")) for k in ("kind", "layers"))
        shape = f"{cache.spec.states} x {cache.spec.width}" if cache.spec else "?"
        size = f"{cache.size / 1e6:.1f} MB"
        rows.append((cache.folder.name, kind, layers, shape, size, cache.state))
    if not rows:
        return []
    header = ("cached states", "encoder", "layers", "states", "size", "state")
    return ["", *table(rows, header)]


def _rates(dataset: DatasetSummary) -> str:
    """Returns the frame rates of the captures, from the quality report or the settings."""
    rates: Counter[str] = Counter()
    for take in dataset.quality.get("takes") or ():
        motion = take.get("motion") if isinstance(take, dict) else None
        rate = motion.get("fps") if isinstance(motion, dict) else None
        if isinstance(rate, (int, float)) and rate > 0:
            rates[f"{rate:.5g}"] += 1
    if rates:
        some = [
            f"{r} fps ({n} takes)" if len(rates) > 1 else f"{r} fps"
            for r, n in rates.most_common(4)
        ]
        return ", ".join(some) + (f" and {len(rates) - 4} other rates" if len(rates) > 4 else "")
    fps = (dataset.manifest.source.get("settings") or {}).get("fps") or 0
    return f"{fps:g} fps" if fps else ""


def _offset(method: str, some: list[dict[str, Any]]) -> str:
    seconds = [float(o.get("seconds") or 0.0) for o in some]
    confidence = [float(o["confidence"]) for o in some if o.get("confidence") is not None]
    low, high = 1000 * min(seconds), 1000 * max(seconds)
    span = f"{low:+.1f} ms" if len(some) == 1 else f"{low:+.1f} to {high:+.1f} ms"
    text = f"{method} for {count(len(some), 'subject')}, {span}"
    if confidence and method not in ("none", "given"):
        text += f", confidence {np.median(confidence):.2f} (least {min(confidence):.2f})"
    drift = [abs(float(o.get("drift") or 0.0)) for o in some]
    if max(drift) > 0:
        text += f", drift up to {1e6 * max(drift):.0f} ppm"
    return text


def _reasons(some: list[Any], what: str) -> list[str]:
    if not some:
        return []
    out = [f"  {count(len(some), 'take')} {what}:"]
    for each in some[:3]:
        if isinstance(each, dict):
            text = f"{each.get('take', '?')}: {each.get('reason', '')}"
        else:
            text = ": ".join(map(str, each)) if isinstance(each, (list, tuple)) else str(each)
        out += wrapped(text, "    ")
    if len(some) > 3:
        out.append(f"    and {len(some) - 3} more")
    return out
