"""Curves of any program as a system to evaluate.

Files are read by `animation.curve_reader`: names decide, never positions. What holds for a whole
folder is found in a first pass over its files: the unit of weights, the channels that every file
has, the convention of mouthClose (`mouth_close`) and a constant time offset (`time_offset`).
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig
from a2fjax.animation import curve_reader, tracks
from a2fjax.animation import mouth_close as conventions
from a2fjax.animation.columns import UNITS, ColumnSettings, Resolver
from a2fjax.data import records
from a2fjax.data.dataset import ClipSource
from a2fjax.errors import InputError, nearest
from a2fjax.evaluation import eval_clips, eval_data, mouth_close, prediction_files, time_offset
from a2fjax.metrics import lips

CACHE_FRAMES = 400_000
"""Frames of curves kept between the two passes, about 120 MB; files beyond are read twice."""

_ENDS_WITHIN = 0.1
"""In s: programs drop or add a frame or two at the end."""

_STARTS_WITHIN = 0.25
_RATES_DIFFER = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How to read the files where they do not say it.

    Attributes:
      fps: frames a second of files that state neither times nor a rate, or None.
      units: "weight", "percent", or "auto" (by the values, for all files alike).
      mouth_close: "arkit", "nvidia", or "auto" (by comparison with the true motion).
      align: shift the curves by the estimated time offset.
    """

    fps: float | None = None
    units: str = "auto"
    mouth_close: str = "auto"
    align: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
          InputError: names the flag.
        """
        if self.fps is not None:
            tracks.rate(self.fps)
        for flag, value, choices in (
            ("--units", self.units, UNITS),
            ("--mouth-close", self.mouth_close, mouth_close.CONVENTIONS),
        ):
            if value not in choices:
                raise InputError(f"{flag} {value}: unknown{nearest(value, choices)}")


class Predictions:
    """A folder of curves, one file for each clip.

    Attributes:
      channels: [72] bool, the channels that every file has.
    """

    altered: tuple[str, ...] = ()

    def __init__(
        self,
        folder: str | Path,
        data: eval_data.EvalData,
        reading: Reading,
        *,
        limit: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Reads all files once.

        Args:
          folder: folder of the files; see `prediction_files`.
          data: the clips.
          reading: how to read the files.
          limit: maximum number of clips a split, as for `EvalData.clips`.
          say: called with each line of progress and each finding.

        Raises:
          InputError: names the file, what is wrong with it and what was expected.
        """
        self._reading, self._say = reading, say
        self._resolver = Resolver(
            ColumnSettings(rename={mouth_close.COMBINED: "mouthClose"}, units=reading.units),
            percent_flag="--units percent",
        )
        sources = [(split, data.clips(split, limit)) for split in data.splits]
        self._files = _match(folder, data, [chosen for _, chosen in sources])
        self._kept: dict[str, tracks.Track] = {}
        self._kept_frames = 0
        self._shift = 0.0
        self._nvidia = False
        self._facts: dict[str, Any] = {}
        self.channels = np.ones(rig.NUM_CHANNELS, bool)
        self._survey(folder, sources)

    def describe(self) -> dict[str, Any]:
        """Returns the entries of the report that say what was measured."""
        return {
            "run": None,
            "step": None,
            "lookahead_ms": None,
            "model": f"files:{self._facts['fingerprint']}",
            "config": None,
            "predictions": self._facts,
        }

    def curves(self, chunk: Sequence[eval_clips.EvalClip]) -> dict[str, list[np.ndarray]]:
        """Returns {"model": [T, 72] of each clip}."""
        out = []
        for sample in chunk:
            motion = self._sampled(self._track(sample.clip.id), sample.clip.frames)
            out.append(conventions.to_rig(motion, "nvidia") if self._nvidia else motion)
        return {"model": out}

    def _survey(self, folder: str | Path, sources: Any) -> None:
        notes: collections.Counter[str] = collections.Counter()
        everywhere = np.ones(rig.NUM_CHANNELS, bool)
        anywhere = np.zeros(rig.NUM_CHANNELS, bool)
        by_unit: dict[bool, Path] = {}
        combined = False
        rates: list[float] = []
        seen = hashlib.sha256()
        true_channels = np.zeros(rig.NUM_CHANNELS, bool)
        readings, lags = mouth_close.Readings(), (time_offset.Lags(), time_offset.Lags())
        for split, chosen in sources:
            self._say(f"{split}: {len(chosen.chosen())} files")
            source: ClipSource = chosen.source
            for i in chosen.chosen():
                entry = source.entries[i]
                path = self._files[entry.id]
                found, track = self._read(path, entry.frames)
                seen.update(f"{entry.id}\0{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
                notes.update({*found.notes, *track.notes})
                rates.append(track.fps)
                everywhere &= found.observed
                anywhere |= found.observed
                by_unit.setdefault(found.percent, path)
                combined = combined or mouth_close.COMBINED in found.columns
                self._keep(entry.id, track)
                try:
                    clip = source.load(i)
                except records.BadRecord:
                    continue  # Reported when the split is measured.
                true_channels |= clip.channel_mask
                if not lips.has_aperture(clip.channel_mask & found.observed):
                    continue
                mask = clip.channel_mask & found.observed
                motion = self._sampled(track, clip.frames) * mask
                truth = clip.motion * mask
                readings.add(motion, truth, clip.frame_mask)
                opening = rig.aperture(truth)
                for lag, reading in zip(
                    lags, (motion, conventions.to_rig(motion, "nvidia")), strict=True
                ):
                    lag.add(rig.aperture(reading), opening, clip.frame_mask)
        if len(by_unit) == 2:
            raise InputError(
                f"{by_unit[True]} holds percent and {by_unit[False]} weights: expected one unit; "
                "give --units percent or --units weight"
            )
        self.channels = everywhere
        told = self._convention(readings, combined)
        offset = lags[self._nvidia].offset()
        if self._reading.align:
            self._shift = _alignment(offset)
        missing = [rig.CHANNELS[c] for c in np.flatnonzero(true_channels & ~everywhere)]
        some = [rig.CHANNELS[c] for c in np.flatnonzero(anywhere & ~everywhere)]
        self._facts = {
            "folder": str(folder),
            "files": len(rates),
            "fingerprint": seen.hexdigest()[:16],
            "fps": sorted({round(rate, 3) for rate in (min(rates), max(rates))}),
            "units": "percent" if True in by_unit else "weight",
            "mouth_close": told,
            "missing_channels": missing,
            "offset_ms": None if offset is None else round(1000 * offset.seconds, 1),
            "offset_correlation": None if offset is None else round(offset.correlation, 3),
            "aligned_ms": round(1000 * self._shift, 1),
            "notes": [f"{text} ({count} files)" for text, count in sorted(notes.items())],
        }
        if some:
            self._facts["notes"].append(f"in some files only, not measured: {', '.join(some)}")
        for line in findings(self._facts):
            self._say(line)

    def _convention(self, readings: mouth_close.Readings, combined: bool) -> str:
        if self._reading.mouth_close != "auto":
            self._nvidia = self._reading.mouth_close == "nvidia"
            return f"--mouth-close {self._reading.mouth_close}"
        if combined:
            self._nvidia = True
            return f"column {mouth_close.COMBINED}: includes jawOpen: converted"
        if not self.channels[[rig.INDEX["mouthClose"], rig.INDEX["jawOpen"]]].all():
            return "no mouthClose beside jawOpen"
        found, told = readings.convention()
        self._nvidia = found == "nvidia"
        return told

    def _track(self, clip: str) -> tracks.Track:
        kept = self._kept.get(clip)
        return kept if kept is not None else self._read(self._files[clip], None)[1]

    def _keep(self, clip: str, track: tracks.Track) -> None:
        if self._kept_frames + len(track.times) <= CACHE_FRAMES:
            self._kept[clip] = track
            self._kept_frames += len(track.times)

    def _sampled(self, track: tracks.Track, frames: int) -> np.ndarray:
        return track.at(np.arange(frames) / rig.FPS + self._shift)

    def _read(self, path: Path, frames: int | None) -> tuple[curve_reader.Curves, tracks.Track]:
        found = curve_reader.read(path, self._resolver)
        if len(found.lost_rows):
            total = len(found.lost_rows) + len(found.rows)
            raise InputError(
                f"{path}: {len(found.lost_rows)} of {total} frames have no values (NaN, null or no "
                "face), the first is frame "
                f"{float(found.lost_rows[0]):g}; expected values in every frame"
            )
        times, note = self._times(path, found)
        track = tracks.Track(found.motion, times, found.observed, (note,) if note else ())
        if frames is not None:
            _check_length(path, track, frames)
        return found, track

    def _times(self, path: Path, found: curve_reader.Curves) -> tuple[np.ndarray, str]:
        """Returns the times [F] in s of the frames in the clip, and a note."""
        fps = self._reading.fps
        if found.times is None:
            if fps is None:
                raise InputError(f"{path}: states neither times nor a rate; give --fps")
            return found.times_at(fps) - found.times_at(fps)[0], ""
        stated = found.fps or tracks.Track(found.motion, found.times, found.observed).fps
        if fps is not None and len(found.times) > 1 and abs(stated / fps - 1) > _RATES_DIFFER:
            raise InputError(f"{path}: has {stated:.6g} frames a second, --fps says {fps:g}")
        if found.fps and np.allclose(found.times, found.times_at(found.fps)):
            return found.times - found.times[0], ""  # Frames may be counted from 1.
        if 0 <= found.times[0] <= _STARTS_WITHIN:
            return found.times, ""
        return found.times - found.times[0], "times counted from the first frame"


def findings(facts: dict[str, Any]) -> list[str]:
    """Returns what was found about a folder of curves, as lines of text."""
    rates = " to ".join(f"{rate:g}" for rate in facts["fps"])
    lines = [f"{facts['files']} files, {rates} frames a second, unit: {facts['units']}"]
    lines.append(facts["mouth_close"])
    if facts["missing_channels"]:
        names = facts["missing_channels"]
        lines.append(f"not measured, {len(names)} channels that files lack: {', '.join(names)}")
    if facts["offset_ms"] is None:
        lines.append("no time offset found: the apertures do not correlate")
    else:
        late = "late" if facts["offset_ms"] >= 0 else "early"
        done = (
            f"shifted by {-facts['aligned_ms']:+.1f} ms"
            if facts["aligned_ms"]
            else "left as it is; --align shifts the curves"
        )
        lines.append(
            f"curves are {abs(facts['offset_ms']):.1f} ms {late} "
            f"(r = {facts['offset_correlation']:.2f}): {done}"
        )
    return lines + list(facts["notes"])


def _match(
    folder: str | Path, data: eval_data.EvalData, chosen: Sequence[eval_clips.SplitClips]
) -> dict[str, Path]:
    every = [e["id"] for m in data.manifests for shard in m.shards for e in shard.clips]
    twice = [clip for clip, count in collections.Counter(every).items() if count > 1]
    if twice:
        raise InputError(
            f"clip {twice[0]!r} is in several of {', '.join(data.folders)}: measure one at a time"
        )
    wanted = [part.source.entries[i].id for part in chosen for i in part.chosen()]
    return prediction_files.find(folder, wanted, set(every) - set(wanted))


def _check_length(path: Path, track: tracks.Track, frames: int) -> None:
    lasts = float(track.times[-1]) + 1.0 / track.fps
    expected = frames / rig.FPS
    if abs(lasts - expected) > _ENDS_WITHIN:
        raise InputError(
            f"{path}: lasts {lasts:.2f} s ({len(track.times)} frames at {track.fps:.6g} a second), "
            f"the clip {expected:.2f} s"
        )


def _alignment(offset: time_offset.Offset | None) -> float:
    if offset is None:
        raise InputError("--align: the apertures do not correlate at any offset within 0.5 s")
    if offset.at_edge:
        raise InputError("--align: the offset is 0.5 s or more; expected curves of the same clips")
    return offset.seconds
