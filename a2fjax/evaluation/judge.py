"""The judge of an evaluation: a sync expert that passed its gate and trained none of the systems.

Whoever is trained to please an expert pleases it more than anybody else, so a run is never judged
by the expert of its own loss, and better not by a sibling of it: the judge should have another
seed, another architecture and other negatives.
"""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets
from a2fjax import configuration as config_lib
from a2fjax.data import records
from a2fjax.errors import InputError
from a2fjax.metrics.sync import SEARCH
from a2fjax.sync import clips, measures, verdict
from a2fjax.sync.expert import Expert
from a2fjax.training import sync_experts, sync_loss

WINDOW = measures.WINDOWS[-1]
"""Frames of the windows that are scored: 0.6 s."""

_OFFSETS = tuple(range(SEARCH, -SEARCH - 1, -1))
"""Offsets of the audio for lateness -20 ... 20 of the motion: what is late belongs to audio before
it."""


@dataclasses.dataclass(frozen=True)
class JudgedClip:
    """A clip before the judge.

    Attributes:
      expert: the judge's.
      take: the clip with the true motion, and the statistics of its person.
    """

    expert: Expert
    take: clips.Take

    @functools.cached_property
    def windows(self) -> np.ndarray:
        """[T' - WINDOW + 1] bool: windows that count, by first frame; T' frames with padding."""
        take = self.take
        return measures.counted(take.batch, take.statistics, WINDOW, 0, SEARCH)

    @functools.cached_property
    def truth_scores(self) -> np.ndarray:
        """`scores` of the true motion."""
        return self.scores(self.take.batch.motion[0, : self.take.frames])

    def scores(self, motion: np.ndarray, channels: np.ndarray | None = None) -> np.ndarray:
        """Returns the scores [41, N] by lateness of the motion and window that counts.

        A window in which the motion is still (`measures.LEAST_MOTION`) has the score 0.

        Args:
          motion: [T, 72] in rig units.
          channels: [72] bool, channels that the judge may see; None for all that are observed.
        """
        if not self.windows.any():
            return np.zeros((len(_OFFSETS), 0), np.float32)
        batch = self.take.batch
        padded = np.zeros_like(batch.motion)
        padded[0, : self.take.frames] = motion
        if channels is not None:
            batch = batch.replace(channel_mask=batch.channel_mask & channels)
        batch = batch.replace(motion=padded)
        vectors = self.expert.embed(batch, self.take.statistics)
        found = measures.window_scores(self.expert, *vectors, WINDOW, _OFFSETS)
        # Of what does not move an expert has learned nothing, and a correlation is rounding.
        still = ~measures.moving(batch, self.take.statistics, WINDOW)
        return np.where(still, 0.0, found)[:, self.windows]

    def scores_of_other(self, other: JudgedClip) -> np.ndarray:
        """Returns the scores of the true motion of another clip beside this clip's sound."""
        batch = clips.other_motion(self.take, other.take)
        return self.scores(batch.motion[0, : self.take.frames], batch.channel_mask[0])


@dataclasses.dataclass(frozen=True)
class Judge:
    """A sync expert in the place of a judge.

    Attributes:
      expert: what scores windows.
      run: its run folder.
      step: of its checkpoint.
      weights: `verdict.fingerprint` of its variables.
      kind: of the network, such as "syncnet".
      seed: of its training.
      passed: whether it passed its gate; False only where that was not asked.
      gate: by split {"people", "clips", "curve"} of its gate; empty if it has none.
    """

    expert: Expert
    run: str
    step: int
    weights: str
    kind: str
    seed: int
    passed: bool
    gate: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """Returns what a report says of the judge."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)[1:]}

    def seated(self, found: Sequence[records.Clip], people: Sequence[str]) -> list[JudgedClip]:
        """Returns clips before the judge, in order.

        Args:
          found: clips; all of a person together, whose statistics they are.
          people: the person of each clip.
        """
        out: dict[int, JudgedClip] = {}
        for person in dict.fromkeys(people):
            own = [i for i, name in enumerate(people) if name == person]
            takes = clips.takes(person, [found[i] for i in own])
            out |= {i: JudgedClip(self.expert, take) for i, take in zip(own, takes, strict=True)}
        return [out[i] for i in range(len(found))]


def load(run: str | Path, *, unchecked: bool = False) -> Judge:
    """Loads the judge of a run folder.

    Args:
      run: run folder of a sync expert.
      unchecked: take one that did not pass its gate; reports say so.

    Raises:
      InputError: not a sync expert, or one that has not passed its gate.

    Example:
        >>> load("nowhere")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: sync expert nowhere does not exist; expected a run of...
    """
    loaded = sync_experts.load_checked(run, unchecked=unchecked)
    path = verdict.path_of(run, loaded.step)
    values = verdict.read(path) if path.is_file() else {}
    if values.get("weights") != loaded.weights:
        values = {}
    return Judge(
        expert=loaded.expert,
        run=str(run),
        step=loaded.step,
        weights=loaded.weights,
        kind=loaded.config.model.kind,
        seed=loaded.config.seed,
        passed=loaded.passed,
        gate={
            split: {key: part[key] for key in ("people", "clips", "curve")}
            for split, part in values.get("splits", {}).items()
        },
    )


def refuse_if_trained_with(
    run: str | os.PathLike[str], judge: Judge, *, say: Callable[[str], None] = lambda line: None
) -> None:
    """Refuses a judge that was an expert in the loss of a run; tells of one that is like it.

    Args:
      run: run folder, whose record names the experts of its loss.
      judge: the judge.
      say: called with one line for an expert of the same kind or seed.

    Raises:
      InputError: the judge's weights are those of an expert of the run's loss, or a damaged record.
    """
    for expert in sync_loss.recorded(Path(run)):
        if expert.weights == judge.weights:
            raise InputError(
                f"--sync {judge.run}: is the expert that trained {run} (weights {judge.weights}); "
                "expected a judge of another seed, architecture and negatives"
            )
        alike = [
            f"{name} {mine}"
            for name, mine, theirs in (
                ("kind", judge.kind, expert.kind),
                ("seed", judge.seed, _seed(expert.run)),
            )
            if mine == theirs
        ]
        if alike:
            say(
                f"the judge {judge.run} is like the expert that trained {run} "
                f"({', '.join(alike)}): a judge of another kind, seed and negatives is worth more"
            )


def _seed(run: str) -> int | None:
    """Returns the seed of the run of an expert, None where its folder is gone."""
    path = Path(run) / "config.json"
    if not path.is_file():
        return None
    return config_lib.from_json(budgets.read_bytes(path), name=str(path)).config.seed
