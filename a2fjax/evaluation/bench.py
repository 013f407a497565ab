"""Lays reports of several labs beside each other, if they did the same work.

A report's "bench" says what was measured, so that nobody has to share data to check it:

    takes       {split: {clip: hash}} of sound, speech level, true motion and valid frames
    masks       {split: {clip: hash}} of the measured channels
    thresholds  {split: {person: aperture}} of closures, which a person's other clips have a part in
    metrics     {figure: version}
    reference   hash of the constant mean that ratios refer to

Clips are the same by their hash, whatever they are called. Reports without a bench (schema 1) are
compared by the names of clips and the fingerprints of their shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.evaluation import paired, report
from a2fjax.evaluation.eval_clips import EvalClip
from a2fjax.evaluation.layout import align, count, count_people, show
from a2fjax.metrics import sync

SCHEMA = 1
KEYS = ("takes", "masks", "thresholds")
"""What is known of each split."""

RATIO = "rmse_ratio"


def take_hash(clip: records.Clip) -> str:
    """Returns 16 hex digits of a clip's sound, level, true motion and valid frames."""
    text = records.sound(clip).encode()
    arrays = (np.asarray(clip.motion, "<f4"), np.asarray(clip.frame_mask, np.uint8))
    return _digest(text, *(array.tobytes() for array in arrays))


def mask_hash(mask: np.ndarray) -> str:
    """Returns 16 hex digits of a mask [72] of channels."""
    return _digest(",".join(rig.CHANNELS[c] for c in np.flatnonzero(mask)).encode())


def mean_hash(mean: np.ndarray) -> str:
    """Returns 16 hex digits of a mean pose [72] to five digits, -0 being 0."""
    return _digest((np.round(np.asarray(mean, np.float64), 5) + 0.0).astype("<f8").tobytes())


def facts(samples: Iterable[EvalClip]) -> dict[str, Any]:
    """Returns "takes", "masks" and "thresholds" of some clips."""
    out: dict[str, Any] = {"takes": {}, "masks": {}, "thresholds": {}}
    for sample in samples:
        out["takes"][sample.clip.id] = take_hash(sample.clip)
        out["masks"][sample.clip.id] = mask_hash(sample.clip.channel_mask)
        known = np.isfinite(sample.truth.threshold)
        out["thresholds"][sample.subject] = round(sample.truth.threshold, 5) if known else None
    return out


