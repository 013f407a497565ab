"""Reads takes from shards and joins their clips on one time axis."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError, nearest
from a2fjax.view.text import duration, table

_SEGMENT = re.compile(r"^(?P<take>.*)#(?P<number>\d+)$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Take:
    """A recorded performance with its audio and motion.

    Attributes:
      name: "<subject>/<take>".
      folder: folder of its shards.
      split, sentence, language: values of its clips.
      audio: [320 T] float32 in [-1, 1], 16 kHz.
      motion: [T, 72] in rig units.
      channel_mask: [72] bool.
      frame_mask: [T] bool, valid frames.
      emotion: [T, 5].
      residual: [T] mm, NaN where none is stored; None if no clip has one.
      cuts: times in seconds at which one clip ends and the next begins.
      extra: metadata of the first clip.
    """

    name: str
    folder: str
    split: str
    sentence: str
    language: str
    audio: np.ndarray
    motion: np.ndarray
    channel_mask: np.ndarray
    frame_mask: np.ndarray
    emotion: np.ndarray
    residual: np.ndarray | None
    cuts: tuple[float, ...]
    extra: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Duration of the take in seconds."""
        return len(self.motion) / rig.FPS

    @property
    def title(self) -> str:
        """Name, language, split, duration and clock offset in one line."""
        parts = [self.name, self.language or "unknown language", self.split, duration(self.seconds)]
        if self.sentence and self.sentence not in self.name:
            parts.append(f"sentence {self.sentence}")
        if "offset_s" in self.extra:
            text = f"clock offset {1000 * float(self.extra['offset_s']):+.1f} ms"
            method = self.extra.get("offset_method")
            if method:
                text += f" by {method} ({float(self.extra.get('offset_confidence', 0)):.2f})"
            parts.append(text)
        if "residual_mm" in self.extra:
            parts.append(f"residual {_mean_residual(self):.2f} mm")
        return " · ".join(parts)


def _mean_residual(take: Take) -> float:
    if take.residual is not None and np.isfinite(take.residual[take.frame_mask]).any():
        return float(np.nanmean(take.residual[take.frame_mask]))
    return float(take.extra["residual_mm"])


def find_take(folders: Sequence[str | Path], name: str) -> tuple[str, str]:
    """Finds a take by name and returns (folder, "<subject>/<take>").

    Args:
      folders: folders of shards.
      name: name of a take or of one of its clips, or a unique prefix of a take's name, with or
        without the subject.

    Raises:
      InputError: no such take, or several; the message names the nearest.
    """
    takes: dict[tuple[str, str], None] = {}
    for folder in map(str, folders):
        for shard in records.read_manifest(folder).shards:
            for clip in shard.clips:
                takes[folder, _split_id(clip["id"])[0]] = None
    wanted = _split_id(name)[0]
    for matches in (
        lambda take: take == wanted,
        lambda take: take.partition("/")[2] == wanted,
        lambda take: take.startswith(wanted),
        lambda take: take.partition("/")[2].startswith(wanted),
    ):
        candidates = [take for take in takes if matches(take[1])] if wanted else []
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            same = len({take for _, take in candidates}) == 1
            some = [folder if same else take for folder, take in candidates]
            more = f" and {len(some) - 5} more" if len(some) > 5 else ""
            raise InputError(
                f"--take {name!r} may be any of {len(some)}: {', '.join(some[:5])}{more}"
            )
    where = ", ".join(map(str, folders))
    raise InputError(f"{where}: no take {name!r}{nearest(name, [take for _, take in takes])}")


def _split_id(clip: str) -> tuple[str, int]:
    match = _SEGMENT.match(clip)
    return (match["take"], int(match["number"])) if match else (clip, 0)


def read(folder: str | Path, name: str) -> Take:
    """Reads the clips of a take and joins them in order.

    A clip starts at `extra["start_s"]` seconds, or at the end of the previous clip if it has no
    such value.

    Args:
      folder: folder of shards.
      name: "<subject>/<take>", as returned by `find_take`.

    Raises:
      InputError: no such take, or none of its clips can be read.
    """
    clips: list[tuple[int, records.Clip]] = []
    wrong = ""
    manifest = records.read_manifest(folder)
    for split in sorted({c["split"] for shard in manifest.shards for c in shard.clips}):
        source = ClipSource([folder], split, cache_bytes=0)
        for index, entry in enumerate(source.entries):
            take, number = _split_id(entry.id)
            if take == name:
                try:
                    clips.append((number, source.load(index)))
                except records.BadRecord as error:
                    wrong = wrong or f"{entry.name}: {error}"
    if not clips:
        raise InputError(wrong or f"{folder}: no take {name!r}")
    return _join(name, str(folder), [clip for _, clip in sorted(clips, key=lambda c: c[0])])


