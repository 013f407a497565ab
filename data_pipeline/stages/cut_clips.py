"""Stage 2: cuts solved takes into clips on the audio clock, at 50 frames per second, in pauses.

The clock offset is estimated from all takes of an actor together, so a job is an actor. The clips
of a take are stored in a file named by a content key; existing files are reused.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets, files, rig
from a2fjax.audio import HOP, SAMPLE_RATE, level, num_frames
from a2fjax.data import records
from data_pipeline.execution import content_key
from data_pipeline.execution.content_key import digest
from data_pipeline.quality.lips import measure_lips
from data_pipeline.quality.thumbnail import make_thumbnail
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Take
from data_pipeline.stages import take_clocks, take_offsets
from data_pipeline.stages.solved_take import SolvedTake
from data_pipeline.stages.sync_expert import SyncExpert
from data_pipeline.stages.take_frames import on_audio_clock
from data_pipeline.timing import clocks

_SETTINGS = "offset clock drift largest_offset least_confidence segment_seconds".split()


@dataclasses.dataclass(frozen=True)
class Job:
    """An actor whose takes are solved.

    Attributes:
      actor: name of the actor.
      takes: takes, each with the content key of its solution.
      settings: build settings.
      work: folder of intermediate results.
      expert: the sync expert that judges the clocks, or None.
    """

    actor: str
    takes: tuple[tuple[Take, str], ...]
    settings: BuildSettings
    work: Path
    expert: SyncExpert | None = None


def run_job(job: Job) -> tuple[str, list[dict[str, Any]]]:
    """Cuts the clips of an actor; returns the result's content key and a summary of each take.

    A summary holds the take's metadata ("take", "subject", "sentence", "language",
    "emotion", "synthetic", "slate"), its quality measures ("audio", "motion", "lips",
    "thumbnail"), "clock", with a sync expert "sync" (`take_clocks.find`), "fit", "warnings",
    "notes", "solved", "kkt", "moving" and "observed" [72], and its clips: "file" in WORK/clips,
    "entries" ([id, sentence, seconds] of each), "bytes", "seconds", "rejected" (the reason if there
    are none, or ""), and "retry" (a retry may succeed).

    Raises:
      OSError, WorkFailed, MemoryError: the disk or the machine fails.
    """
    base: list[Any] = [
        content_key.code_digest("stages.cut_clips"),
        {k: getattr(job.settings, k) for k in _SETTINGS},
    ]
    if job.expert is not None:
        chosen = dataclasses.asdict(take_offsets.rules(job.settings))
        base.append([*take_offsets.base_key(job.expert, job.settings), job.settings.seed, chosen])
    actor_key = digest([base, [[take_metadata(take), key] for take, key in job.takes]])
    summary_file = job.work / "actors" / f"{actor_key}.json"
    if summary_file.is_file():
        summaries = budgets.load_json(summary_file)
        if all((job.work / "clips" / s["file"]).is_file() for s in summaries if s["file"]):
            return actor_key, [_packed(s) for s in summaries]
    refused, retry = "", False
    by_take = dict.fromkeys((take.name for take, _ in job.takes), take_clocks.SILENCE)
    judged: dict[str, dict[str, Any]] = {}
    try:
        by_take, judged = take_clocks.find(job.takes, job.settings, job.work, job.expert)
    except Exception as error:
        refused, retry = content_key.rejection_reason(error)
    summaries = []
    for take, solved_key in job.takes:
        clock, sync = by_take[take.name], judged.get(take.name, {})
        parts = [base, take_metadata(take), solved_key, dataclasses.asdict(clock), refused]
        key = digest([*parts, sync] if sync else parts)
        summaries.append(_cut_take(job, take, solved_key, clock, key, refused, retry, sync))
    if not any(s["retry"] for s in summaries):
        files.write_text(summary_file, json.dumps(summaries))
    return actor_key, [_packed(s) for s in summaries]


def _packed(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns a summary in a quarter of the memory, as the last stage holds those of all takes.

    Lists of numbers become arrays; None becomes NaN.
    """
    packed = {**summary, **{k: np.array(summary[k], bool) for k in ("moving", "observed")}}
    if "thumbnail" in summary:
        packed["thumbnail"] = {
            k: np.array(v, np.float32) if isinstance(v, list) else v
            for k, v in summary["thumbnail"].items()
        }
    return packed


