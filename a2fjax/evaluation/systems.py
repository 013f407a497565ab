"""What an evaluation measures: anything that has curves for clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from a2fjax import configuration as config_lib
from a2fjax.audio import sound_descriptor
from a2fjax.evaluation import conditions, eval_clips, eval_data
from a2fjax.training import sync_loss


class System(Protocol):
    """Curves for clips: of a model, or of files.

    Attributes:
      altered: names of the altered conditions in `curves`.
    """

    altered: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Returns the entries of the report that say what was measured."""

    def curves(self, chunk: Sequence[eval_clips.EvalClip]) -> dict[str, list[np.ndarray]]:
        """Returns the curves [T, 72] of each clip: "model" and every altered condition."""


class ModelSystem:
    """A model, with its altered conditions."""

    def __init__(
        self,
        model: eval_data.Model,
        data: eval_data.EvalData,
        *,
        run: str | None,
        seed: int,
        quick: bool,
        say: Callable[[str], None],
    ) -> None:
        """Takes a model and the data that were loaded for it; `quick` leaves out conditions."""
        self._model, self._data, self._run = model, data, run
        self._seed, self._say = seed, say
        self.altered = () if quick else conditions.names(model.config)

    def describe(self) -> dict[str, Any]:
        """Returns the entries of the report that say what was measured."""
        return {
            "run": self._run,
            "step": self._model.step,
            "lookahead_ms": getattr(self._model.config.model, "lookahead_ms", None),
            "model": self._model.fingerprint,
            "config": config_lib.fingerprint(self._model.config),
            "predictions": None,
            "sync_experts": self._sync_experts(),
        }

    def _sync_experts(self) -> list[dict[str, Any]]:
        """Returns the sync experts that the model was trained with, if any, as in the report."""
        found = [] if self._run is None else sync_loss.recorded(self._run)
        if found:
            return [dataclasses.asdict(record) for record in found]
        loss = self._model.config.loss
        return [{"run": run, "passed": not loss.sync_unchecked} for run in loss.sync_runs]

    def curves(self, chunk: Sequence[eval_clips.EvalClip]) -> dict[str, list[np.ndarray]]:
        """Returns the curves [T, 72] of each clip: "model" and every altered condition."""
        points, trained = self._data.points, self._data.trained
        self._say(f"{len(chunk)} clips, the model")
        unlike = sum(
            self._model.training.sound_distance(
                sound_descriptor.band_levels(s.clip.audio), s.clip.speech_level
            )
            > 1
            for s in chunk
        )
        if unlike:
            self._say(f"{unlike} of {len(chunk)} clips sound unlike the training data")
        out = {"model": self._model.batch([conditions.request(s, points, trained) for s in chunk])}
        for name in self.altered:
            self._say(f"{len(chunk)} clips, {name}")
            requests = [
                conditions.altered_request(name, i, chunk, points, trained, seed=self._seed)
                for i in range(len(chunk))
            ]
            out[name] = self._model.batch(requests)
        return out
