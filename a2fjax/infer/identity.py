"""Resolves the identity a user gives: a neutral mesh, or a subject of the training data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.animation import mesh
from a2fjax.data import records, subjects
from a2fjax.errors import InputError, nearest

Identity = str | Path | np.ndarray | tuple[np.ndarray, np.ndarray | None]
"""Path of a mesh, name of a subject, vertices [V, 3], or (vertices [V, 3], faces [F, 3] or None)"""


def load_mesh(
    identity: Identity, shards: Sequence[str | Path] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the neutral mesh (vertices [V, 3], faces [F, 3]) of an identity.

    Args:
      identity: path of a mesh (.npz, .npy, .obj, .ply), name of a subject, or arrays.
      shards: folders whose manifests are searched for the subject.

    Raises:
      InputError: no such file or subject, not a mesh, or a subject without a mesh.
    """
    if not isinstance(identity, str | Path):
        vertices, faces = identity if isinstance(identity, tuple) else (identity, None)
        faces = np.zeros((0, 3)) if faces is None else faces
        return records.check_mesh(np.asarray(vertices), np.asarray(faces), name="identity")
    if _is_mesh_file(identity):
        return mesh.read(identity)
    names: list[str] = []
    missing: list[str] = []
    for folder in map(Path, shards):
        if not (folder / "manifest.json").is_file():
            missing.append(str(folder))
            continue
        manifest = records.read_manifest(folder)
        for subject in manifest.subjects:
            names.append(subject.id)
            if subject.id == str(identity):
                if subject.mesh is None:
                    raise InputError(f"subject {subject.id!r} has no neutral mesh in {folder}")
                return records.read_mesh(folder / subject.mesh)
    where = f" (shards not found: {', '.join(missing)})" if missing else ""
    text = str(identity)
    if not names:
        raise InputError(
            f"identity {text!r} is no mesh file ({', '.join(mesh.ENDINGS)}), and there are no "
            f"shards to look a subject up in{where}; name them with --data"
        )
    raise InputError(f"identity {text!r}: no such mesh file or subject{nearest(text, names)}")


def training_subject(identity: Any, names: Sequence[str]) -> str | None:
    """Returns the name of the training subject that an identity refers to, or None.

    Args:
      identity: as in `load_mesh`; a mesh refers to no subject, whatever its file name.
      names: `Predictor.subjects`.
    """
    if not isinstance(identity, str | Path) or _is_mesh_file(identity):
        return None
    number = subjects.number(str(identity), names)
    return None if number == subjects.UNKNOWN else names[number]


def unused_identity_message(identity: Any, run: str, names: Sequence[str]) -> str:
    """Returns the warning for an identity given to a run that was trained without meshes."""
    text = str(identity) if isinstance(identity, str | Path) else "mesh"
    if names:
        return f"identity {text!r}: {run} knows its training subjects only{nearest(text, names)}"
    return f"identity {text!r}: {run} was trained with model.identity='none'; give no identity"


def _is_mesh_file(identity: str | Path) -> bool:
    path = Path(identity)
    return path.suffix.lower() in mesh.ENDINGS or path.is_file()