def take_metadata(take: Take) -> list[Any]:
    """Returns the metadata of a take, apart from the contents of its files, as JSON values."""
    track = take.emotion_track
    return [
        *(take.subject, take.name, take.audio is None, take.sentence, take.language, take.text),
        *(take.slate, take.synthetic, take.offset, np.asarray(take.emotion).tolist()),
        None if track is None else [np.asarray(x).tolist() for x in track],
    ]


def _cut_take(
    job: Job,
    take: Take,
    solved_key: str,
    clock: clocks.Clock,
    key: str,
    refused: str,
    retry: bool,
    sync: dict[str, Any],
) -> dict[str, Any]:
    summary: dict[str, Any]
    summary_file = job.work / "clips" / f"{key}.json"
    clips_file = job.work / "clips" / f"{key}.clips"
    if summary_file.is_file():
        summary = budgets.load_json(summary_file)
        if clips_file.is_file() or not summary["file"]:
            return summary
    solved = SolvedTake.load(take_clocks.solved_file(job.work, solved_key))
    summary = {
        "key": key,
        "take": f"{take.subject}/{take.name}",
        "subject": take.subject,
        "sentence": take.sentence,
        "language": take.language,
        "emotion": rig.EMOTIONS[int(np.argmax(take.emotion))],
        "synthetic": take.synthetic,
        "slate": take.slate,
        "clock": dataclasses.asdict(clock),
        **({"sync": sync} if sync else {}),
        "moving": (np.abs(solved.curves) > 1e-6).any(axis=0).tolist(),
        "observed": solved.observed.tolist(),
        "file": "",
        "entries": [],
        "bytes": 0,
        "seconds": 0.0,
        "rejected": refused,
        "retry": retry,
        **solved.facts,
    }
    summary["warnings"] = [*summary["warnings"], *clock.notes]
    if len(solved.residual):
        summary["fit"] = {"residual_mm": round(float(solved.residual.mean()), 5)}
    if not take.slate and not refused:
        try:
            clips = make_clips(take, solved, clock, job.settings, summary)
            _write_clips(clips_file, clips, summary)
            summary["file"] = clips_file.name
        except Exception as error:
            summary |= {"entries": [], "bytes": 0, "seconds": 0.0}
            summary["rejected"], summary["retry"] = content_key.rejection_reason(error)
    if not summary["retry"]:
        # Write this file last: it marks the others as complete.
        files.write_text(summary_file, json.dumps(summary))
    return summary


def _write_clips(path: Path, clips: Iterator[records.Clip], summary: dict[str, Any]) -> None:
    import msgpack

    with files.atomic_write(path) as temporary, temporary.open("wb") as file:
        for clip in clips:
            record = records.encode(clip)
            file.write(msgpack.packb(record))
            summary["bytes"] += len(record)
            seconds = len(clip.audio) / SAMPLE_RATE
            summary["entries"].append([clip.id, clip.sentence, seconds])
            summary["seconds"] += seconds


