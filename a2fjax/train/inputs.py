"""Where the loop's batches come from, as the loop sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from a2fjax.config import Config
from a2fjax.models.base import Batch


class Inputs(Protocol):
    """Batches as a function of (seed, step, host); holds no position of its own."""

    def spec(self) -> Any:
        """Returns a batch of this host as shapes and dtypes, without reading anything."""

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields this host's training batches number `start_step` and on, without end."""

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]:
        """Yields this host's held-out batches, the same ones each time."""

    def describe(self, batch: Batch) -> list[str]:
        """Returns a name for each example of a training batch, such as "clip at 1.2 s"."""

    def fingerprint(self) -> str:
        """Returns digits that change when the data do."""

    def bad_records(self) -> int:
        """Returns how many records this process could not read so far."""


class ShardInputs:
    """Batches of the shards that a configuration names; `a2fjax.data.loader` behind it."""

    def __init__(self, config: Config, *, host: int = 0, hosts: int = 1) -> None:
        """Reads no records yet.

        Args:
          config: of the run.
          host: number of this process.
          hosts: number of processes.
        """
        from a2fjax.data import loader

        self._loader = loader
        self._config = config
        self._host, self._hosts = host, hosts

    def spec(self) -> Any:
        """See `Inputs`."""
        return self._loader.spec(self._config)

    def batches(self, start_step: int) -> Iterator[dict[str, np.ndarray]]:
        """See `Inputs`."""
        return self._loader.batches(
            self._config,
            split=self._config.data.split,
            start_step=start_step,
            host=self._host,
            hosts=self._hosts,
            train=True,
            seed=self._config.seed,
        )

    def eval_batches(self) -> Iterable[dict[str, np.ndarray]]:
        """See `Inputs`."""
        return self._loader.eval_batches(
            self._config, self._config.eval.split, self._config.eval.batches
        )

    def describe(self, batch: Batch) -> list[str]:
        """See `Inputs`."""
        return [
            f"clip {c} at frame {s}" for c, s in zip(batch["clip"], batch["start"], strict=True)
        ]

    def fingerprint(self) -> str:
        """See `Inputs`; of the manifests, which name every clip."""
        text = hashlib.sha256()
        for folder in self._config.data.shards:
            text.update((Path(folder) / "manifest.json").read_bytes())
        return text.hexdigest()[:16]

    def bad_records(self) -> int:
        """See `Inputs`."""
        return 0
