"""What can be told at the desk about caches of speech encoders, before anything is queued."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from a2fjax import config
from a2fjax.data import records
from a2fjax.data.feature_cache import reader
from a2fjax.errors import InputError

FOLDER = reader.FOLDER
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def files(shards: str) -> int:
    """Returns how many files a set of shards has, each of which is work for a part.

    Raises:
      InputError: no set is there, or it is damaged.
    """
    return len(records.read_manifest(shards).shards)


def check(
    features: str | None, experiment: str | None, settings: Mapping[str, str], *, here: bool
) -> list[str]:
    """Checks what is to be cached, as far as that takes neither jax nor reading weights.

    Args:
      features: of `--features`, as on the command line.
      experiment: of `--config`.
      settings: of `--config.` by name.
      here: whether paths are those of this machine rather than of a container.

    Returns:
      The paths that the job must see.

    Raises:
      InputError: no such experiment or setting, no encoder among the features, or its weights are
        not there.
    """
    overrides = dict(settings)
    if features:
        overrides["audio.features"] = features
    file = (experiment or "").partition(":")[0]
    paths = [_seen(file, "--config", here)] if file else []
    if file and not here and not Path(file).is_file():
        if not features:
            return paths  # Known inside the image only.
        experiment = None
    audio = config.load(experiment, overrides).config.audio
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
        if here and Path(path).exists():
            continue
        if _HUB_NAME.fullmatch(path):
            if here and not _in_hub(path):
                raise InputError(
                    f"feature {name!r}: no such file or folder, nor a model in the hub's cache"
                )
            continue
        if here:
            raise InputError(f"feature {name!r}: {path} does not exist")
        paths.append(_seen(path, f"feature {name!r}", here))
    return paths


def _seen(path: str, what: str, here: bool) -> str:
    if not here and not path.startswith("/"):
        raise InputError(f"{what}: {path}: expected the absolute path inside the containers")
    return path


def _in_hub(name: str) -> bool:
    from huggingface_hub import constants

    return (Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}").is_dir()
