"""Code of plugins, pinned: which source files a run's own parts came from."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from a2fjax import registry
from a2fjax.configuration.experiment import Config

_reported: set[str] = set()


def digests(config: Config) -> dict[str, str]:
    """Returns a digest of the source of every package that a configuration takes parts from.

    These are the packages of `config.plugins` and `config.task`, and those installed under the
    entry point group `a2fjax.plugins` that the model, a loss term or an encoder comes from.

    Returns:
      16 hex digits by top-level package; they change when any of its Python files does.
    """
    used = [registry.models.get(config.model.kind)] if config.model.kind else []
    used += [registry.losses.get(name) for name in config.loss.terms]
    kinds = [feature.partition(":")[0] for feature in config.audio.features if ":" in feature]
    used += [registry.encoders.get(kind) for kind in kinds]
    module, colon, _ = config.task.partition(":")
    if module and not colon:
        used.append(registry.models.get(module))
    names = [*config.plugins, *([module] if colon else [])]
    packages = {name.partition(".")[0] for name in names} | {entry.origin for entry in used}
    # Parts that a notebook or script defines have no package that could be pinned.
    return {name: _digest(name) for name in sorted(packages - {"a2fjax", "__main__"})}


def source_files(package: str) -> dict[str, Path]:
    """Returns the Python files of a top-level package or module, by path relative to its parent."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return {}
    if spec.submodule_search_locations is None:
        return {Path(spec.origin).name: Path(spec.origin)} if spec.origin else {}
    modules = {}
    for folder in map(Path, spec.submodule_search_locations):
        for path in sorted(folder.rglob("*.py")):
            modules[str(Path(package) / path.relative_to(folder))] = path
    return modules


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Returns which packages are not the pinned ones, in one line; "" when all are.

    Example:
        >>> changes({"pack": "aa"}, {"pack": "bb"})
        "plugin 'pack' has other code (was aa, is bb)"
    """
    parts = []
    for name in sorted({*before, *now}):
        was, digest = before.get(name), now.get(name)
        if was is None:
            parts.append(f"plugin {name!r} was not used")
        elif digest is None:
            parts.append(f"plugin {name!r} (code {was}) is not used any more")
        elif was != digest:
            parts.append(f"plugin {name!r} has other code (was {was}, is {digest})")
    return "; ".join(parts)


def warn(name: str, before: Mapping[str, str], config: Config) -> None:
    """Logs one line where a run's plugins have changed since it was trained; once a process.

    Args:
      name: of the run, for the message.
      before: digests that were saved with it.
      config: its configuration, whose plugins are imported.
    """
    text = changes(before, digests(config))
    message = f"{name}: {text}; results may differ from those of its training"
    if text and message not in _reported:
        _reported.add(message)
        logging.getLogger("a2fjax").warning("warning: %s", message)


def _digest(package: str) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(source_files(package).items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
