"""Pins the digests of a run's datasets on submission, so that it cannot train on changed data."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection, Iterable
from pathlib import Path

from a2fjax import budgets
from launch.jobs import record
from launch.jobs.spec import JobSpec

NAME = "data.json"


def digests(
    shards: Iterable[str], pending: Collection[str] = (), directory: str = "."
) -> dict[str, str]:
    """Returns the SHA-256 of each dataset's manifest, which lists all clips.

    Args:
      shards: dataset folders.
      pending: real paths of datasets that other jobs have yet to write.
      directory: base of relative paths.

    Returns:
      Digest by folder; "" for a dataset that is not, or not yet, on this machine.

    Raises:
      InputError: a manifest cannot be read.
    """
    result = {}
    for name in shards:
        folder = Path(directory) / name
        result[name] = ""
        with contextlib.suppress(OSError):
            manifest = folder / "manifest.json"
            if str(folder.resolve()) not in pending and manifest.exists():
                result[name] = hashlib.sha256(budgets.read_bytes(manifest)).hexdigest()
    return result


def pinned(run: Path, spec: JobSpec) -> dict[str, str]:
    """Returns a run's digests, including those recorded at its first start.

    RUN/launch/data.json holds the digests that were unknown on submission.
    """
    first: dict[str, str] = {}
    with contextlib.suppress(OSError, ValueError):
        values = budgets.load_json(record.launch(run) / NAME)
        first = {k: v for k, v in values.items() if isinstance(v, str)}
    return {name: digest or first.get(name, "") for name, digest in spec.data.items()}


def check(run: Path, spec: JobSpec, *, first: bool) -> str:
    """Returns an error message if the data differ from those pinned, or "".

    Args:
      run: folder of the run.
      spec: its specification.
      first: whether this process writes the digests that were unknown on submission.
    """
    known = pinned(run, spec)
    current = digests(known, directory=spec.directory)
    for name, digest in known.items():
        if digest and current[name] and digest != current[name]:
            return (
                f"{name}: is another dataset than when {spec.id} was submitted (its manifest.json "
                f"differs); `submit.py resume {spec.id}` accepts it as it is now"
            )
    if first and "" in spec.data.values():
        record.write_json(record.launch(run) / NAME, current)
    return ""
