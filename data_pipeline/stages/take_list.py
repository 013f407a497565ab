"""Lists the takes of a build, held-out actors, and the takes of each array element."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from a2fjax.errors import InputError, nearest
from data_pipeline.execution import content_key
from data_pipeline.settings import BuildSettings
from data_pipeline.sources import Actor, Take
from data_pipeline.stages import splits


@dataclasses.dataclass(frozen=True)
class TakeEntry:
    """A take whose files exist.

    Attributes:
      actor: the take's actor.
      take: the take.
      stamp: digest of the names, sizes and times of its files.
      actor_stamp: the same for all files of the actor.
      size: bytes of motion.
    """

    actor: Actor
    take: Take
    stamp: str
    actor_stamp: str
    size: int

    @property
    def name(self) -> str:
        """Names of the actor and the take: `actor/take`."""
        return f"{self.actor.name}/{self.take.name}"


def list_takes(
    actors: list[Actor], root: Path, settings: BuildSettings
) -> tuple[list[TakeEntry], dict[str, str]]:
    """Lists the takes whose files exist; reads no contents.

    Args:
      actors: actors of the source.
      root: folder that stamps are relative to.
      settings: build settings.

    Returns:
      The takes, actors with the most bytes first, and the reason for each omitted take.
    """
    rig_files = [Path(settings.rig)] if settings.rig else []
    rig_stamp = content_key.stat_files(rig_files, root).stamp
    rejected = {f"{a.name}/{take}": reason for a in actors for take, reason in a.rejected}
    by_actor = []
    for actor in actors:
        listed = []
        for take in actor.takes:
            try:
                motion = content_key.stat_files(take.data, root)
                audio = content_key.stat_files([take.audio] if take.audio else [], root)
                stamp = content_key.digest([motion.stamp, audio.stamp])
                listed.append((take, stamp, motion.size))
            except InputError as error:
                rejected[f"{actor.name}/{take.name}"] = str(error)
        if listed:
            take_stamps = [stamp for _, stamp, _ in listed]
            own_stamp = content_key.stat_files(actor.files, root).stamp
            actor_stamp = content_key.digest([actor.name, own_stamp, take_stamps, rig_stamp])
            by_actor.append([TakeEntry(actor, t, s, actor_stamp, size) for t, s, size in listed])
    # Start with the largest, so that no process is left with much work at the end; keep an actor's
    # takes together, so that their shapes are read once.
    by_actor.sort(key=lambda entries: (-sum(e.size for e in entries), entries[0].actor.name))
    return [entry for entries in by_actor for entry in entries], rejected


def array_element(entries: list[TakeEntry], number: int, count: int) -> list[TakeEntry]:
    """Returns the takes of an array element: consecutive ones, about equal in bytes.

    Args:
      entries: all takes.
      number: number of the element, from 1 to `count`.
      count: number of elements that share the work.
    """
    total, before, chosen = sum(e.size for e in entries) or 1, 0, []
    for entry in entries:
        # Use integers, so that rounding cannot lose takes between elements or after the last.
        element = (2 * before + entry.size) * count // (2 * total)
        if min(element, count - 1) == number - 1:
            chosen.append(entry)
        before += entry.size
    return chosen


def check_sentences(actors: list[Actor], settings: BuildSettings) -> None:
    """Checks that the sentence keys named in the settings exist.

    Raises:
      InputError: no take has such a sentence.
    """
    keys = {t.sentence for a in actors for t in a.takes if not t.slate}
    for setting in ("test_sentences", "val_sentences"):
        for key in getattr(settings, setting):
            if key not in keys:
                raise InputError(f"config: {setting}: no take says {key!r}{nearest(key, keys)}")


def held_out_actors(actors: list[Actor], settings: BuildSettings) -> set[str]:
    """Returns the held-out actors: those named in settings, else stated by captures, else drawn.

    Raises:
      InputError: a named actor does not exist.
    """
    names = [a.name for a in actors]
    for name in settings.held_out:
        if name not in names:
            raise InputError(f"config: held_out: no actor {name!r}{nearest(name, names)}")
    if settings.held_out:
        return set(settings.held_out)
    stated = {
        a.name: any(t.held_out for t in a.takes)
        for a in actors
        if any(t.held_out is not None for t in a.takes)
    }
    drawn = splits.held_out_subjects(
        (n for n in names if n not in stated), seed=settings.seed, share=settings.held_out_share
    )
    return {name for name, held_out in stated.items() if held_out} | drawn
