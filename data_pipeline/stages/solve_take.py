"""One take becomes curves on the capture's clock: read, free of head motion, solve, measure.

What is found is kept in a file whose name depends on the content of the take's files, on the shapes
it is solved with, on the settings and on this code, and on nothing else: a job that is repeated, on
this machine or another one, finds the work done.

A process holds about 170 MB, 5 MB for each thousand vertices (of 52 shapes), and 15 MB for each
minute of the take it is at, at 60 frames a second: most of that while `quality.motion` looks at
the curves. Files that are mapped (.npy, .pc2) come on top in what the system counts as
resident, and are given back when memory is short.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import files, rig
from a2fjax.audio import io
from a2fjax.errors import InputError, WorkFailed
from data_pipeline.execution import content_key
from data_pipeline.mesh import geometry
from data_pipeline.quality import measures
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Blendshapes, Capture, Source, Take
from data_pipeline.timing import align

_MOST_STABLE = 400
_SCANNER_MM = 0.1  # noise that observability is judged by
_PRIOR = 0.25  # how far a weight typically strays
_APART = 3  # frames; a longer hole is not smoothed across
_LEAST_SEEN = 0.5  # share of the vertices without which a frame is not solved

# Of the sources' options, those that say how files are read; others say what is in them.
_SETTINGS = (
    *("fps", "units", "axes", "mouth_close", "rig"),
    *("l2", "l1", "smoothness", "symmetry", "exclusive", "outlier_mm"),
)


@dataclasses.dataclass(frozen=True)
class SolvedTake:
    """Curves of a take on the capture's clock, and what was measured on the way.

    Attributes:
      times: [F] s; frames that dropped out are not among them.
      curves: [F, 72] float32, rig units.
      observed: [72].
      residual: [F] float32 mm; empty for curves that were read.
      envelope: [N] float32 loudness in dB at `align.ENVELOPE_RATE`; empty without sound.
      clicks: [N] s, of a slate.
      facts: JSON values: "solved", "kkt", "notes", "warnings", "audio", "motion".
    """

    times: np.ndarray
    curves: np.ndarray
    observed: np.ndarray
    residual: np.ndarray
    envelope: np.ndarray
    clicks: np.ndarray
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Writes it, whole or not at all."""
        arrays = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        arrays["facts"] = np.frombuffer(json.dumps(self.facts).encode(), np.uint8)
        with files.atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: Path) -> SolvedTake:
        """Reads what `save` wrote.

        Raises:
          WorkFailed: the file was damaged, as by a loss of power; it is removed.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
            return cls(**{**arrays, "facts": json.loads(arrays["facts"].tobytes())})
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, TypeError) as error:
            path.unlink(missing_ok=True)
            raise WorkFailed(
                f"{path}: was damaged ({error}) and is removed; run it again"
            ) from None


@dataclasses.dataclass(frozen=True)
class Job:
    """A take to work on.

    Attributes:
      source: to read from.
      take: of one of its actors.
      settings: of the build.
      work: folder for what is done.
      stamp: of the take's files by name, size and time: a key for their content's digest.
      actor_stamp: the same of all files of the person.
      look: only says what is there.
    """

    source: Source
    take: Take
    settings: BuildSettings
    work: Path
    stamp: str
    actor_stamp: str
    look: bool = False


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
      mark: name of the result.
      failed: why there is none, "" if there is one.
      fresh: it was not there before.
      missing: it is not there, and only looking was asked for.
      content: digest of the bytes of the take's files.
      seconds: length of the capture, of fresh ones.
      again: what failed may go well another time.
    """

    mark: str = ""
    failed: str = ""
    fresh: bool = False
    missing: bool = False
    content: str = ""
    seconds: float = 0.0
    again: bool = False


