"""One actor's takes become clips: solve, align, resample, cut. This is what a worker process does.

An actor is the unit of work: the offset between the clocks and the rig are the actor's, and the
frames of all takes are solved in the same compiled chunks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from a2fjax import rig
from a2fjax.audio import HOP, SAMPLE_RATE, io, level, num_frames
from a2fjax.data import records
from a2fjax.errors import InputError
from data_pipeline import align, geometry
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Actor, Capture, Face, Source, Take

LEAST_FRAMES = 10
"""A take with fewer frames under its audio is no clip (0.2 s)."""

_MOST_STABLE = 400
_SCANNER_MM = 0.1  # noise that observability is judged by
_PRIOR = 0.25  # how far a weight typically strays


@dataclasses.dataclass
class Track:
    """Curves of a take on the capture's clock.

    Attributes:
      times: [F] s.
      curves: [F, 72] rig units.
      observed: [72].
      residual: [F] mm, or None for curves that were not solved.
      solved: from vertices, not read.
    """

    take: Take
    times: np.ndarray
    curves: np.ndarray
    observed: np.ndarray
    residual: np.ndarray | None
    solved: bool


@dataclasses.dataclass
class ActorReport:
    """What was found out about an actor.

    Attributes:
      offset: of the clocks.
      rejected: (take, reason).
      warnings: lines to show.
      notes: decisions, in words.
      moving: [72] channels that are not zero throughout in some take.
      solved: curves come from vertices.
      kkt: largest optimality residual of the solver.
      residuals: mean fit of each take, mm.
    """

    offset: align.Offset
    rejected: list[tuple[str, str]]
    warnings: list[str]
    notes: list[str]
    moving: np.ndarray
    solved: bool
    kkt: float = 0.0
    residuals: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Part:
    """A face part ready to solve on."""

    face: Face
    stable: np.ndarray
    gram: np.ndarray
    observed: np.ndarray
    linear: list[np.ndarray] = dataclasses.field(default_factory=list)
    energy: list[np.ndarray] = dataclasses.field(default_factory=list)
    owner: list[int] = dataclasses.field(default_factory=list)


def clips_of(
    source: Source, actor: Actor, settings: BuildSettings
) -> tuple[Iterator[records.Clip], ActorReport]:
    """Returns the clips of an actor, made one take at a time, and the report.

    The report's list of rejected takes grows while the clips are taken. Splits are not decided
    here: every clip says "unused".

    Args:
      source: what to read from.
      actor: of `source.actors()`.
      settings: of the build.
    """
    report = ActorReport(
        align.Offset(0.0, "none", 0.0), list(actor.rejected), [], [], np.zeros(72, bool), False
    )
    tracks = _read(source, actor, settings, report)
    heard = []
    for track in tracks:
        try:
            heard.append((track, io.load(track.take.audio)))
            heard[-1] = (track, align.envelope(heard[-1][1]))
        except InputError as error:
            report.rejected.append((track.take.name, str(error)))
    report.offset = find_offset(heard, settings)
    offset = report.offset
    if heard and offset.method == "none":
        report.warnings.append(f"{actor.name}: no sign of the clocks' offset; 0 s is assumed")
    for track, _ in heard:
        report.moving |= (np.abs(track.curves) > 1e-6).any(axis=0)
        report.solved |= track.solved
    return _clips([t for t, _ in heard if not t.take.slate], settings, report), report


def find_offset(heard: list[tuple[Track, np.ndarray]], settings: BuildSettings) -> align.Offset:
    """Returns the offset of an actor's clocks from the tracks and their loudness [N] at 200 Hz."""
    given = settings.given_offset()
    if given is not None:
        return align.Offset(given, "given", 1.0)
    for track, _ in heard:
        if track.take.slate:
            found = align.offset_from_slate(
                io.load(track.take.audio),
                track.times,
                rig.aperture(track.curves),
                limit=settings.largest_offset,
            )
            if found is not None:
                return found
    speech = [
        (loudness, track.times, rig.aperture(track.curves))
        for track, loudness in heard
        if not track.take.slate
    ]
    found = align.offset_from_speech(speech, limit=settings.largest_offset)
    if found is None or found.confidence < settings.least_confidence:
        return align.Offset(0.0, "none", found.confidence if found else 0.0)
    return found


