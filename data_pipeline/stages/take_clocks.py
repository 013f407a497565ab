"""The clocks of an actor's takes, as lips and loudness find them and a sync expert leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import rig
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Take
from data_pipeline.stages import take_offsets
from data_pipeline.stages.solved_take import SolvedTake
from data_pipeline.stages.sync_expert import SyncExpert
from data_pipeline.timing import clocks, expert_offset

SILENCE = clocks.Clock(0.0, "silence", 1.0)
"""Clock of a take that was performed in silence: there is no other one."""

Keyed = Sequence[tuple[Take, str]]
"""Takes, each with the content key of its solution."""


def solved_file(work: Path, key: str) -> Path:
    """Returns the file of a take's solution in a folder of intermediate results."""
    return work / "takes" / f"{key}.npz"


def find(
    takes: Keyed, settings: BuildSettings, work: Path, expert: SyncExpert | None
) -> tuple[dict[str, clocks.Clock], dict[str, dict[str, Any]]]:
    """Returns the clock of each take by name, and what the expert says of those with sound.

    Args:
      takes: all takes of an actor.
      settings: build settings.
      work: folder of intermediate results.
      expert: the sync expert that judges the clocks, or None.

    Returns:
      The clocks, and `expert_offset.summary` by take with "votes_key" added.

    Raises:
      OSError, WorkFailed, MemoryError: the disk or the machine fails.
    """
    signals = _signals(takes, work)
    found = _estimated(takes, signals, settings)
    if expert is None:
        return found, {}
    return _judged(takes, signals, found, settings, work, expert)


def _signals(takes: Keyed, work: Path) -> dict[str, clocks.Signals]:
    signals = {}
    for take, key in takes:
        if take.audio is None:
            continue
        solved = SolvedTake.load(solved_file(work, key))
        signals[take.name] = clocks.Signals(
            name=take.name,
            slate=take.slate,
            envelope=solved.envelope,
            clicks=solved.clicks,
            times=solved.times,
            aperture=rig.aperture(solved.curves),
            stated_offset=take.offset,
        )
    return signals


def _estimated(
    takes: Keyed, signals: Mapping[str, clocks.Signals], settings: BuildSettings
) -> dict[str, clocks.Clock]:
    estimates = clocks.estimate_clocks(
        list(signals.values()),
        given=settings.given_offset(),
        limit=settings.largest_offset,
        least_confidence=settings.least_confidence,
        per_take=settings.clock == "take",
        correct_drift=settings.drift == "correct",
    )
    by_name = dict(zip(signals, estimates, strict=True))
    return {take.name: by_name.get(take.name, SILENCE) for take, _ in takes}


def _judged(
    takes: Keyed,
    signals: Mapping[str, clocks.Signals],
    found: Mapping[str, clocks.Clock],
    settings: BuildSettings,
    work: Path,
    expert: SyncExpert,
) -> tuple[dict[str, clocks.Clock], dict[str, dict[str, Any]]]:
    asked = [
        take_offsets.JudgedTake(take, solved_file(work, key), key, found[take.name])
        for take, key in takes
    ]
    said, votes = take_offsets.judge(asked, expert, settings, work)
    rules = take_offsets.rules(settings)
    after, summaries = dict(found), {}
    for name, signal in signals.items():
        if signal.slate:
            continue
        made = expert_offset.decide(found[name].method, said[name], rules)
        summary = expert_offset.summary(said[name], made)
        summaries[name] = {**summary, "votes_key": votes.get(name, "")}
        after[name] = expert_offset.apply(signal, found[name], said[name], made, rules)
    return after, summaries