def run_job(job: Job) -> Outcome:
    """Works on a take; leaves WORK/takes/<mark>.npz, or .failed with the reason.

    Raises:
      OSError, WorkFailed, MemoryError: the disk or the machine fails, whatever the take.
    """
    known = job.work / "digests" / job.stamp
    # Without the files' content or the person's shapes there is nothing else to be named after.
    mark = content_key.digest([job.stamp, job.actor_stamp])
    found = content_key.read_cached_digest(known)
    if job.look and found is None:
        return _failed_before(job, mark) or Outcome(mark, missing=True)
    try:
        found = found or content_key.digest_contents(take_files(job.take), known)
        options = content_key.digest({k: getattr(job.settings, k) for k in _SETTINGS})
        actor = _Actor(job.source, job.take.subject, job.actor_stamp, options)
        parts = _parts(actor, job.settings.outlier_mm)
        mark = _mark(job, found.named, [p.digest for p in parts.values() if p is not None])
        path = job.work / "takes" / f"{mark}.npz"
        if path.is_file():
            return Outcome(mark, content=found.bytes)
        if job.look:
            return _failed_before(job, mark) or Outcome(mark, missing=True)
        solved = solve_take(job.source, job.take, job.settings, parts)
    except Exception as error:
        return _failed(job, mark, *content_key.rejection_reason(error))
    solved.save(path)
    return Outcome(mark, fresh=True, content=found.bytes, seconds=float(np.ptp(solved.times)))


def _failed(job: Job, mark: str, reason: str, again: bool) -> Outcome:
    before = _failed_before(job, mark)
    if not job.look and (before is None or before.failed != reason):
        path = job.work / "takes" / f"{mark}.failed"
        files.write_text(path, json.dumps({"reason": reason, "again": again}))
    return Outcome(mark, failed=reason, again=again, fresh=before is None)