def _join(name: str, folder: str, clips: list[records.Clip]) -> Take:
    starts: list[int] = []
    end = 0
    for clip in clips:
        seconds = clip.extra.get("start_s")
        start = end
        if isinstance(seconds, (int, float)) and np.isfinite(seconds):
            start = max(end, round(seconds * rig.FPS))
        starts.append(start)
        end = start + clip.frames
    total = end
    motion = np.zeros((total, rig.NUM_CHANNELS), np.float32)
    valid_mask = np.zeros(total, bool)
    emotion = np.zeros((total, rig.NUM_EMOTIONS), np.float32)
    emotion[:, 0] = 1.0
    audio = np.zeros(total * HOP, np.float32)
    residual = np.full(total, np.nan, np.float32)
    for start, clip in zip(starts, clips, strict=True):
        part = slice(start, start + clip.frames)
        motion[part], valid_mask[part], emotion[part] = clip.motion, clip.frame_mask, clip.emotion
        audio[start * HOP : start * HOP + len(clip.audio)] = clip.audio
        stored = np.asarray(clip.extra.get("residual", ()), np.float32).ravel()
        if len(stored) == clip.frames:
            residual[part] = stored
    first = clips[0]
    return Take(
        name=name,
        folder=folder,
        split=first.split,
        sentence=first.sentence,
        language=first.language,
        audio=audio,
        motion=motion,
        channel_mask=np.any([clip.channel_mask for clip in clips], axis=0),
        frame_mask=valid_mask,
        emotion=emotion,
        residual=residual if np.isfinite(residual).any() else None,
        cuts=tuple(start / rig.FPS for start in starts[1:]),
        extra=first.extra,
    )


def cut(take: Take, seconds: tuple[float, float]) -> tuple[Take, float]:
    """Returns the part of a take between two times, and its start in seconds.

    Raises:
      InputError: no part of the take lies between them.
    """
    first = int(np.ceil(max(seconds[0], 0.0) * rig.FPS))
    last = int(min(np.ceil(seconds[1] * rig.FPS), len(take.motion)))
    if last - first < 2:
        raise InputError(
            f"{take.name}: nothing to draw from {seconds[0]:g} to {seconds[1]:g} s, the take has "
            f"{take.seconds:.2f} s"
        )
    part = slice(first, last)
    return (
        dataclasses.replace(
            take,
            audio=take.audio[first * HOP : last * HOP],
            motion=take.motion[part],
            frame_mask=take.frame_mask[part],
            emotion=take.emotion[part],
            residual=None if take.residual is None else take.residual[part],
        ),
        first / rig.FPS,
    )


def summary_lines(take: Take) -> list[str]:
    """Returns the summary of a take as lines of text."""
    good = take.frame_mask
    peak = float(np.abs(take.audio).max(initial=0.0))
    out = [
        f"take {take.title}",
        f"  in {take.folder}: {len(take.cuts) + 1} clip{'s' * bool(take.cuts)}, "
        f"{good.sum()} of {len(good)} frames good, {take.channel_mask.sum()} channels observed",
        f"  sound: peak {_decibel(peak):.1f} dB of full scale, "
        f"RMS {_decibel(float(np.sqrt(np.mean(take.audio.astype(np.float64) ** 2)))):.1f} dB, "
        f"{len(take.audio) / SAMPLE_RATE:.2f} s",
    ]
    shown = take.emotion[good].mean(0) if good.any() else take.emotion.mean(0)
    names = [f"{rig.EMOTIONS[i]} {shown[i]:.2f}" for i in np.argsort(-shown) if shown[i] > 0.005]
    out.append(f"  emotion: {', '.join(names)}")
    if "text" in take.extra:
        out.append(f"  text: {take.extra['text']}")
    if take.residual is not None:
        values = take.residual[good & np.isfinite(take.residual)]
        if len(values):
            worst = int(np.nanargmax(np.where(good, take.residual, np.nan)))
            out.append(
                f"  residual: median {np.median(values):.3f} mm, 95 % below "
                f"{np.percentile(values, 95):.3f} mm, {values.max():.3f} mm at "
                f"{worst / rig.FPS:.2f} s"
            )
    motion = take.motion[good] if good.any() else take.motion
    spread = motion.std(0) / rig.SCALE
    order = [i for i in np.argsort(-spread, kind="stable") if take.channel_mask[i]]
    rows = [
        (rig.CHANNELS[i], *(f"{v:.3f}" for v in (motion[:, i].mean(), motion[:, i].std())),
         f"{motion[:, i].min():.3f} to {motion[:, i].max():.3f}")
        for i in order[:8]
        if spread[i] > 1e-3
    ]  # fmt: skip
    return [*out, "", *table(rows, ("most moving channels", "mean", "std", "range"))]


def _decibel(value: float) -> float:
    return 20.0 * float(np.log10(max(value, 1e-5)))
