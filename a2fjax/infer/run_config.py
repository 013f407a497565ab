"""Reads the configuration of a run folder without importing JAX."""

from __future__ import annotations

from pathlib import Path

from a2fjax import budgets
from a2fjax import configuration as config_lib
from a2fjax.errors import InputError


def read_config(run: str | Path) -> config_lib.Resolved:
    """Returns the configuration of a run folder.

    Raises:
      InputError: no such folder, or not a run folder.
    """
    run = Path(run)
    path = run / "config.json"
    if not path.is_file():
        problem = "is not a run folder (no config.json)" if run.is_dir() else "does not exist"
        raise InputError(f"run {run} {problem}; expected a folder that `a2fjax train` wrote")
    resolved = config_lib.from_json(budgets.read_bytes(path), name=str(path))
    config_lib.warn_plugin_changes(f"run {run}", resolved.plugins, resolved.config)
    return resolved