def _failed_before(job: Job, mark: str) -> Outcome | None:
    try:
        path = job.work / "takes" / f"{mark}.failed"
        said = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(mark, failed=said["reason"], again=said["again"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def take_files(take: Take) -> list[Path]:
    """Returns a take's files and folders."""
    return [*([take.audio] if take.audio else []), *take.data]


def _mark(job: Job, content: str, faces: Sequence[str]) -> str:
    take = job.take
    return content_key.digest(
        [
            *(content_key.code_digest("stages.solve_take"), rig.FINGERPRINT, job.source.layout),
            *(take.subject, take.name, take.fps, take.slate, content, list(faces)),
            {k: getattr(job.settings, k) for k in _SETTINGS if k != "rig"},
        ]
    )


@dataclasses.dataclass(frozen=True)
class FacePart:
    """A face part (skin or tongue) ready to solve on.

    Attributes:
      face: its shapes.
      stable: [N] vertices that head motion is read from.
      reducer: frames to the terms that enter the solution.
      observed: [K] shapes that a capture of this head can tell.
      notes: decisions, in words.
      digest: of all that results depend on.
    """

    face: Blendshapes
    stable: np.ndarray
    reducer: Any
    observed: np.ndarray
    notes: tuple[str, ...]
    digest: str


@dataclasses.dataclass(frozen=True)
class _Actor:
    source: Source = dataclasses.field(compare=False)
    name: str
    stamp: str
    options: str


@functools.lru_cache(maxsize=2)
def _parts(actor: _Actor, outlier_mm: float) -> dict[str, FacePart | None]:
    """Returns the parts of a person; kept, because their takes follow each other."""
    found = {}
    for name in ("skin", "tongue"):
        face = actor.source.face(actor.name, name)
        found[name] = None if face is None else prepare_part(face, name, outlier_mm)
    return found


def prepare_part(face: Blendshapes, name: str, outlier_mm: float) -> FacePart:
    """Returns a part ready to solve on.

    Args:
      face: its shapes.
      name: "skin" or "tongue".
      outlier_mm: see `BuildSettings`.
    """
    from data_pipeline.solver import reduce

    stable = face.stable
    if stable is None:
        stable = geometry.stable_vertices(face.neutral, face.deltas)
        # A few hundred, spread out, fix six numbers to less than the scanner's noise.
        stable = stable[:: -(-len(stable) // _MOST_STABLE)]
    reducer = reduce.Reducer(face.deltas[:, face.keep], outlier_mm=outlier_mm)
    # Standard deviation of a weight given one noisy frame: of shapes that hardly move anything,
    # or move what others move, a capture says nothing.
    precision = reducer.gram / _SCANNER_MM**2 + np.eye(len(face.channels)) / _PRIOR**2
    observed = np.sqrt(np.diag(np.linalg.inv(precision))) < 0.6 * _PRIOR
    hidden = [c for c, seen in zip(face.channels, observed, strict=True) if not seen]
    note = f"{name}: head motion from {len(stable)} vertices, solved on {len(face.keep)}"
    if hidden:
        note += f", not observable: {', '.join(hidden)}"
    digest = hashlib.sha256(json.dumps([face.channels, face.millimetres]).encode())
    for array in (face.neutral, face.deltas, face.keep, stable, face.axes):
        digest.update(np.ascontiguousarray(array).tobytes())
    return FacePart(face, stable, reducer, observed, (*face.notes, note), digest.hexdigest()[:32])


def solve_take(
    source: Source, take: Take, settings: BuildSettings, parts: dict[str, FacePart | None]
) -> SolvedTake:
    """Returns a take's curves and measures.

    Raises:
      InputError: a file is damaged, or no frame can be used.
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
            seen, weights, error = _solve(name, part, capture, vertices, take, settings, facts)
        except InputError as problem:
            if name == "skin":
                raise
            facts["warnings"].append(f"{problem}; the tongue counts as not observed")
            continue
        if name == "tongue" and seen.mean() < _LEAST_SEEN:
            # Frames are kept or left out whole: a tongue that is mostly hidden would cost the face.
            facts["warnings"].append(
                f"tongue: seen in {seen.mean():.0%} of the frames; counts as not observed"
            )
            continue
        columns = np.array([rig.INDEX[c] for c in part.face.channels])
        curves[np.ix_(seen, columns)] = weights
        observed[columns] = part.observed
        if name == "skin":
            residual = np.zeros(frames)
            residual[seen] = error
        usable &= seen
        facts["notes"] += part.notes
    usable &= np.isfinite(curves).all(axis=1)
    if not usable.any():
        raise InputError(f"{take.data[0]}: none of {frames} frames can be used")
    envelope, clicks = _heard(take)
    times, curves = times[usable], curves[usable]
    residual = residual[usable] if len(residual) else residual
    facts["frames"] = frames
    facts["lost"] = int(frames - usable.sum())
    facts["audio"] = measures.measure_audio(take.audio)
    facts["motion"] = measures.measure_motion(
        times, curves, observed, residual if len(residual) else None
    )
    return SolvedTake(
        times=times,
        curves=curves,
        observed=observed,
        residual=residual.astype(np.float32),
        envelope=envelope,
        clicks=clicks,
        facts=facts,
    )


def _heard(take: Take) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loudness and, of a slate, the clicks of a take's sound."""
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
    """Returns (frames that were seen [F], their weights [n, K], their fit [n] in mm)."""
    from data_pipeline.solver import solve

    face = part.face
    rows = [
        part.reducer(moved)
        for _, moved in geometry.displacements(
            vertices,
            face.neutral,
            face.keep,
            part.stable,
            scale=face.millimetres,
            axes=face.axes,
            name=str(take.data[0 if name == "skin" else min(1, len(take.data) - 1)]),
        )
    ]
    linear, energy, used, outliers = (
        np.concatenate([getattr(r, field) for r in rows])
        for field in ("linear", "energy", "used", "outliers")
    )
    seen = used >= _LEAST_SEEN
    if not seen.any():
        raise InputError(f"{take.data[0]}: no frame shows half of the {name}'s vertices")
    index = np.flatnonzero(seen)
    step = float(np.median(np.diff(capture.times))) if len(capture.times) > 1 else 1.0
    apart = np.diff(capture.times[index]) > _APART * step
    place = {c: i for i, c in enumerate(face.channels)}

    def indices(pairs: Sequence[tuple[str, str]]) -> list[tuple[int, int]]:
        return [(place[a], place[b]) for a, b in pairs if a in place and b in place]

    # What cannot be observed is left out of the fit, or it would take up others' motion.
    gram = np.where(np.outer(part.observed, part.observed), part.reducer.gram, 0.0)
    solution = solve.solve(
        gram,
        linear[index],
        energy[index],
        used[index] * part.reducer.vertices,
        solve.SolveSettings(
            l2=settings.l2,
            l1=settings.l1,
            # A slate's lips snap: smoothing in time would blur when.
            smoothness=0.0 if take.slate else settings.smoothness,
            symmetry=settings.symmetry,
        ),
        first=[0, *(np.flatnonzero(apart) + 1).tolist()],
        pairs=indices(rig.MIRROR_PAIRS),
        exclusive=indices(solve.EXCLUSIVE_PAIRS) if settings.exclusive else (),
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
    return seen, solution.weights, solution.residual
