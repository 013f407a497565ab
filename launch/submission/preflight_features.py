"""Checks a feature cache on submission, before anything is queued."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from a2fjax import configuration
from a2fjax.configuration import Config, Resolved
from a2fjax.data import records
from a2fjax.data.feature_cache import format as cache_format
from a2fjax.errors import InputError

FOLDER = cache_format.FOLDER
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""Form of a model's name on the hub."""


def files(shards: str) -> int:
    """Returns the number of files in a dataset, the largest useful number of elements.

    Raises:
      InputError: there is no dataset, or it is damaged.
    """
    return len(records.read_manifest(shards).shards)


def check(
    features: str | None, experiment: str | None, settings: Mapping[str, str], *, remote: bool
) -> tuple[list[str], Resolved | None]:
    """Checks the encoders to cache, without jax and without reading weights.

    Args:
      features: value of `--features`.
      experiment: value of `--config`.
      settings: `--config.` values by name.
      remote: whether paths are those of a container, which this machine cannot check.

    Returns:
      paths that the job must be able to read, and the configuration; None for an experiment that
      only the image has.

    Raises:
      InputError: the experiment, a setting or the encoder's weights do not exist, or there is no
        encoder among the features.
    """
    overrides = dict(settings)
    if features:
        overrides["audio.features"] = features
    file = (experiment or "").partition(":")[0]
    paths = [absolute(file, "--config", remote)] if file else []
    if file and remote and not Path(file).is_file():
        if not features:
            return paths, None  # The experiment exists inside the image only.
        experiment = None
    resolved = configuration.load(experiment, overrides)
    audio = resolved.config.audio
    encoders = [name for name in audio.features if ":" in name]
    if not encoders:
        raise InputError(
            f"features {', '.join(audio.features)}: no speech encoder among them; name one with "
            "--features, such as whisper:PATH"
        )
    for name in encoders:
        path = name.partition(":")[2]
        if not path:
            raise InputError(f"feature {name!r}: expected {name}PATH")
        if not remote and Path(path).exists():
            continue
        if HUB_NAME.fullmatch(path):
            if not remote and not _in_hub(path):
                raise InputError(
                    f"feature {name!r}: no such file or folder, nor a model in the hub's cache"
                )
            continue
        if not remote:
            raise InputError(f"feature {name!r}: {path} does not exist")
        paths.append(absolute(path, f"feature {name!r}", remote))
    return paths, resolved


def only_encoders(resolved: Resolved) -> Resolved:
    """Returns the part of a configuration that a feature cache depends on."""
    config = resolved.config
    kept = dataclasses.replace(
        Config(), name=config.name, audio=config.audio, plugins=config.plugins
    )
    sources = {
        key: where
        for key, where in resolved.sources.items()
        if key.startswith("audio.") or key in ("name", "plugins")
    }
    return Resolved(kept, sources, resolved.plugins)


def absolute(path: str, what: str, remote: bool) -> str:
    """Returns a path, which for remote jobs must be absolute.

    Raises:
      InputError: it is not.
    """
    if remote and not path.startswith("/"):
        raise InputError(f"{what}: {path}: expected the absolute path inside the containers")
    return path


def _in_hub(name: str) -> bool:
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir()
