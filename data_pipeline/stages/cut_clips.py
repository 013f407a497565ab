"""Solved takes of a person become clips: one clock, 50 frames a second, cut in pauses.

The clocks' offset is read from all takes of a person together, so a person is the unit of this
work. Each take's clips are a file named after all that they depend on; what is there is not made
again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, rig
from a2fjax.audio import HOP, SAMPLE_RATE, io, level, num_frames
from a2fjax.data import records
from a2fjax.errors import InputError
from data_pipeline.execution import content_key
from data_pipeline.execution.content_key import digest
from data_pipeline.quality import measures
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Take
from data_pipeline.stages.solve_take import SolvedTake
from data_pipeline.timing import align, clocks

MIN_FRAMES = 10
"""A take with fewer frames under its audio is no clip (0.2 s)."""

SILENCE = clocks.Clock(0.0, "silence", 1.0)
"""Of a take that was performed in silence: there is no other clock."""

_SETTINGS = "offset clock drift largest_offset least_confidence segment_seconds".split()


@dataclasses.dataclass(frozen=True)
class Job:
    """A person whose takes are solved.

    Attributes:
      actor: name.
      takes: with the mark of what was solved.
      settings: of the build.
      work: folder of what is done.
    """

    actor: str
    takes: tuple[tuple[Take, str], ...]
    settings: BuildSettings
    work: Path


def run_job(job: Job) -> tuple[str, list[dict[str, Any]]]:
    """Makes the clips of a person; returns the name of this work and a summary of each take.

    A summary holds what is known of the take ("take", "subject", "sentence", "language",
    "emotion", "synthetic", "slate"), the measures of `quality` ("audio", "motion", "lips",
    "thumbnail"), "clock", "fit", "warnings", "notes", "solved", "kkt", "moving" and "observed"
    [72], and its clips: "file" in WORK/clips, "entries" ([id, sentence, seconds] of each), "bytes",
    "seconds", "rejected", why there are none, or "", and "again", whether there may be another
    time.

    Raises:
      OSError, WorkFailed, MemoryError: the disk or the machine fails.
    """
    used = {k: getattr(job.settings, k) for k in _SETTINGS}
    base = [content_key.code_digest("stages.cut_clips"), used]
    whole = digest([base, [[take_metadata(t), mark] for t, mark in job.takes]])
    summary = job.work / "actors" / f"{whole}.json"
    if summary.is_file():
        found = json.loads(summary.read_text(encoding="utf-8"))
        if all((job.work / "clips" / t["file"]).is_file() for t in found if t["file"]):
            return whole, [_packed(said) for said in found]
    refused, again = "", False
    times = dict.fromkeys((take.name for take, _ in job.takes), SILENCE)
    try:
        times = read_clocks(job)
    except Exception as error:
        refused, again = content_key.rejection_reason(error)
    out = []
    for take, mark in job.takes:
        clock = times[take.name]
        name = digest([base, take_metadata(take), mark, dataclasses.asdict(clock), refused])
        out.append(_work_on_take(job, take, mark, clock, name, refused, again))
    if not any(said["again"] for said in out):
        files.write_text(summary, json.dumps(out))
    return whole, [_packed(said) for said in out]


def _packed(said: dict[str, Any]) -> dict[str, Any]:
    """Returns a summary that takes a quarter of the memory: the last step holds those of all takes.

    Lists of numbers in it become arrays; None becomes NaN.
    """
    out = {**said, **{k: np.array(said[k], bool) for k in ("moving", "observed")}}
    if "thumbnail" in said:
        out["thumbnail"] = {
            k: np.array(v, np.float32) if isinstance(v, list) else v
            for k, v in said["thumbnail"].items()
        }
    return out


def take_metadata(take: Take) -> list[Any]:
    """Returns what is known of a take that is not in its files of motion."""
    track = take.emotion_track
    return [
        *(take.subject, take.name, take.audio is None, take.sentence, take.language, take.text),
        *(take.slate, take.synthetic, take.offset, np.asarray(take.emotion).tolist()),
        None if track is None else [np.asarray(x).tolist() for x in track],
    ]


def _path(job: Job, mark: str) -> Path:
    return job.work / "takes" / f"{mark}.npz"


def read_clocks(job: Job) -> dict[str, clocks.Clock]:
    """Returns the clock of each take by name."""
    signals = []
    for take, mark in job.takes:
        if take.audio is None:
            continue
        solved = SolvedTake.load(_path(job, mark))
        signals.append(
            clocks.Signals(
                name=take.name,
                slate=take.slate,
                envelope=solved.envelope,
                clicks=solved.clicks,
                times=solved.times,
                aperture=rig.aperture(solved.curves),
                said=take.offset,
            )
        )
    settings = job.settings
    found = clocks.estimate_clocks(
        signals,
        given=settings.given_offset(),
        limit=settings.largest_offset,
        least_confidence=settings.least_confidence,
        per_take=settings.clock == "take",
        correct_drift=settings.drift == "correct",
    )
    named = {s.name: clock for s, clock in zip(signals, found, strict=True)}
    return {take.name: named.get(take.name, SILENCE) for take, _ in job.takes}


def _work_on_take(
    job: Job,
    take: Take,
    mark: str,
    clock: clocks.Clock,
    name: str,
    refused: str = "",
    again: bool = False,
) -> dict[str, Any]:
    said: dict[str, Any]
    described = job.work / "clips" / f"{name}.json"
    clips_file = job.work / "clips" / f"{name}.clips"
    if described.is_file():
        said = json.loads(described.read_text(encoding="utf-8"))
        if clips_file.is_file() or not said["file"]:
            return said
    solved = SolvedTake.load(_path(job, mark))
    said = {
        "work": name,
        "take": f"{take.subject}/{take.name}",
        "subject": take.subject,
        "sentence": take.sentence,
        "language": take.language,
        "emotion": rig.EMOTIONS[int(np.argmax(take.emotion))],
        "synthetic": take.synthetic,
        "slate": take.slate,
        "clock": dataclasses.asdict(clock),
        "moving": (np.abs(solved.curves) > 1e-6).any(axis=0).tolist(),
        "observed": solved.observed.tolist(),
        "file": "",
        "entries": [],
        "bytes": 0,
        "seconds": 0.0,
        "rejected": refused,
        "again": again,
        **solved.facts,
    }
    said["warnings"] = [*said["warnings"], *clock.notes]
    if len(solved.residual):
        said["fit"] = {"residual_mm": round(float(solved.residual.mean()), 5)}
    if not take.slate and not refused:
        try:
            _write_clips(clips_file, make_clips(take, solved, clock, job.settings, said), said)
            said["file"] = clips_file.name
        except Exception as error:
            said |= {"entries": [], "bytes": 0, "seconds": 0.0}
            said["rejected"], said["again"] = content_key.rejection_reason(error)
    if not said["again"]:
        # Last: it says that all is there.
        files.write_text(described, json.dumps(said))
    return said


def _write_clips(path: Path, found: Iterator[records.Clip], said: dict[str, Any]) -> None:
    import msgpack

    with files.atomic_write(path) as temporary, temporary.open("wb") as file:
        for clip in found:
            record = records.encode(clip)
            file.write(msgpack.packb(record))
            said["bytes"] += len(record)
            seconds = len(clip.audio) / SAMPLE_RATE
            said["entries"].append([clip.id, clip.sentence, seconds])
            said["seconds"] += seconds


def make_clips(
    take: Take,
    solved: SolvedTake,
    clock: clocks.Clock,
    settings: BuildSettings,
    said: dict[str, Any],
) -> Iterator[records.Clip]:
    """Yields the clips of a take: its curves at 50 frames a second on the audio's clock.

    Args:
      take: what is known of it.
      solved: its curves.
      clock: of its audio.
      settings: of the build.
      said: "warnings" and the measures "lips" and "thumbnail" are added to it.

    Raises:
      InputError: the audio cannot be read, or lies outside the capture.
    """
    times = clock.audio_times(solved.times)
    if take.audio is None:
        times = times - times[0]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0 / rig.FPS
        audio = np.zeros(max(2, round((times[-1] + step) * SAMPLE_RATE)), np.float32)
    else:
        audio = io.load(take.audio)
    frames = num_frames(len(audio))
    at = np.arange(frames) / rig.FPS
    good = align.covered_by_capture(times, at)
    seconds, captured = len(audio) / SAMPLE_RATE, times[-1] - times[0]
    if good.sum() < min(MIN_FRAMES, frames):
        raise InputError(
            f"{take.audio}: {seconds:.2f} s of audio and {captured:.2f} s of capture do not overlap"
        )
    if abs(seconds - captured) > 0.1 + 0.04 * max(seconds, captured):
        said["warnings"].append(
            f"{seconds:.2f} s of audio, {captured:.2f} s of capture: is the frame rate right?"
        )
    motion = rig.clip(align.resample(times, solved.curves, at)).astype(np.float32)
    emotion = emotion_on_frames(take, at)
    loudness = level.speech_level(audio)
    residual = None
    if len(solved.residual):
        residual = np.interp(at, times, solved.residual)
    aperture = rig.aperture(solved.curves)
    said["lips"] = measures.measure_lips(solved.envelope, times, aperture) if take.audio else {}
    said["thumbnail"] = measures.thumbnail(
        solved.envelope, times, aperture, solved.residual if len(solved.residual) else None
    )
    cuts = cut_points(audio, round(settings.segment_seconds * rig.FPS))
    for number, (a, b) in enumerate(cuts):
        if not good[a:b].any():
            continue
        extra: dict[str, Any] = {
            "offset_s": round(clock.seconds, 5),
            "offset_method": clock.method,
            "offset_confidence": round(clock.confidence, 3),
            "drift": round(clock.drift, 7),
            "start_s": a / rig.FPS,
        }
        if residual is not None:
            fit = residual[a:b]
            extra["residual"] = [round(float(r), 4) for r in fit]
            extra["residual_mm"] = round(float(fit[good[a:b]].mean()), 4)
            extra["residual_mm_p95"] = round(float(np.percentile(fit[good[a:b]], 95)), 4)
        if take.text and len(cuts) == 1:
            extra["text"] = take.text
        yield records.Clip(
            id=f"{take.subject}/{take.name}" + (f"#{number}" if len(cuts) > 1 else ""),
            subject=take.subject,
            sentence=take.sentence,
            language=take.language,
            split="unused",
            audio=audio[a * HOP : b * HOP],
            motion=motion[a:b],
            channel_mask=solved.observed,
            frame_mask=good[a:b],
            emotion=emotion[a:b],
            speech_level=loudness,
            synthetic=take.synthetic,
            extra=extra,
        )


def emotion_on_frames(take: Take, at: np.ndarray) -> np.ndarray:
    """Returns the emotion [T, 5] at times [T] on the audio's clock; rows sum to 1."""
    if take.emotion_track is None:
        return np.tile(take.emotion.astype(np.float32), (len(at), 1))
    times, weights = take.emotion_track
    rows = np.stack([np.interp(at, times, w) for w in weights.T], axis=1)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def cut_points(audio: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Returns frame ranges that cover the audio, each of at most `longest` frames.

    Cuts fall on the quietest frame of the second half of what a clip may hold.
    """
    frames = num_frames(len(audio))
    if frames <= longest:
        return [(0, frames)]
    padded = np.pad(audio, (0, frames * HOP - len(audio)))
    power = (padded.reshape(frames, -1).astype(np.float64) ** 2).mean(axis=1)
    # Quiet for a fifth of a second, not for one frame between two sounds.
    power = np.convolve(np.pad(power, 5, "edge"), np.ones(11), "valid")
    out, start = [], 0
    while frames - start > longest:
        lo = start + longest // 2
        # What is left after this cut and the next need not be shorter than half a clip.
        hi = min(start + longest, frames - longest // 4)
        cut = lo + int(np.argmin(power[lo:hi])) if hi > lo else start + longest
        out.append((start, cut))
        start = cut
    return [*out, (start, frames)]
