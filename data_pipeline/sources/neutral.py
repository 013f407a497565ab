"""The neutral mesh of a subject: read from a file, or estimated from frames of their takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from a2fjax import archives, budgets
from a2fjax.animation import mesh as mesh_files
from a2fjax.errors import InputError
from data_pipeline.mesh import rest
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line
from data_pipeline.mesh.geometry import Vertices

_NEUTRAL_TAKES = 8
_NEUTRAL_ENDS = 4  # frames at the start and at the end of a take
_NEUTRAL_SPREAD = 8


def estimate_from_takes(
    takes: Sequence[Path],
    open_vertices: Callable[[Path], Vertices | None],
    template: np.ndarray,
    *,
    name: str,
) -> np.ndarray:
    """Returns the neutral [V, 3] estimated from a fixed choice of a few frames of a few takes.

    The choice includes the start and the end of a take, where actors are at rest, and frames
    spread over the take.

    Args:
      takes: motion files of the takes.
      open_vertices: opens a file; returns None for a take of curves.
      template: [V, 3] neutral of a rig of the same topology.
      name: name of the subject, for messages.

    Raises:
      InputError: no take has vertices of the rig's topology, or no pose recurs.
    """
    every = -(-len(takes) // _NEUTRAL_TAKES)
    frames: list[np.ndarray] = []
    reasons: list[str] = []
    for path in takes[::every]:
        try:
            vertices = open_vertices(path)
            if vertices is None:
                continue
            count = vertices.shape[0]
            if vertices.shape[1] != len(template):
                raise InputError(
                    f"{path}: {vertices.shape[1]} vertices, the rig has "
                    f"{len(template)}: its topology must be the capture's"
                )
            ends = np.r_[:_NEUTRAL_ENDS, count - _NEUTRAL_ENDS : count]
            spread = np.rint(np.linspace(0, count - 1, _NEUTRAL_SPREAD)).astype(int)
            for frame in np.unique(np.clip(np.r_[ends, spread], 0, count - 1)).tolist():
                frames.append(np.asarray(vertices[frame : frame + 1], np.float32))
        except InputError as error:
            reasons.append(str(error))
    if not frames:
        why = reasons[0] if reasons else "no take has vertices"
        raise InputError(f"{name}: no neutral mesh, and none can be estimated: {why}")
    return rest.estimate_neutral(np.concatenate(frames), template, name=f"{name}: no neutral mesh")


def read_neutral(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vertices [V, 3], faces [F, 3]) of a neutral mesh; arrays may also be flat, [3 V].

    Raises:
      InputError: not a mesh.
    """
    if path.suffix == ".npy":
        array = archives.load_npy(path)
        if array.dtype.kind == "f" and array.size % 3 == 0 and array.shape[-1:] != (3,):
            from a2fjax.data import records

            flat = array.reshape(-1, 3)
            return records.check_mesh(flat, np.zeros((0, 3)), name=str(path))
    return mesh_files.read(path)


def read_vertex_list(path: Path, count: int) -> np.ndarray:
    """Returns the indices in a list of vertices, sorted, each once.

    Args:
      path: JSON file with a list of numbers, or an object whose first value is such a list.
      count: number of vertices of the mesh.

    Raises:
      InputError: not a list, fewer than three, or not vertices of the mesh.
    """
    try:
        data = budgets.load_json(path)
        if isinstance(data, dict):
            data = next(iter(data.values()))
        indices = np.unique(np.asarray(data, np.int64))
    except (*READ_ERRORS, StopIteration) as error:
        raise InputError(f"{path}: not a list of vertices ({one_line(error)})") from None
    if indices.ndim != 1 or len(indices) < 3 or indices[0] < 0 or indices[-1] >= count:
        raise InputError(f"{path}: expected at least 3 of {count} vertices")
    return indices
