"""Caches of speech-encoder features beside shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from a2fjax import progress
from a2fjax.configuration import Config
from a2fjax.data import records
from a2fjax.errors import InputError


def cache(
    shards: Sequence[str | Path],
    config: Config,
    *,
    part: tuple[int, int] | None = None,
    finish: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Writes the features of frozen speech encoders, for `data.encoder_features="cached"`.

    Example:
        >>> cache([], Config())
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: audio.features=mel: no speech encoder among them; name...

    Args:
      shards: folders with a manifest.json.
      config: whose `audio` names the encoders.
      part: (I, N) writes only every N-th file, from the I-th on.
      finish: only checks that every file exists, and completes the cache.
      say: called with each line of progress.

    Returns:
      The folder of each cache.

    Raises:
      InputError: no encoder is named, or as `a2fjax.data.feature_cache.writer.write`.
      WorkFailed: as there.
    """
    for folder in shards:
        records.read_manifest(folder)
    if not any(":" in name for name in config.audio.features):
        raise InputError(
            f"audio.features={','.join(config.audio.features)}: no speech encoder among them; name "
            "one with --features, such as whisper:PATH"
        )
    from a2fjax.data.feature_cache import writer
    from a2fjax.models import pretrained
    from a2fjax.sharding import compilation_cache

    compilation_cache.enable()
    with progress.shown("loading the encoders", say):
        encoders = pretrained.load(config.audio)
    folders = []
    for folder in shards:
        for key, (encoder, params) in encoders.items():
            say(f"{folder}: {key}, {encoder.num_states} states of {encoder.width}")
            path = writer.write(
                folder,
                encoder,
                params,
                part=part,
                finish=finish,
                say=lambda line: say(f"  {line}"),
            )
            size = sum(file.stat().st_size for file in path.iterdir())
            say(f"  {path}: {size / 1e6:,.1f} MB")
            folders.append(path)
    return folders
