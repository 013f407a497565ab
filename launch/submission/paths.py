"""The paths that a job reads and writes, which pods and containers must be able to see."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from a2fjax import user_cache
from launch import schedulers
from launch.jobs.spec import JobSpec
from launch.submission import preflight_features


def visible(
    specs: Sequence[JobSpec], writes: Sequence[str], reads: Sequence[str] = ()
) -> list[JobSpec]:
    """Returns specifications of one job with the options that make their paths visible.

    Args:
      specs: specifications that share a scheduler and its options.
      writes: absolute paths that they write.
      reads: paths that they read, beside those that the specifications name.

    Raises:
      InputError: the scheduler's jobs cannot see a path.
    """
    lead = specs[0]
    scheduler = schedulers.get(lead.scheduler)
    needed = list(reads)
    if scheduler.capabilities.remote:
        for spec in specs:
            needed += of_config(spec.config["config"]) if spec.config else []
    else:
        needed += [path for spec in specs for path in _local(spec)]
        # Relative paths of settings are resolved there.
        writes = [*writes, lead.directory]
    caches = {}
    if scheduler.contained(lead.options) and not scheduler.capabilities.remote:
        caches = _caches()
        needed += [path for path in caches.values() if path.startswith("/")]
    options = scheduler.with_paths(lead.options, list(dict.fromkeys(needed)), writes)
    return [
        dataclasses.replace(spec, options=options, environment={**caches, **spec.environment})
        for spec in specs
    ]


def of_config(config: Mapping[str, Any]) -> list[str]:
    """Returns the paths that a training reads: datasets, other runs, encoders.

    Args:
      config: the configuration as in config.json.
    """
    start = [config["init_from"]] if config.get("init_from") else []
    named = [feature.partition(":")[2] for feature in config["audio"]["features"]]
    encoders = [p for p in named if p and not preflight_features.HUB_NAME.fullmatch(p)]
    return [*config["data"]["shards"], *start, *config["loss"]["sync"], *encoders]


def of_words(words: Sequence[str]) -> list[str]:
    """Returns the absolute paths among the arguments of a command."""
    return [word for word in words if word.startswith("/")]


def _caches() -> dict[str, str]:
    """Returns the caches of this user by variable; a container has another home folder."""
    own, home = user_cache.folder(), os.path.expanduser("~/.cache")
    hub = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or os.path.join(home, "huggingface"), "hub"
    )
    variables = {} if own is None else {user_cache.VARIABLE: str(own), "HF_HUB_CACHE": hub}
    variables = {name: path for name, path in variables.items() if Path(path).is_dir()}
    return variables if own is not None else {user_cache.VARIABLE: "off"}


def _local(spec: JobSpec) -> Iterator[str]:
    """Yields the paths of this machine that a job may read."""
    texts = [*spec.command[1:], *_strings(spec.config or {}), *spec.data]
    for text in texts:
        for part in re.split(r"[=,:]", text):
            if part.startswith("/") and Path(part).exists():
                yield part
        if text.startswith("/"):  # A dependency may have yet to make it.
            yield text
    for path in spec.environment.get("PYTHONPATH", "").split(os.pathsep):
        if path.startswith("/") and Path(path).exists():
            yield path


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings(item)
