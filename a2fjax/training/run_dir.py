"""Manages the run folder: records its configuration and checks whether a run may continue."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from a2fjax import budgets, files
from a2fjax import configuration as config_lib
from a2fjax.bundle import manifest
from a2fjax.configuration import Config, Resolved, plugins
from a2fjax.errors import InputError

FREE = (
    "allow_plugin_changes",
    "steps",
    "accumulate",
    "remat",
    "log",
    "checkpoint",
    "eval",
    "sharding",
    "data.workers",
    "data.threads",
    "data.prefetch",
)
"""Keys that may change when a run is continued. They set its length, hardware and logging, not the
training objective. Another device mesh gives the same numbers up to the order of sums; another
`accumulate` draws other noise. More steps stretch the rest of the learning-rate schedule."""


def identity(config: Config) -> str:
    """Returns 16 hex digits that change with any key of the configuration except `FREE` keys."""
    return config_lib.digest({k: v for k, v in _flat(config).items() if not _is_free(k)})


@contextlib.contextmanager
def claim(workdir: Path, resolved: Resolved) -> Iterator[None]:
    """Makes `workdir` the run folder of a configuration and locks it for this process.

    In a new folder config.json is written before anything else; an existing one is kept until
    `record`. The lock lasts until the context ends, so two processes never train in one folder.

    Raises:
      InputError: the folder belongs to another configuration (the message names the keys that
        differ), holds checkpoints of unknown origin, is in use, or cannot be created.
    """
    check(workdir, resolved)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        held = files.open_append(workdir / "lock")
    except OSError as error:
        raise InputError(f"--workdir {workdir}: cannot be written ({error.strerror})") from None
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"--workdir {workdir}: another process is training in this folder; wait for it, or "
                "take another folder"
            ) from None
        except OSError:
            pass  # The file system does not support locks, so the check is skipped.
        if not (workdir / "config.json").is_file():
            record(workdir, resolved)
        yield


def check(workdir: Path, resolved: Resolved) -> None:
    """Checks that a configuration may train in a folder, without changing the folder.

    Raises:
      InputError: a bundle, or as `claim`, except for a folder that is in use or cannot be created.
    """
    if workdir.exists() and not workdir.is_dir():
        raise InputError(f"--workdir {workdir}: is a file, expected a folder")
    if manifest.is_bundle(workdir):
        raise InputError(
            f"--workdir {workdir}: is a bundle, which cannot be trained on; start from it with "
            f"--config.init_from={workdir} in another folder"
        )
    path = workdir / "config.json"
    if path.is_file():
        before = config_lib.from_json(budgets.read_bytes(path), name=str(path))
        changed = differences(before.config, resolved.config)
        bound = {k: v for k, v in changed.items() if not _is_free(k)}
        if bound:
            shown = "; ".join(f"{k} was {a!r}, now {b!r}" for k, (a, b) in list(bound.items())[:5])
            more = f"; and {len(bound) - 5} more" if len(bound) > 5 else ""
            raise InputError(
                f"--workdir {workdir} holds a run of another configuration: {shown}{more}; "
                "take another folder, or the old values to continue it"
            )
        code = plugins.changes(before.plugins, resolved.plugins)
        if code and not resolved.config.allow_plugin_changes:
            raise InputError(
                f"--workdir {workdir}: {code}; expected the code that the run was trained with, or "
                "--config.allow_plugin_changes=true to continue with this one"
            )
        return
    for name in ("checkpoints", "encoders"):
        if (workdir / name).exists():
            raise InputError(f"--workdir {workdir}: holds {name} but no config.json")


def record(workdir: Path, resolved: Resolved) -> None:
    """Writes config.json; call it once the run can continue with this configuration."""
    path = workdir / "config.json"
    text = resolved.to_json() + "\n"
    if path.is_file() and path.read_text() == text:
        return
    files.write_text(path, text)


def differences(before: Config, after: Config) -> dict[str, tuple[Any, Any]]:
    """Returns dotted key -> (value before, value after) where two configurations differ."""
    a, b = _flat(before), _flat(after)
    return {k: (a.get(k), b.get(k)) for k in sorted({*a, *b}) if a.get(k) != b.get(k)}


def _is_free(key: str) -> bool:
    return any(key == free or key.startswith(free + ".") for free in FREE)


def _flat(config: Config) -> dict[str, Any]:
    # Convert through JSON like config.json, which stores tuples as lists.
    return config_lib.flatten(json.loads(json.dumps(dataclasses.asdict(config), default=dict)))
