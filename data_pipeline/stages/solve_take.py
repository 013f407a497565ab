"""Stage 1: solves a take. Reads it, removes head motion, solves for weights, measures quality.

The result is stored in a file named by a content key, which depends only on the contents of the
take's files, the blendshapes, the settings and the code. A repeated job, on this machine or another
one, reuses that result.

A process needs about 170 MB, plus 5 MB per thousand vertices (with 52 shapes) and 15 MB per minute
of its take at 60 frames per second, mostly in `quality.motion`. The system also counts mapped files
(.npy, .pc2) as resident; it reclaims those pages when memory is short.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets, files, rig
from a2fjax.audio import io
from a2fjax.errors import InputError
from data_pipeline.execution import content_key
from data_pipeline.mesh import geometry, topology
from data_pipeline.quality.audio import measure_audio
from data_pipeline.quality.motion import measure_motion
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Capture, Source, Take
from data_pipeline.stages.face_part import FacePart, prepare_part
from data_pipeline.stages.solved_take import SolvedTake
from data_pipeline.timing import align
from data_pipeline.timing.origin import count_from_first_row

_MAX_GAP = 3  # frames; no smoothing across longer gaps
_MIN_VISIBLE = 0.5  # share of the vertices; frames with fewer are not solved
_SIZE_LIMITS = {"skin": topology.SIZE_LIMIT, "tongue": 2.0}  # a tongue stretches

# Source options that change how files are read.
_SETTINGS = (
    *("fps", "units", "axes", "animation", "mouth_close", "rig", "columns"),
    *("l2", "l1", "smoothness", "symmetry", "exclusive", "outlier_mm"),
)


@dataclasses.dataclass(frozen=True)
class Job:
    """A take to solve.

    Attributes:
      source: reads the take; unpickling it imports its plugin.
      take: the take.
      settings: build settings.
      work: folder of intermediate results.
      stamp: digest of names, sizes and times of the take's files; key of their content digest.
      actor_stamp: the same for all files of the actor.
      layout_digest: digest of the plugin that reads the take; see `content_key.layout_digest`.
      check_only: only looks up existing solutions.
    """

    source: Source
    take: Take
    settings: BuildSettings
    work: Path
    stamp: str
    actor_stamp: str
    layout_digest: str = ""
    check_only: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
      key: content key of the result.
      failed: reason if there is no result, else "".
      fresh: whether this job computed the result rather than reusing it.
      missing: whether there is no result because the job was `check_only`.
      content: digest of the bytes of the take's files.
      seconds: length of the capture; 0 if not fresh.
      retry: whether a retry may succeed.
    """

    key: str = ""
    failed: str = ""
    fresh: bool = False
    missing: bool = False
    content: str = ""
    seconds: float = 0.0
    retry: bool = False


def run_job(job: Job) -> Outcome:
    """Solves a take; writes WORK/takes/<key>.npz, or .failed with the reason.

    Raises:
      OSError, WorkFailed, MemoryError: the disk or the machine fails, independent of the take.
    """
    cache = job.work / "digests" / job.stamp
    # Key of failures that occur before the contents or the actor's shapes can be read.
    key = content_key.digest([job.stamp, job.actor_stamp])
    content = content_key.read_cached_digest(cache)
    if job.check_only and content is None:
        return _earlier_failure(job, key) or Outcome(key, missing=True)
    try:
        content = content or content_key.digest_contents(take_files(job.take), cache)
        options = content_key.digest(_reading_settings(job.settings))
        actor = _Actor(job.source, job.take.subject, job.actor_stamp, options)
        parts = _face_parts(actor, job.settings.outlier_mm)
        key = _result_key(job, content.named, [p.digest for p in parts.values() if p is not None])
        path = job.work / "takes" / f"{key}.npz"
        if path.is_file():
            return Outcome(key, content=content.bytes)
        if job.check_only:
            return _earlier_failure(job, key) or Outcome(key, missing=True)
        solved = solve_take(job.source, job.take, job.settings, parts)
    except Exception as error:
        return _failure(job, key, *content_key.rejection_reason(error))
    solved.save(path)
    return Outcome(key, fresh=True, content=content.bytes, seconds=float(np.ptp(solved.times)))