def compare(
    reports: Sequence[dict[str, Any]], names: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """Lays reports beside each other.

    Args:
      reports: at least two reports, as `report.read` returns them.
      names: a different name for each.
      seed: seed of the bootstrap.

    Returns:
      {"schema", "names", "notes", "splits": {split: {"clips", "people", "rows": {name: {metric:
      value}}, "interval": {name: {metric: [low, high]}}, "tests": {name: as in `paired.compare`, of
      the report against the first}}}}.

    Raises:
      InputError: fewer than two reports, or reports of different work; names the difference.
    """
    if len(reports) < 2:
        raise InputError("compare: expected at least two reports")
    first = reports[0]
    splits = [s for s in first["splits"] if all(s in r["splits"] for r in reports)]
    if not splits:
        raise InputError(f"{names[0]} and {names[1]}: the reports have no split in common")
    for other, name in zip(reports[1:], names[1:], strict=True):
        if first["rig"] != other["rig"]:
            raise InputError(f"not the same work: {names[0]} and {name} have other rigs")
        _check_versions(first, other, names[0], name)
        for split in splits:
            _check_split(first, other, split, names[0], name)
    left_out, notes = _not_comparable(reports)
    out: dict[str, Any] = {"schema": SCHEMA, "names": list(names), "notes": notes, "splits": {}}
    for split in splits:
        parts = [_without(r["splits"][split], left_out) for r in reports]
        tests = {
            name: paired.compare_split([parts[0]], [part], split, seed=seed)
            for name, part in zip(names[1:], parts[1:], strict=True)
        }
        paired.adjust(list(tests.values()))
        out["splits"][split] = {
            "clips": parts[0]["clips"],
            "people": parts[0]["subjects"],
            "rows": {n: part["model"] for n, part in zip(names, parts, strict=True)},
            "interval": {n: part["interval"] for n, part in zip(names, parts, strict=True)},
            "tests": tests,
        }
    return out


def table(result: dict[str, Any]) -> str:
    """Formats the result of `compare` as aligned text."""
    columns = report.columns()
    lines = [*result["notes"], paired.LEGEND] if result["notes"] else [paired.LEGEND]
    for split, part in result["splits"].items():
        title = f"{split}: {count(part['clips'], 'clip')}, {count_people(part['people'])}"
        rows = []
        for name, figures in part["rows"].items():
            rows.append([name, *(show(figures.get(c.value), c.form) for c in columns)])
            for side, label in enumerate(("  95% low", "  95% high")):
                limits = {k: v[side] if v else None for k, v in part["interval"][name].items()}
                rows.append([label, *(show(limits.get(c.value), c.form) for c in columns)])
        lines += ["", title, *align(["", *(c.label for c in columns)], rows)]
        for name, tests in part["tests"].items():
            lines += ["", f"{paired.title(split, tests)}: {result['names'][0]}, then {name}"]
            lines += align(*paired.rows(tests))
    return "\n".join(lines)


def _check_versions(first: dict[str, Any], other: dict[str, Any], a: str, b: str) -> None:
    own, theirs = (r.get("bench", {}).get("metrics", {}) for r in (first, other))
    for metric in own.keys() & theirs.keys():
        if own[metric] != theirs[metric]:
            raise InputError(
                f"not the same work: {metric} is version {own[metric]} in {a}, "
                f"{theirs[metric]} in {b}"
            )


def _check_split(first: dict[str, Any], other: dict[str, Any], split: str, a: str, b: str) -> None:
    where = f"not the same work: split {split}"
    if "bench" not in first or "bench" not in other:
        own, theirs = (
            {clip["id"]: "" for clip in r["splits"][split]["by_clip"]} for r in (first, other)
        )
        _check_takes(own, theirs, where, a, b)
        prints = [[d["fingerprint"] for d in r["data"]] for r in (first, other)]
        if prints[0] != prints[1]:
            raise InputError(f"{where}: {a} and {b} are of other shards, and one names no takes")
        return
    parts: list[dict[str, Any]] = [{k: r["bench"][k][split] for k in KEYS} for r in (first, other)]
    mine, their = parts
    _check_takes(mine["takes"], their["takes"], where, a, b)
    by_take = {take: their["masks"][clip] for clip, take in their["takes"].items()}
    for clip, take in mine["takes"].items():
        if mine["masks"][clip] != by_take[take]:
            lists = [set(r["splits"][split]["by_channel"]) for r in (first, other)]
            differ = [c for c in rig.CHANNELS if c in lists[0] ^ lists[1]]
            shown = ", ".join(differ[:8]) + (", ..." if len(differ) > 8 else "")
            which = f" ({count(len(differ), 'channel')}: {shown})" if differ else ""
            raise InputError(f"{where}: {a} and {b} measure other channels of clip {clip!r}{which}")
    _check_thresholds(mine["thresholds"], their["thresholds"], where, a, b)


def _check_takes(own: dict[str, str], theirs: dict[str, str], where: str, a: str, b: str) -> None:
    hashed = any(own.values()) and any(theirs.values())
    in_own, in_theirs = (set(part.values() if hashed else part) for part in (own, theirs))
    only_own = [clip for clip, take in own.items() if (take if hashed else clip) not in in_theirs]
    only_theirs = [
        clip for clip, take in theirs.items() if (take if hashed else clip) not in in_own
    ]
    for clips, name in ((only_own, a), (only_theirs, b)):
        if clips:
            changed = clips[0] in own and clips[0] in theirs
            fact = "differs in sound or motion" if changed else f"is in {name} only"
            raise InputError(
                f"{where}: clip {clips[0]!r} {fact} ({len(only_own)} clips in {a} only, "
                f"{len(only_theirs)} in {b} only)"
            )


def _check_thresholds(
    own: dict[str, float | None], theirs: dict[str, float | None], where: str, a: str, b: str
) -> None:
    # People may have other names: the shards of several folders number them.
    for person in own.keys() & theirs.keys():
        if own[person] != theirs[person]:
            raise InputError(
                f"{where}: the closure threshold of {person} is {own[person]} in {a}, "
                f"{theirs[person]} in {b}: the shards hold other clips of this person"
            )


def _not_comparable(reports: Sequence[dict[str, Any]]) -> tuple[set[str], list[str]]:
    """Returns the figures that have another meaning in each report, and a line for each reason."""
    left_out, notes = set(), []
    references = {
        r.get("bench", {}).get("reference") or str(r.get("training_statistics")) for r in reports
    }
    if len(references) > 1:
        left_out.add(RATIO)
        notes.append(f"{RATIO} left out: the reports refer to different constant means")
    judges = {judge["weights"] for judge in (r.get("judge") for r in reports) if judge}
    if len(judges) > 1:
        left_out |= {column.value for column in sync.columns}
        notes.append(f"figures of the judge left out: {len(judges)} different judges")
    return left_out, notes


def _without(part: dict[str, Any], names: set[str]) -> dict[str, Any]:
    def keep(figures: dict[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in figures.items() if k not in names}

    people = {
        person: {**entry, "metrics": keep(entry["metrics"])}
        for person, entry in part["by_subject"].items()
    }
    return {
        **part,
        "model": keep(part["model"]),
        "interval": keep(part["interval"]),
        "by_subject": people,
    }


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
