"""Whose face: a mesh file, or a person of the shards a run was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from a2fjax.animation import mesh
from a2fjax.data import records, subjects
from a2fjax.errors import InputError, nearest


def load_mesh(text: str, shards: Sequence[str | Path] = ()) -> tuple[np.ndarray, np.ndarray]:
    """Returns the neutral mesh (vertices [V, 3], faces [F, 3]) that the user names.

    Args:
      text: path of a mesh (.npz, .npy, .obj, .ply), or the name of a subject.
      shards: folders in whose manifests the subject is looked up.

    Raises:
      InputError: no such file or subject, not a mesh, or the subject has none.
    """
    path = Path(text)
    if path.suffix.lower() in mesh.ENDINGS or path.is_file():
        return mesh.read(path)
    names: list[str] = []
    missing: list[str] = []
    for folder in map(Path, shards):
        if not (folder / "manifest.json").is_file():
            missing.append(str(folder))
            continue
        manifest = records.read_manifest(folder)
        for subject in manifest.subjects:
            names.append(subject.id)
            if subject.id == text:
                if subject.mesh is None:
                    raise InputError(f"subject {text!r} has no neutral mesh in {folder}")
                return records.read_mesh(folder / subject.mesh)
    where = f" (shards not found: {', '.join(missing)})" if missing else ""
    if not names:
        raise InputError(
            f"identity {text!r} is no mesh file ({', '.join(mesh.ENDINGS)}), and there are no "
            f"shards to look a subject up in{where}; name them with --data"
        )
    raise InputError(f"identity {text!r}: no such mesh file or subject{nearest(text, names)}")


def training_subject(text: str, names: Sequence[str]) -> str | None:
    """Returns the training set's name of the person that the user names; None for nobody in it.

    Args:
      text: as `load`; a mesh file is nobody's, whatever its name.
      names: `Predictor.subjects`.
    """
    path = Path(text)
    if path.suffix.lower() in mesh.ENDINGS or path.is_file():
        return None
    number = subjects.number(text, names)
    return None if number == subjects.UNKNOWN else names[number]


def unused_identity_message(text: str, run: str, names: Sequence[str]) -> str:
    """Returns the message for an identity given to a run that was trained without meshes."""
    if names:
        return f"identity {text!r}: {run} knows its training subjects only{nearest(text, names)}"
    return f"identity {text!r}: {run} was trained with model.identity='none'; leave --identity out"
