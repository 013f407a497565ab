"""Checks and lists the feature caches of a dataset."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from a2fjax.data import records
from a2fjax.data.feature_cache import format as cache_format
from a2fjax.data.feature_cache.format import FeatureSpec
from a2fjax.errors import InputError


def check(shards: str | Path, spec: FeatureSpec, manifest: records.Manifest, key: str) -> None:
    """Checks that a dataset has a complete and current cache of an encoder.

    Args:
      shards: folder of the dataset.
      spec: identifies the encoder.
      manifest: manifest of the dataset.
      key: key of the encoder, for the message.

    Raises:
      InputError: the cache is missing, unfinished, or made from other clips or audio, or a file is
        missing or has changed.
    """
    folder = spec.folder(shards)
    if not (folder / "manifest.json").is_file():
        others = [c.folder.name for c in caches(shards, manifest) if c.folder != folder]
        have = f" (there: {', '.join(others)})" if others else ""
        state = "is not finished" if folder.is_dir() else f"is missing{have}"
        raise InputError(f"{folder}: the cache of encoder {key} {state}; {_hint(shards)}")
    try:
        values = cache_format.read_manifest(folder)
    except InputError as error:
        raise InputError(f"{error}; {_hint(shards)}") from None
    if values["clips"] != cache_format.clips_digest(manifest):
        raise InputError(
            f"{folder}: was made of other clips or sounds than {shards} has now; {_hint(shards)}"
        )
    for shard in manifest.shards:
        try:
            size = (folder / shard.file).stat().st_size
        except OSError:
            size = -1
        if size != values["files"].get(shard.file):
            what = "is missing" if size < 0 else f"has {size} bytes, not those it was written with"
            raise InputError(f"{folder / shard.file}: {what}; {_hint(shards)}")


def _hint(shards: str | Path) -> str:
    return (
        f"`a2fjax cache {shards} --features ...` writes what is missing or damaged, "
        "data.encoder_features='live' needs no cache"
    )


@dataclasses.dataclass(frozen=True)
class Cache:
    """One feature cache, as `a2fjax inspect` lists it.

    Attributes:
      folder: folder of the cache.
      encoder: `SpeechEncoder.describe`; {} if unknown.
      spec: identifies the encoder; None if unknown.
      files: number of shards that have a file.
      size: bytes on disk.
      state: "complete", or a description of the problem.
    """

    folder: Path
    encoder: dict[str, Any]
    spec: FeatureSpec | None
    files: int
    size: int
    state: str


def caches(shards: str | Path, manifest: records.Manifest) -> list[Cache]:
    """Returns the caches of a dataset, complete or not, sorted by folder."""
    caches = []
    for folder in sorted(Path(shards).glob(f"{cache_format.FOLDER}/*-*")):
        if folder.name.startswith(".") or not folder.is_dir():
            continue
        there = [s.file for s in manifest.shards if (folder / s.file).is_file()]
        size = sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
        header, wrong = None, ""
        for name in there:
            try:
                found_header = cache_format.read_header(folder / name)
                header = header or found_header
            except records.BadRecord as error:
                wrong = wrong or f"{name}: {error}"
        if not (folder / "manifest.json").is_file():
            state = wrong or f"not finished, {len(there)} of {len(manifest.shards)} files"
        else:
            try:
                values = cache_format.read_manifest(folder)
                spec = FeatureSpec(*(values[k] for k in ("fingerprint", "states", "width")))
                header = header or cache_format.Header(spec, values["encoder"], {})
                check(shards, spec, manifest, folder.name)
                state = wrong or "complete"
            except InputError as error:
                state = str(error).partition("; ")[0].partition(": ")[2]
        encoder, found_spec = (header.encoder, header.spec) if header else ({}, None)
        caches.append(Cache(folder, encoder, found_spec, len(there), size, state))
    return caches
