"""The data of a run as they were when it was submitted: by digests of the shards' manifests."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path

from launch.jobs import run_spec as spec

NAME = "data.json"


def take(shards: Iterable[str], but: Collection[str] = (), directory: str = ".") -> dict[str, str]:
    """Returns the SHA-256 of each set's manifest, which names all clips.

    Args:
      shards: folders.
      but: real paths of those that something else has yet to fill.
      directory: that relative paths start from.

    Returns:
      "" for what is not here, or not yet.
    """
    out = {}
    for name in shards:
        folder = Path(directory) / name
        out[name] = ""
        with contextlib.suppress(OSError):
            if str(folder.resolve()) not in but:
                text = (folder / "manifest.json").read_bytes()
                out[name] = hashlib.sha256(text).hexdigest()
    return out


def of(run: Path, run_spec: spec.RunSpec) -> dict[str, str]:
    """Returns the digests of a run; those that its desk could not know as its first start saw them.

    Those are in RUN/launch/data.json from then on.
    """
    seen: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        values = json.loads((spec.launch(run) / NAME).read_text())
        seen = {k: v for k, v in values.items() if isinstance(v, str)}
    return {name: digest or seen.get(name, "") for name, digest in run_spec.data.items()}


def check(run: Path, run_spec: spec.RunSpec, *, first: bool) -> str:
    """Returns what is wrong with the data that are about to be read, or "".

    Args:
      run: the run's folder.
      run_spec: what it is.
      first: whether this is the process that writes what could not be known at the desk.
    """
    known = of(run, run_spec)
    found = take(known, directory=run_spec.directory)
    for name, digest in known.items():
        if digest and found[name] and digest != found[name]:
            return (
                f"{name}: is another set than when {run_spec.id} was submitted (its manifest.json "
                f"differs); `submit.py resume {run_spec.id}` takes it as it is now"
            )
    if first and "" in run_spec.data.values():
        spec.write_json(spec.launch(run) / NAME, found)
    return ""
