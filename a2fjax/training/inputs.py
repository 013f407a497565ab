"""Provides batches to the training loop."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from a2fjax import rig
from a2fjax.batch import Batch
from a2fjax.configuration import Config
from a2fjax.data import loader, records


class Closable(Iterator[Batch], Protocol):
    """An iterator over batches that stops reading ahead when closed."""

    def close(self) -> None:
        """Stops threads and worker processes."""


class Inputs(Protocol):
    """Batches as a function of (seed, step, host), without a stored position."""

    def spec(self) -> Batch:
        """Returns a global batch of `jax.ShapeDtypeStruct`s without reading any files."""

    def batches(self, start_step: int) -> Closable:
        """Returns an endless iterator over this host's training batches from `start_step` on."""

    def eval_batches(self) -> Closable:
        """Returns this host's held-out batches, which are the same on each call."""

    def eval_sets(self, index: int) -> dict[str, np.ndarray]:
        """Returns the dataset of each example in this host's held-out batch `index`.

        Returns:
          Mask [examples] bool by name of the dataset, for the datasets in the global batch; the
          names and their order are the same on every host. Empty if there is only one dataset.
        """

    def describe(self, batch: Batch) -> list[str]:
        """Returns a name for each example of a training batch."""

    def fingerprint(self) -> str:
        """Returns hex digits that change if any batch would change."""

    def bad_records(self) -> int:
        """Returns the number of records that this process could not read so far."""


class ShardInputs:
    """Batches from the shards of a configuration."""

    def __init__(
        self,
        config: Config,
        *,
        host: int = 0,
        hosts: int = 1,
        cached: loader.FeatureSpecs | None = None,
    ) -> None:
        """Stores the settings; reads no files yet.

        Args:
          config: configuration of the run.
          host: index of this process.
          hosts: number of processes.
          cached: encoders whose hidden states are read from feature caches, by key.
        """
        self._cached = cached
        self._config = config
        self._host, self._hosts = host, hosts
        self._training: loader.Batches | None = None
        self._sets: tuple[tuple[str, ...], np.ndarray] | None = None

    def spec(self) -> Batch:
        """See `Inputs`."""
        return loader.spec(self._config, cached=self._cached)

    def batches(self, start_step: int) -> Closable:
        """See `Inputs`."""
        self._training = loader.batches(
            self._config,
            start_step=start_step,
            host=self._host,
            hosts=self._hosts,
            cached=self._cached,
        )
        return self._training

    def eval_batches(self) -> Closable:
        """See `Inputs`."""
        held_out = self._config.eval
        return loader.eval_batches(
            self._config,
            held_out.split,
            held_out.batches,
            host=self._host,
            hosts=self._hosts,
            cached=self._cached,
        )

    def eval_sets(self, index: int) -> dict[str, np.ndarray]:
        """See `Inputs`; datasets are named after their folders."""
        held_out = self._config.eval
        if len(self._config.data.shards) < 2:
            return {}
        if self._sets is None:
            self._sets = loader.eval_sets(self._config, held_out.split, held_out.batches)
        names, sets = self._sets
        part = len(sets[index]) // self._hosts
        own = sets[index][self._host * part : (self._host + 1) * part]
        return {names[k]: own == k for k in np.unique(sets[index])}

    def describe(self, batch: Batch) -> list[str]:
        """See `Inputs`; names have the clip id and the start in seconds."""
        assert self._training is not None
        entries = self._training.source.entries
        places = zip(batch.clip.tolist(), batch.start.tolist(), strict=True)
        return [f"{entries[clip].id} from {start / rig.FPS:.2f} s" for clip, start in places]

    def fingerprint(self) -> str:
        """See `Inputs`; covers the ids and lengths of clips and the statistics of datasets."""
        manifests = [records.read_manifest(Path(f)) for f in self._config.data.shards]
        text = json.dumps([m.statistics for m in manifests], sort_keys=True)
        return hashlib.sha256((loader.fingerprint(self._config) + text).encode()).hexdigest()[:16]

    def bad_records(self) -> int:
        """See `Inputs`."""
        return len(self._training.bad) if self._training is not None else 0
