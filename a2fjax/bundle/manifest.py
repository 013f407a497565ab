"""The manifest of a bundle, `a2fjax.json`: reads it and checks the files that it lists.

schema        version of this layout
library       {name, version} that wrote the bundle
kind, step    of the model; training step of the weights
fingerprint   of configuration and step; rig and mesh_descriptor: of what the numbers mean
channels      [{name, unit, low, high}] in the order of every output
mouth_close   how mouthClose is meant
emotions      names in the order of the input
rates         sample_rate, hop, frames_per_second and when a frame is
look_ahead    {frames, seconds}; null where a frame depends on the whole recording
level         constants of the level normalisation
features      constants of every signal, by name
conditions    what the model is conditioned on
graphs        {file: {inputs, outputs}}; of a step also look_ahead, hop in samples and state, what
              it carries from call to call: [{name, dtype, shape, bytes of one stream}]
license, datasets, metrics
files         {path: {sha256, bytes}} of every other file
crc32         of the manifest itself
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from a2fjax import budgets, files, mesh_descriptor, rig, sealed_json
from a2fjax.errors import InputError

FILE = "a2fjax.json"
SCHEMA = 1
_BLOCK = 1 << 20
_NEEDED = {
    "rig": str,
    "mesh_descriptor": int,
    "step": int,
    "fingerprint": str,
    "license": str,
    "metrics": dict,
    "graphs": dict,
    "files": dict,
}
"""Keys that readers need, with their types."""


def is_bundle(folder: str | Path) -> bool:
    """Returns whether a folder has a manifest."""
    return (Path(folder) / FILE).is_file()


def read(folder: str | Path) -> dict[str, Any]:
    """Returns the manifest of a bundle, without looking at the other files.

    Raises:
      InputError: no bundle, damaged, of a newer schema, or of another rig.

    Example:
        >>> read("nowhere")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: nowhere/a2fjax.json: no such file
    """
    path = Path(folder) / FILE
    values = budgets.load_json(path)
    schema = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(schema, int) or schema < 1:
        raise InputError(f"{path}: schema={schema!r}: expected the manifest of a bundle")
    if schema > SCHEMA:
        raise InputError(
            f"{path}: schema {schema} is newer than {SCHEMA}, which this version reads; "
            "install a newer a2fjax"
        )
    if not sealed_json.is_sealed(values):
        raise InputError(f"{path}: was changed after it was written; export the bundle again")
    for key, kind in _NEEDED.items():
        if not isinstance(values.get(key), kind):
            raise InputError(f"{path}: {key}={values.get(key)!r}: expected a {kind.__name__}")
    if values["rig"] != rig.FINGERPRINT:
        raise InputError(
            f"{path}: made for rig {values['rig']}, this version has {rig.FINGERPRINT}; "
            "its channels mean something else"
        )
    if values["mesh_descriptor"] != mesh_descriptor.VERSION:
        raise InputError(
            f"{path}: its identities come from version {values['mesh_descriptor']} of what is "
            f"measured of a mesh, this version has {mesh_descriptor.VERSION}: train it again"
        )
    return values


def verify(folder: str | Path) -> dict[str, Any]:
    """Returns the manifest of a bundle after comparing every file with its SHA-256.

    Raises:
      InputError: as `read`, or a file is missing or changed; names the first one.
    """
    folder = Path(folder)
    values = read(folder)
    for name, stated in values["files"].items():
        path = files.inside(folder, name, where=f"{folder / FILE}: files")
        if not path.is_file():
            raise InputError(f"bundle {folder}: {name} is missing; export or download it again")
        # A file of another size is not read: it may be huge.
        size = stated.get("bytes") if isinstance(stated, dict) else None
        if path.stat().st_size != size or file_digest(path) != stated:
            raise InputError(
                f"bundle {folder}: {name} was changed after it was written (its SHA-256 does not "
                "match); export or download it again"
            )
    return values


def file_digest(path: Path) -> dict[str, Any]:
    """Returns {"sha256": hex digits, "bytes": size} of a file."""
    digest, size = hashlib.sha256(), 0
    with budgets.regular_file(path).open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return {"sha256": digest.hexdigest(), "bytes": size}
