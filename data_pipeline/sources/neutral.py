"""The neutral mesh of a subject: read from a file, or estimated from frames of their takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from a2fjax import archives, budgets
from a2fjax.animation import mesh as mesh_files
from a2fjax.errors import InputError
from data_pipeline.mesh import geometry, rest, topology
from data_pipeline.mesh.conventions import MILLIMETRES, guess_units
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line
from data_pipeline.mesh.rigs import Rig
from data_pipeline.sources.person_face import PlacedMesh
from data_pipeline.sources.sequences import MotionFile

_NEUTRAL_TAKES = 8
_NEUTRAL_ENDS = 4  # frames at the start and at the end of a take
_NEUTRAL_SPREAD = 8


Opener = Callable[[], MotionFile]
"""Opens a take."""


def estimate_from_takes(takes: Sequence[Opener], rig: Rig, *, name: str, unit: str) -> PlacedMesh:
    """Returns the neutral estimated from a fixed choice of a few frames of a few takes.

    The choice includes the start and the end of a take, where actors are at rest, and frames
    spread over the take. Takes whose vertices are in another order than the rig's, or that are
    mirror images of the others, do not count.

    Args:
      takes: the person's takes.
      rig: a rig of the same topology.
      name: name of the person, for messages.
      unit: unit of takes that state none; "" for the one in which they have the rig's size.

    Raises:
      InputError: no take has vertices of the rig's topology, or no pose recurs.
    """
    template = rig.neutral * MILLIMETRES[rig.units or guess_units(rig.neutral)]
    stable = geometry.stable_vertices(rig.neutral, rig.deltas)
    kept: dict[bool, list[np.ndarray]] = {False: [], True: []}
    reasons: list[str] = []
    units: list[str] = []
    for take in takes[:: -(-len(takes) // _NEUTRAL_TAKES) or 1]:
        try:
            frames, stated_unit = _frames_mm(take(), template, unit)
            if frames is None:
                continue
            mirrored = _check_order(frames, template, stable)
        except InputError as error:
            reasons.append(str(error))
            continue
        kept[mirrored].append(frames)
        units += [stated_unit] if stated_unit else []
    chosen = max(kept.values(), key=len)
    if not chosen:
        why = reasons[0] if reasons else "no take has vertices"
        raise InputError(f"{name}: no neutral mesh, and none can be estimated: {why}")
    neutral = rest.estimate_neutral(
        np.concatenate(chosen), template, name=f"{name}: no neutral mesh"
    )
    scale = MILLIMETRES[units[0]] if units else 1.0
    return PlacedMesh(
        vertices=neutral / scale,
        millimetres=scale,
        origin="estimated from the takes' frames at rest",
    )


def _frames_mm(
    motion: MotionFile, template: np.ndarray, unit: str
) -> tuple[np.ndarray | None, str]:
    """Returns frames [N, V, 3] in mm (None for curves) and the unit of a take that states none."""
    if motion.vertices is None:
        return None, ""
    count = motion.vertices.shape[0]
    if motion.vertices.shape[1] != len(template):
        raise InputError(
            f"{motion.name}: {motion.vertices.shape[1]} vertices, the rig has {len(template)}: its "
            "topology must be the capture's"
        )
    ends = np.r_[:_NEUTRAL_ENDS, count - _NEUTRAL_ENDS : count]
    spread = np.rint(np.linspace(0, count - 1, _NEUTRAL_SPREAD)).astype(int)
    numbers = np.unique(np.clip(np.r_[ends, spread], 0, count - 1)).tolist()
    frames = np.concatenate([np.asarray(motion.vertices[f : f + 1], np.float32) for f in numbers])
    if motion.millimetres:
        return frames * np.float32(motion.millimetres), ""
    if not unit:
        ratio = topology.size_ratio(frames[0], template)
        unit = min(MILLIMETRES, key=lambda u: abs(np.log(max(ratio, 1e-9) * MILLIMETRES[u])))
    return frames * np.float32(MILLIMETRES[unit]), unit


def _check_order(frames: np.ndarray, template: np.ndarray, stable: np.ndarray) -> bool:
    """Returns whether frames are mirror images of the template.

    Raises:
      InputError: their vertices are in another order.
    """
    options = {"keep": np.arange(len(template)), "stable": stable}
    deltas = np.zeros((0, *template.shape))
    difference = topology.compare(frames, template, deltas, **options)
    mirrored = difference is not None and difference.mirrored
    if mirrored:
        difference = topology.compare(frames * [-1.0, 1.0, 1.0], template, deltas, **options)
    if difference is not None and (difference.shift or difference.misplaced):
        raise InputError("its vertices are in another order than the rig's")
    return mirrored


def first_motion(takes: Sequence[Opener], vertices: int = 0) -> MotionFile | None:
    """Returns a take with one of its frames, or None if none can be opened.

    It is the first with this number of vertices, else the first, so that one take of another
    topology does not decide for all.
    """
    chosen = None
    for take in takes:
        try:
            opened = take()
            if opened.vertices is not None:  # do not keep a whole archive in memory
                frame = np.array(opened.vertices[0:1])
                if not len(frame):
                    continue  # Reading it says so.
                opened = dataclasses.replace(opened, vertices=frame)
        except InputError:
            continue
        chosen = chosen or opened
        mesh = opened.rest if opened.vertices is None else opened.vertices[0:1][0]
        if not vertices or (mesh is not None and len(mesh) == vertices):
            return opened
    return chosen


def sample_mesh(motion: MotionFile | None) -> PlacedMesh | None:
    """Returns the first frame of a take, or None for curves and for a frame with missing points."""
    if motion is None or motion.vertices is None:
        return None
    frame = np.asarray(motion.vertices[0:1][0], np.float64)
    if not np.isfinite(frame).all():
        return None
    return PlacedMesh(
        vertices=frame,
        millimetres=motion.millimetres,
        states_axes=motion.axes is not None,
        origin=motion.name,
    )


def given_neutral(path: Path | None) -> PlacedMesh | None:
    """Returns the neutral mesh of a file, None without one.

    Raises:
      InputError: not a mesh.
    """
    if path is None:
        return None
    vertices = read_neutral(path)[0].astype(np.float64)
    return PlacedMesh(vertices=vertices, origin=f"read from {path}")


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