def _read(
    source: Source, actor: Actor, settings: BuildSettings, report: ActorReport
) -> list[Track]:
    parts: dict[str, _Part | None] = {}
    captures: list[tuple[Take, Capture]] = []
    for take in actor.takes:
        try:
            capture = source.capture(take)
            if capture.skin is not None:
                _gather(source, take, capture, parts, report, len(captures))
        except InputError as error:
            report.rejected.append((take.name, str(error)))
            continue
        # Vertices have done their part; keeping them would keep every cache open.
        captures.append((take, dataclasses.replace(capture, skin=None, tongue=None)))
    tracks = []
    for take, capture in captures:
        curves = np.zeros((len(capture.times), rig.NUM_CHANNELS))
        observed = np.zeros(rig.NUM_CHANNELS, bool)
        if capture.curves is not None and capture.observed is not None:
            curves[:, capture.observed] = capture.curves[:, capture.observed]
            observed |= capture.observed
        if capture.eyes is not None:
            curves[:, rig.ANGLE_CHANNELS] = capture.eyes
            observed[rig.ANGLE_CHANNELS] = True
        tracks.append(Track(take, capture.times, curves, observed, None, False))
    for name, part in parts.items():
        if part is not None:
            _solve(name, part, tracks, settings, report)
    return tracks


def _gather(
    source: Source,
    take: Take,
    capture: Capture,
    parts: dict[str, _Part | None],
    report: ActorReport,
    index: int,
) -> None:
    found = {}
    for name, vertices in (("skin", capture.skin), ("tongue", capture.tongue)):
        if vertices is None:
            continue
        if name not in parts:
            parts[name] = _prepare(source.face(take.subject, name), name, report)
        part = parts[name]
        if part is None:
            if name == "skin":
                raise InputError(f"{take.subject}: no bs_data/bs_skin.npz: no shapes to solve on")
            continue
        rows = [
            _correlate(part, moved)
            for _, moved in geometry.displacements(
                vertices,
                part.face.neutral,
                part.face.keep,
                part.stable,
                scale=part.face.millimetres,
                name=str(take.data[0 if name == "skin" else 1]),
            )
        ]
        found[name] = [np.concatenate(column) for column in zip(*rows, strict=True)]
    for name, (linear, energy) in found.items():  # both parts were readable
        part = parts[name]
        assert part is not None
        part.linear.append(linear)
        part.energy.append(energy)
        part.owner.append(index)


