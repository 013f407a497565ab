"""Checks the training data without an accelerator and without JAX."""

from __future__ import annotations

from a2fjax.configuration import Config
from a2fjax.data import records
from a2fjax.errors import InputError


def check_shards(config: Config) -> None:
    """Checks that the shards exist and have the splits that training needs.

    Raises:
      InputError: a check failed; the message names the folder, the problem and the nearest valid
        choice.
    """
    if not config.data.shards:
        raise InputError("config: data.shards is empty: expected folders with a manifest.json")
    manifests = [records.read_manifest(folder) for folder in config.data.shards]
    splits = [config.data.split] + ([config.eval.split] if config.eval.every_steps else [])
    for split in splits:
        records.check_split(split, manifests, config.data.shards)