def make_clips(
    take: Take,
    solved: SolvedTake,
    clock: clocks.Clock,
    settings: BuildSettings,
    summary: dict[str, Any],
) -> Iterator[records.Clip]:
    """Yields the clips of a take: its curves at 50 frames per second on the audio's clock.

    Args:
      take: the take.
      solved: its curves.
      clock: its clock.
      settings: build settings.
      summary: receives warnings and the measures "lips" and "thumbnail".

    Raises:
      InputError: the audio cannot be read, or does not overlap the capture.
    """
    found = on_audio_clock(take, solved, clock)
    audio, times, frame_times = found.audio, found.times, found.frame_times
    motion, valid = found.motion, found.valid
    seconds, captured = len(audio) / SAMPLE_RATE, times[-1] - times[0]
    if abs(seconds - captured) > 0.1 + 0.04 * max(seconds, captured):
        summary["warnings"].append(
            f"{seconds:.2f} s of audio, {captured:.2f} s of capture: is the frame rate right?"
        )
    emotion = emotion_on_frames(take, frame_times)
    loudness = level.speech_level(audio)
    residual = None
    if len(solved.residual):
        residual = np.interp(frame_times, times, solved.residual)
    aperture = rig.aperture(solved.curves)
    summary["lips"] = measure_lips(solved.envelope, times, aperture) if take.audio else {}
    summary["thumbnail"] = make_thumbnail(
        solved.envelope, times, aperture, solved.residual if len(solved.residual) else None
    )
    ranges = cut_points(audio, round(settings.segment_seconds * rig.FPS))
    for number, (start, end) in enumerate(ranges):
        if not valid[start:end].any():
            continue
        extra: dict[str, Any] = {
            "offset_s": round(clock.seconds, 5),
            "offset_method": clock.method,
            "offset_confidence": round(clock.confidence, 3),
            "drift": round(clock.drift, 7),
            "start_s": start / rig.FPS,
        }
        if residual is not None:
            fit = residual[start:end]
            extra["residual"] = [round(float(r), 4) for r in fit]
            extra["residual_mm"] = round(float(fit[valid[start:end]].mean()), 4)
            extra["residual_mm_p95"] = round(float(np.percentile(fit[valid[start:end]], 95)), 4)
        if take.text and len(ranges) == 1:
            extra["text"] = take.text
        yield records.Clip(
            id=f"{take.subject}/{take.name}" + (f"#{number}" if len(ranges) > 1 else ""),
            subject=take.subject,
            sentence=take.sentence,
            language=take.language,
            split="unused",
            audio=audio[start * HOP : end * HOP],
            motion=motion[start:end],
            channel_mask=solved.observed,
            frame_mask=valid[start:end],
            emotion=emotion[start:end],
            speech_level=loudness,
            synthetic=take.synthetic,
            extra=extra,
        )


def emotion_on_frames(take: Take, frame_times: np.ndarray) -> np.ndarray:
    """Returns the emotion [T, 5] at times [T] on the audio's clock; rows sum to 1."""
    if take.emotion_track is None:
        return np.tile(take.emotion.astype(np.float32), (len(frame_times), 1))
    times, weights = take.emotion_track
    rows = np.stack([np.interp(frame_times, times, w) for w in weights.T], axis=1)
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def cut_points(audio: np.ndarray, longest: int) -> list[tuple[int, int]]:
    """Returns frame ranges that cover the audio, each of at most `longest` frames.

    Each cut is at the quietest frame in the second half of the longest possible clip.
    """
    frames = num_frames(len(audio))
    if frames <= longest:
        return [(0, frames)]
    padded = np.pad(audio, (0, frames * HOP - len(audio)))
    power = (padded.reshape(frames, -1).astype(np.float64) ** 2).mean(axis=1)
    # Smooth over a fifth of a second, to ignore single quiet frames between two sounds.
    power = np.convolve(np.pad(power, 5, "edge"), np.ones(11), "valid")
    ranges, start = [], 0
    while frames - start > longest:
        lo = start + longest // 2
        # Leave enough frames that the last clip is not much shorter than half a clip.
        hi = min(start + longest, frames - longest // 4)
        cut = lo + int(np.argmin(power[lo:hi])) if hi > lo else start + longest
        ranges.append((start, cut))
        start = cut
    return [*ranges, (start, frames)]
