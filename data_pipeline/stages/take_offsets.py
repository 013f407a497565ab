"""Offsets of an actor's takes by a sync expert, on the clocks that were found without it.

A take's votes are stored under a content key, so that a killed build and one with other rules do
not ask the expert again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, files, rig
from a2fjax.errors import InputError, WorkFailed
from a2fjax.sync import offsets
from data_pipeline.execution import content_key
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Take
from data_pipeline.stages.solved_take import SolvedTake
from data_pipeline.stages.sync_expert import SyncExpert
from data_pipeline.stages.take_frames import on_audio_clock
from data_pipeline.timing import clocks
from data_pipeline.timing.expert_offset import Rules, Said

FOLDER = "offsets"


@dataclasses.dataclass(frozen=True)
class JudgedTake:
    """A take to be judged.

    Attributes:
      take: the take.
      solved: file of its curves.
      key: content key of that file.
      clock: the take's clock.
    """

    take: Take
    solved: Path
    key: str
    clock: clocks.Clock

    @property
    def speaks(self) -> bool:
        """Whether the take may hold speech."""
        return self.take.audio is not None and not self.take.slate


def rules(settings: BuildSettings) -> Rules:
    """Returns the rules of a build."""
    return Rules(settings.sync_offset, settings.sync_largest, settings.sync_confidence)


def base_key(expert: SyncExpert, settings: BuildSettings) -> list[Any]:
    """Returns what the votes of all takes depend on, as JSON values."""
    return [content_key.package_digest("a2fjax.sync"), expert.weights, settings.sync_search]


def judge(
    takes: Sequence[JudgedTake], expert: SyncExpert, settings: BuildSettings, work: Path
) -> tuple[dict[str, Said], dict[str, str]]:
    """Returns what the expert says of each take of one actor, and the keys of the votes, by name.

    Takes that share a clock (`clock=actor`; those with timecodes among themselves) share an offset.

    Raises:
      OSError, WorkFailed, MemoryError: the disk or the machine fails.
    """
    speaking = [take for take in takes if take.speaks]
    votes: dict[str, offsets.Votes] = {}
    keys: dict[str, str] = {}
    if speaking:
        mean, deviation = _statistics(speaking)
        base = base_key(expert, settings)
        base += [content_key.code_digest("stages.take_offsets"), mean.tolist(), deviation.tolist()]
        for take in speaking:
            key = content_key.digest([base, take.key, dataclasses.asdict(take.clock)])
            keys[take.take.name] = key
            file = work / FOLDER / f"{key}.npz"
            found = _read(file)
            if found is None:
                found = _cast(take, expert, settings, mean, deviation, file)
            votes[take.take.name] = found
    return _said(takes, votes, settings), keys


def _said(
    takes: Sequence[JudgedTake], votes: Mapping[str, offsets.Votes], settings: BuildSettings
) -> dict[str, Said]:
    def find(cast: offsets.Votes, name: str) -> offsets.Offset | None:
        return offsets.find(cast, name, seed=settings.seed, least_range=settings.sync_largest)

    groups: dict[Any, list[Take]] = {}
    for take in (judged.take for judged in takes):
        one = settings.clock == "take"
        groups.setdefault(take.name if one else take.offset is not None, []).append(take)
    said = {}
    for group in groups.values():
        cast = [votes[take.name] for take in group if take.name in votes]
        shares = len(group) > 1
        shared = find(offsets.pooled(cast), group[0].subject) if shares else None
        for take in group:
            alone = votes.get(take.name, offsets.NO_VOTES)
            own = find(alone, take.name)
            said[take.name] = Said(own, shared if shares else own, shares, len(alone.curves))
    return said


@dataclasses.dataclass(frozen=True)
class _Curves:
    motion: np.ndarray
    frame_mask: np.ndarray
    channel_mask: np.ndarray


def _statistics(takes: Sequence[JudgedTake]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and deviation [72] of an actor's channels, at the rate of the capture."""
    from a2fjax.tasks import people

    def curves() -> Iterator[_Curves]:
        for take in takes:
            solved = SolvedTake.load(take.solved)
            whole = np.isfinite(solved.curves[:, solved.observed]).all(1)
            yield _Curves(np.nan_to_num(rig.clip(solved.curves)), whole, solved.observed)

    return people.pooled(curves())


def _cast(
    take: JudgedTake,
    expert: SyncExpert,
    settings: BuildSettings,
    mean: np.ndarray,
    deviation: np.ndarray,
    file: Path,
) -> offsets.Votes:
    from a2fjax.sync import votes

    solved = SolvedTake.load(take.solved)
    try:
        frames = on_audio_clock(take.take, solved, take.clock)
    except InputError:
        return offsets.NO_VOTES  # The take is left out with this reason when its clips are cut.
    motion = np.nan_to_num(frames.motion)
    recording = votes.Recording(frames.audio, motion, frames.valid, solved.observed)
    found = votes.cast(expert.load(), recording, mean, deviation, settings.sync_search)
    with files.atomic_write(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, curves=found.curves)
    return found


def _read(file: Path) -> offsets.Votes | None:
    if not file.is_file():
        return None
    try:
        with archives.load_npz(file) as data:
            curves = np.array(data["curves"])
        if curves.ndim != 2 or curves.shape[1] % 2 != 1:
            raise ValueError(f"curves of shape {curves.shape}")
    except (ValueError, KeyError, TypeError) as error:
        file.unlink(missing_ok=True)
        raise WorkFailed(f"{file}: was damaged ({error}) and is removed; run it again") from None
    return offsets.Votes(curves)
