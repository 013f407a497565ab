"""The command `diff`: prints the differences between two runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from a2fjax import configuration
from a2fjax.errors import InputError
from launch.jobs import data_pins, direct, folders, record


def show(first: Path, second: Path) -> None:
    """Prints the differences between two runs: configuration, data, code, packages, resources.

    For a run made by `a2fjax train` directly, only the configuration is known, so nothing else is
    compared.

    Raises:
      InputError: one is a sweep, or a file is damaged.
    """
    for folder in (first, second):
        if record.is_sweep(folder):
            raise InputError(f"{folder.name}: is a sweep; give {folder.name}/TRIAL")
    a, b = _described(first), _described(second)
    if any(folders.is_training(folder) for folder in (first, second)):
        a = {k: v for k, v in a.items() if k.startswith("config.")}
        b = {k: v for k, v in b.items() if k.startswith("config.")}
        print("only the configuration is compared: a run of `a2fjax train` keeps no more")
    same = True
    for key in sorted({*a, *b}):
        if a.get(key) != b.get(key):
            print(f"{key}: {_shown(a.get(key))} -> {_shown(b.get(key))}")
            same = False
    if same:
        print("no difference")


def _described(run: Path) -> dict[str, Any]:
    if folders.is_training(run):
        values = configuration.flatten(direct.config(run)["config"])
        return {f"config.{key}": value for key, value in values.items()}
    spec = record.read(run)
    git = spec.git or {}
    described: dict[str, Any] = {
        "code": spec.snapshot,
        "git.commit": git.get("commit"),
        "git.dirty": git.get("dirty"),
        "experiment": spec.experiment,
        "experiment text": spec.experiment_sha256,
        "scheduler": spec.scheduler,
    }
    if spec.experiment is None:
        described["command"] = list(spec.command)
    groups: dict[str, Any] = {
        "config": spec.config["config"] if spec.config else {},
        "data": data_pins.pinned(run, spec),
        "package": dict(spec.packages),
        "resources": dataclasses.asdict(spec.resources),
        "environment": {k: v for k, v in spec.environment.items() if k != "PYTHONPATH"},
    }
    for name, values in groups.items():
        flat = values if name in ("data", "package") else configuration.flatten(values)
        described |= {f"{name}.{key}": value for key, value in flat.items()}
    return described


def _shown(value: Any) -> str:
    return "(none)" if value is None else repr(value)