def _correlate(part: _Part, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from data_pipeline import solve

    return solve.correlate(part.face.deltas[:, part.face.keep], moved)


def _prepare(face: Face | None, name: str, report: ActorReport) -> _Part | None:
    from data_pipeline import solve

    if face is None:
        return None
    stable = face.stable
    if stable is None:
        stable = geometry.stable_vertices(face.neutral, face.deltas)
        # A few hundred, spread out, fix six numbers to less than the scanner's noise.
        stable = stable[:: -(-len(stable) // _MOST_STABLE)]
    gram = solve.gram(face.deltas[:, face.keep])
    # Standard deviation of a weight given one noisy frame: of shapes that hardly move anything,
    # or move what others move, a capture says nothing.
    noise = np.linalg.inv(gram / _SCANNER_MM**2 + np.eye(len(gram)) / _PRIOR**2)
    observed = np.sqrt(np.diag(noise)) < 0.6 * _PRIOR
    hidden = [c for c, seen in zip(face.channels, observed, strict=True) if not seen]
    report.notes += face.notes
    report.notes.append(
        f"{name}: head motion from {len(stable)} vertices, solved on {len(face.keep)}"
        + (f", not observable: {', '.join(hidden)}" if hidden else "")
    )
    return _Part(face, stable, gram, observed)


def _solve(
    name: str, part: _Part, tracks: list[Track], settings: BuildSettings, report: ActorReport
) -> None:
    from data_pipeline import solve

    if not part.linear:
        return
    columns = np.array([rig.INDEX[c] for c in part.face.channels])
    # What cannot be observed is left out of the fit, or it would take up others' motion.
    gram = np.where(np.outer(part.observed, part.observed), part.gram, 0.0)
    place = {c: i for i, c in enumerate(part.face.channels)}
    pairs = [(place[a], place[b]) for a, b in rig.MIRROR_PAIRS if a in place and b in place]
    # A slate's lips snap: smoothing in time would blur when.
    for slate in (False, True):
        chosen = [i for i, o in enumerate(part.owner) if tracks[o].take.slate == slate]
        if not chosen:
            continue
        lengths = [len(part.linear[i]) for i in chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        solution = solve.solve(
            gram,
            np.concatenate([part.linear[i] for i in chosen]),
            np.concatenate([part.energy[i] for i in chosen]),
            len(part.face.keep),
            solve.SolveSettings(
                l2=settings.l2,
                l1=settings.l1,
                smoothness=0.0 if slate else settings.smoothness,
                symmetry=settings.symmetry,
            ),
            first=starts[:-1].tolist(),
            pairs=pairs,
        )
        report.kkt = max(report.kkt, solution.kkt)
        if not solution.converged:
            subject = tracks[0].take.subject
            report.warnings.append(
                f"{subject}: {name}: the solver stopped at residual {solution.kkt:.1e} after "
                f"{solution.passes} passes"
            )
        for i, a, b in zip(chosen, starts[:-1], starts[1:], strict=True):
            track = tracks[part.owner[i]]
            track.curves[:, columns] = solution.weights[a:b]
            track.observed[columns] = part.observed
            track.solved = True
            if name == "skin":
                track.residual = solution.residual[a:b]
                report.residuals.append(float(track.residual.mean()))


def _clips(
    tracks: list[Track], settings: BuildSettings, report: ActorReport
) -> Iterator[records.Clip]:
    for track in tracks:
        try:
            yield from clips_of_take(track, report.offset, settings, report.warnings)
        except InputError as error:
            report.rejected.append((track.take.name, str(error)))


def clips_of_take(
    track: Track, offset: align.Offset, settings: BuildSettings, warnings: list[str]
) -> Iterator[records.Clip]:
    """Yields the clips of a take: its curves at 50 frames a second on the audio's clock.

    Args:
      track: the take's curves on the capture's clock.
      offset: of the clocks.
      settings: of the build.
      warnings: lines are added to it.

    Raises:
      InputError: the audio cannot be read, or lies outside the capture.
    """
    take = track.take
    audio = io.load(take.audio)
    frames = num_frames(len(audio))
    at = np.arange(frames) / rig.FPS
    times = track.times + offset.seconds
    good = align.covered(times, at)
    seconds, captured = len(audio) / SAMPLE_RATE, times[-1] - times[0]
    if good.sum() < min(LEAST_FRAMES, frames):
        raise InputError(
            f"{take.audio}: {seconds:.2f} s of audio and {captured:.2f} s of capture do not overlap"
        )
    if abs(seconds - captured) > 0.1 + 0.04 * max(seconds, captured):
        warnings.append(
            f"{take.subject}/{take.name}: {seconds:.2f} s of audio, {captured:.2f} s of capture: "
            "is the frame rate right?"
        )
    motion = rig.clip(align.resample(times, track.curves, at)).astype(np.float32)
    emotion = emotion_on_frames(take, at)
    loudness = level.speech_level(audio)
    residual = None
    if track.residual is not None:
        residual = align.resample(times, track.residual[:, None], at)[:, 0]
    cuts = segments(audio, round(settings.segment_seconds * rig.FPS))
    for number, (a, b) in enumerate(cuts):
        if not good[a:b].any():
            continue
        extra = {
            "offset_s": round(offset.seconds, 5),
            "offset_method": offset.method,
            "offset_confidence": round(offset.confidence, 3),
        }
        if residual is not None:
            fit = residual[a:b][good[a:b]]
            extra["residual_mm"] = round(float(fit.mean()), 4)
            extra["residual_mm_p95"] = round(float(np.percentile(fit, 95)), 4)
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
            channel_mask=track.observed,
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


def segments(audio: np.ndarray, longest: int) -> list[tuple[int, int]]:
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