def _failure(job: Job, key: str, reason: str, retry: bool) -> Outcome:
    earlier = _earlier_failure(job, key)
    if not job.check_only and (earlier is None or earlier.failed != reason):
        path = job.work / "takes" / f"{key}.failed"
        files.write_text(path, json.dumps({"reason": reason, "retry": retry}))
    return Outcome(key, failed=reason, retry=retry, fresh=earlier is None)


def _earlier_failure(job: Job, key: str) -> Outcome | None:
    try:
        path = job.work / "takes" / f"{key}.failed"
        record = budgets.load_json(path)
        return Outcome(key, failed=record["reason"], retry=record["retry"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def take_files(take: Take) -> list[Path]:
    """Returns the files and folders of a take."""
    return [*([take.audio] if take.audio else []), *take.data]


def _result_key(job: Job, content: str, shape_digests: Sequence[str]) -> str:
    take = job.take
    return content_key.digest(
        [
            *(content_key.code_digest("stages.solve_take"), rig.FINGERPRINT),
            *(job.source.layout, job.layout_digest),
            *(take.subject, take.name, take.fps, take.slate, take.offset is None),
            *(content, list(shape_digests)),
            {k: v for k, v in _reading_settings(job.settings).items() if k != "rig"},
        ]
    )


def _reading_settings(settings: BuildSettings) -> dict[str, Any]:
    values = dataclasses.asdict(settings)
    # The map's contents are among the take's files.
    values["columns"].pop("map")
    return {k: values[k] for k in _SETTINGS}


@dataclasses.dataclass(frozen=True)
class _Actor:
    source: Source = dataclasses.field(compare=False)
    name: str
    stamp: str
    options: str


@functools.lru_cache(maxsize=2)
def _face_parts(actor: _Actor, outlier_mm: float) -> dict[str, FacePart | None]:
    """Returns the parts of an actor's face; cached, because an actor's takes are consecutive."""
    parts = {}
    for name in ("skin", "tongue"):
        shapes = actor.source.blendshapes(actor.name, name)
        parts[name] = None if shapes is None else prepare_part(shapes, name, outlier_mm)
    return parts


def solve_take(
    source: Source, take: Take, settings: BuildSettings, parts: dict[str, FacePart | None]
) -> SolvedTake:
    """Returns a take's curves and measures.

    Raises:
      InputError: a file is damaged, or no frame is usable.
    """
    capture = source.capture(take)
    notes = list(capture.notes)
    facts: dict[str, Any] = {"solved": False, "kkt": 0.0, "notes": notes, "warnings": []}
    times = np.asarray(capture.times, np.float64)
    frames = len(times)
    curves = np.zeros((frames, rig.NUM_CHANNELS), np.float32)
    observed = np.zeros(rig.NUM_CHANNELS, bool)
    residual = np.zeros(0)
    usable = np.ones(frames, bool)
    if capture.curves is not None and capture.observed is not None:
        curves[:, capture.observed] = capture.curves[:, capture.observed]
        observed |= capture.observed
    if capture.eyes is not None:
        curves[:, rig.ANGLE_CHANNELS] = capture.eyes
        observed[rig.ANGLE_CHANNELS] = True
    for name, vertices in (("skin", capture.skin), ("tongue", capture.tongue)):
        if vertices is None:
            continue
        part = parts[name]
        if part is None:
            if name == "skin":
                raise InputError(
                    f"{take.subject}: no shapes to solve on: give bs_data/bs_skin.npz, rig.npz or "
                    "--config.rig=..."
                )
            continue
        try:
            solved, weights, error = _solve(name, part, capture, vertices, take, settings, facts)
        except InputError as problem:
            if name == "skin":
                raise
            facts["warnings"].append(f"{problem}; the tongue counts as not observed")
            continue
        if name == "tongue" and solved.mean() < _MIN_VISIBLE:
            # A frame is used with all its parts or not at all, so a mostly hidden tongue would
            # discard the whole face.
            facts["warnings"].append(
                f"tongue: seen in {solved.mean():.0%} of the frames; counts as not observed"
            )
            continue
        columns = np.array([rig.INDEX[c] for c in part.shapes.channels])
        curves[np.ix_(solved, columns)] = weights
        observed[columns] = part.observed
        if name == "skin":
            residual = np.zeros(frames)
            residual[solved] = error
        usable &= solved
        facts["notes"] += part.notes
    usable &= np.isfinite(curves).all(axis=1)
    if not usable.any():
        raise InputError(f"{take.data[0]}: none of {frames} frames can be used")
    envelope, clicks = _loudness_and_clicks(take)
    if take.audio is not None and take.offset is None:
        times, note = count_from_first_row(times, len(envelope) / align.ENVELOPE_RATE)
        notes += [note] if note else []
    times, curves = times[usable], curves[usable]
    residual = residual[usable] if len(residual) else residual
    facts["frames"] = frames
    facts["lost"] = int(frames - usable.sum())
    facts["audio"] = {} if take.audio is None else measure_audio(take.audio)
    facts["motion"] = measure_motion(times, curves, observed, residual if len(residual) else None)
    return SolvedTake(
        times=times,
        curves=curves,
        observed=observed,
        residual=residual.astype(np.float32),
        envelope=envelope,
        clicks=clicks,
        facts=facts,
    )


def _loudness_and_clicks(take: Take) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loudness of a take's audio and, for a slate, its click times."""
    if take.audio is None:
        return np.zeros(0, np.float32), np.zeros(0)
    audio = io.load(take.audio)
    clicks = align.click_times(audio) if take.slate else np.zeros(0)
    return align.envelope(audio).astype(np.float32), clicks


def _solve(
    name: str,
    part: FacePart,
    capture: Capture,
    vertices: geometry.Vertices,
    take: Take,
    settings: BuildSettings,
    facts: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (mask of solved frames [F], their weights [n, K], their residuals [n] in mm)."""
    # Only worker processes need jax.
    from data_pipeline.solver import solve as solver
    from data_pipeline.solver.exclusive import EXCLUSIVE_PAIRS

    shapes = part.shapes
    scale = capture.millimetres or shapes.millimetres
    axes = shapes.axes if capture.axes is None else capture.axes
    file = str(take.data[0 if name == "skin" else min(1, len(take.data) - 1)])
    topology.check_frames(
        vertices,
        shapes.neutral,
        shapes.deltas,
        keep=shapes.keep,
        stable=part.stable,
        scale=scale,
        axes=axes,
        name=file,
        size_limit=_SIZE_LIMITS[name],
    )
    blocks = [
        part.reducer(displacement)
        for _, displacement in geometry.displacements(
            vertices,
            shapes.neutral,
            shapes.keep,
            part.stable,
            scale=scale,
            axes=axes,
            name=file,
        )
    ]
    linear, energy, used, outliers = (
        np.concatenate([getattr(block, field) for block in blocks])
        for field in ("linear", "energy", "used", "outliers")
    )
    visible = used >= _MIN_VISIBLE
    if not visible.any():
        raise InputError(f"{take.data[0]}: no frame shows half of the {name}'s vertices")
    index = np.flatnonzero(visible)
    step = float(np.median(np.diff(capture.times))) if len(capture.times) > 1 else 1.0
    is_gap = np.diff(capture.times[index]) > _MAX_GAP * step
    position = {c: i for i, c in enumerate(shapes.channels)}

    def indices(pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
        return [(position[a], position[b]) for a, b in pairs if a in position and b in position]

    # Exclude unobserved shapes, which would absorb the motion of others.
    gram = np.where(np.outer(part.observed, part.observed), part.reducer.gram, 0.0)
    solution = solver.solve(
        gram,
        linear[index],
        energy[index],
        used[index] * part.reducer.vertices,
        solver.SolveSettings(
            l2=settings.l2,
            l1=settings.l1,
            # A slate's lips snap open: temporal smoothing would blur the instant.
            smoothness=0.0 if take.slate else settings.smoothness,
            symmetry=settings.symmetry,
        ),
        first=[0, *(np.flatnonzero(is_gap) + 1).tolist()],
        pairs=indices(rig.MIRROR_PAIRS),
        exclusive=indices(EXCLUSIVE_PAIRS) if settings.exclusive else (),
    )
    facts["solved"] = True
    facts["kkt"] = max(facts["kkt"], solution.kkt)
    facts[f"{name}_outliers"] = round(float(outliers[index].mean()), 6)
    facts[f"{name}_unseen"] = round(float(1.0 - used[index].mean()), 6)
    if not solution.converged:
        facts["warnings"].append(
            f"{name}: the solver stopped at residual {solution.kkt:.1e} after "
            f"{solution.passes} passes"
        )
    return visible, solution.weights, solution.residual
