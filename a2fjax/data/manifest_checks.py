"""Checks the values of a dataset's manifest, so that a wrong one cannot train a wrong model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from a2fjax import rig

_TEXTS = ("id", "subject", "sentence", "split", "emotion")
_OPTIONAL_TEXTS = ("language", "sound")


def check(values: Mapping[str, Any], splits: Collection[str]) -> None:
    """Checks types, lengths and ranges of a manifest's JSON.

    Args:
      values: content of manifest.json.
      splits: valid names of splits.

    Raises:
      KeyError: a key is missing.
      ValueError: a value is not valid; the message names its key and what was expected.
    """
    _expect(_list(values["channel_mask"], bool, rig.NUM_CHANNELS), "channel_mask", "72 booleans")
    _expect(isinstance(values["synthetic"], bool), "synthetic", "true or false")
    _expect(isinstance(values["source"], dict), "source", "an object")
    _check_statistics(values["statistics"])
    _expect(_list(values["subjects"], dict), "subjects", "a list of objects")
    for number, subject in enumerate(values["subjects"]):
        where = f"subjects[{number}]"
        _expect(isinstance(subject["id"], str), f"{where}.id", "text")
        _expect(isinstance(subject["mesh"], str | None), f"{where}.mesh", "text or null")
        _expect(isinstance(subject["held_out"], bool), f"{where}.held_out", "true or false")
    _check_unique([subject["id"] for subject in values["subjects"]], "subjects: id")
    _expect(_list(values["shards"], dict), "shards", "a list of objects")
    for number, shard in enumerate(values["shards"]):
        where = f"shards[{number}]"
        _expect(isinstance(shard["file"], str), f"{where}.file", "text")
        _expect(_list(shard["clips"], dict), f"{where}.clips", "a list of objects")
        for index, clip in enumerate(shard["clips"]):
            _check_clip(clip, f"{where}.clips[{index}]", splits)
    _check_unique([shard["file"] for shard in values["shards"]], "shards: file")
    _check_unique([c["id"] for shard in values["shards"] for c in shard["clips"]], "clips: id")


def _check_clip(clip: Mapping[str, Any], where: str, splits: Collection[str]) -> None:
    for name in _TEXTS:
        _expect(isinstance(clip[name], str), f"{where}.{name}", "text")
    for name in _OPTIONAL_TEXTS:
        _expect(isinstance(clip.get(name, ""), str), f"{where}.{name}", "text")
    _expect(clip["split"] in splits, f"{where}.split", f"one of {', '.join(splits)}")
    known = f"one of {', '.join(rig.EMOTIONS)}"
    _expect(clip["emotion"] in rig.EMOTIONS, f"{where}.emotion", known)
    frames = clip["frames"]
    whole = isinstance(frames, int) and not isinstance(frames, bool) and 0 < frames < 1 << 31
    _expect(whole, f"{where}.frames", "a whole number above 0")


def _check_statistics(values: Any) -> None:
    _expect(isinstance(values, dict), "statistics", "an object")
    for name in {"motion_mean", "motion_std"} & set(values):
        _check_pose(values[name], f"statistics.{name}")
    if "motion_std" in values:
        least = min(values["motion_std"])
        _expect(least >= 0, "statistics.motion_std", f"no negative deviation, found {least:g}")
    means = values.get("emotion_mean", {})
    known = isinstance(means, dict) and set(means) <= set(rig.EMOTIONS)
    _expect(known, "statistics.emotion_mean", f"keys among {', '.join(rig.EMOTIONS)}")
    for name, pose in means.items():
        _check_pose(pose, f"statistics.emotion_mean.{name}")
    hours = values.get("hours", {})
    amounts = isinstance(hours, dict) and all(_is_number(h) and h >= 0 for h in hours.values())
    _expect(amounts, "statistics.hours", "a number of at least 0 for each split")
    level = values.get("speech_level_db", 0.0)
    _expect(_is_number(level), "statistics.speech_level_db", "a number")


def _check_pose(values: Any, where: str) -> None:
    pose = isinstance(values, list) and len(values) == rig.NUM_CHANNELS
    count = f", found {len(values)}" if isinstance(values, list) and not pose else ""
    good = pose and all(map(_is_number, values))
    _expect(good, where, f"{rig.NUM_CHANNELS} finite numbers{count}")


def _check_unique(names: Sequence[str], what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise ValueError(f"{what} {twice!r} occurs twice")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _list(value: Any, kind: type, length: int | None = None) -> bool:
    right = isinstance(value, list) and all(isinstance(item, kind) for item in value)
    return right and length in (None, len(value))


def _expect(condition: bool, where: str, what: str) -> None:
    if not condition:
        raise ValueError(f"{where}: expected {what}")
