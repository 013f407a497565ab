"""Reads rig files: a neutral mesh and named shapes.

A rig either belongs to an actor (the capture comes with shapes) or is a template, whose shapes are
transferred to actors of the same topology without shapes; see `blendshapes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, budgets
from a2fjax.errors import InputError, nearest
from data_pipeline.mesh.conventions import MILLIMETRES
from data_pipeline.mesh.file_checks import READ_ERRORS

ENDINGS = (".npz", ".glb", ".gltf")

_FURTHEST = 1e6  # no head has such a coordinate in any unit; comparisons with NaN are false


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rig:
    """The neutral mesh and the shapes of a head, as stored in a file.

    Attributes:
      neutral: [V, 3] in `units`.
      deltas: [K, V, 3] displacements at weight one, in `units`.
      names: [K] names of the shapes, as written in the file.
      faces: [F, 3] int32 triangles; no rows if the file has none.
      mask: [M] indices of vertices to solve on, or None for all.
      units: "mm", "cm" or "m"; "" if the file does not state them.
    """

    neutral: np.ndarray
    deltas: np.ndarray
    names: tuple[str, ...]
    faces: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    mask: np.ndarray | None = None
    units: str = ""


def read_rig(path: str | Path) -> Rig:
    """Reads a rig.

    Args:
      path: one of
        an .npz file with `poseNames`, `neutral`, an array of displacements for each pose, and
        optionally `frontalMask` and `faces` (NVIDIA's framework);
        an .npz file with `neutral`, `expression_names`, `expression_deltas` and optionally `tris`
        or `faces` (the form used for ICT-FaceKit); both may state their `units`;
        a folder of OBJ or PLY meshes, `neutral.obj` and one for each shape, named after it;
        a .glb or .gltf file with named morph targets (metres, by its specification).

    Raises:
      InputError: not a rig, damaged, or shapes of another size than the neutral.
    """
    path = Path(path)
    if path.is_dir():
        return _checked(path, **_read_folder(path))
    if not path.exists():
        raise InputError(f"{path}: no such rig")
    budgets.regular_file(path)
    ending = path.suffix.lower()
    if ending == ".npz":
        return _checked(path, **_read_npz(path))
    if ending in (".glb", ".gltf"):
        from data_pipeline.mesh import morphs

        return _checked(path, **morphs.read_morphs(path))
    if ending in (".pkl", ".pickle"):
        raise InputError(f"{path}: pickles are refused: save plain arrays with numpy.savez")
    raise InputError(
        f"{path}: not a rig: expected {', '.join(ENDINGS)} or a folder of OBJ or PLY meshes"
    )


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        with archives.load_npz(path) as data:
            return _arrays(path, data)
    except InputError:
        raise
    except READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a set of shapes ({reason})") from None


def _arrays(path: Path, data: Any) -> dict[str, Any]:
    keys = set(data.files)
    out: dict[str, Any] = {"neutral": data["neutral"]} if "neutral" in keys else {}
    for key in ("faces", "tris"):
        if key in keys:
            out["faces"] = data[key]
    if "frontalMask" in keys:
        out["mask"] = data["frontalMask"]
    if "units" in keys:
        out["units"] = str(data["units"])
    if {"neutral", "expression_names", "expression_deltas"} <= keys:
        out["names"] = [str(n) for n in np.ravel(data["expression_names"])]
        out["deltas"] = data["expression_deltas"]
    elif {"neutral", "poseNames"} <= keys:
        names = [str(n) for n in np.ravel(data["poseNames"])]
        out["names"] = [n for n in names if n != "neutral"]
        absent = [n for n in out["names"] if n not in keys]
        if absent:
            raise InputError(f"{path}: poseNames lists {absent[0]!r}, which is not in the file")
        out["deltas"] = [data[n] for n in out["names"]]
    else:
        present = ", ".join(sorted(keys)[:8]) or "nothing"
        raise InputError(
            f"{path}: not a set of shapes: holds {present}; expected neutral with poseNames and an "
            "array a pose, or with expression_names and expression_deltas"
        )
    return out


def _read_folder(folder: Path) -> dict[str, Any]:
    from a2fjax.animation import mesh

    try:
        files = sorted(
            p for p in folder.iterdir() if p.suffix.lower() in (".obj", ".ply") and p.name[0] != "."
        )
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror or error})") from None
    rest = [p for p in files if p.stem.lower() == "neutral"]
    shapes = [p for p in files if p.stem.lower() != "neutral"]
    if not rest or not shapes:
        what = "neutral.obj or neutral.ply" if not rest else "shapes beside the neutral"
        raise InputError(f"{folder}: not a rig: no {what}")
    neutral, faces = mesh.read(rest[0])
    neutral = neutral.astype(np.float64)
    deltas = []
    for path in shapes:
        vertices, _ = mesh.read_frame(path)
        if vertices.shape != neutral.shape:
            raise InputError(f"{path}: {len(vertices)} vertices, {rest[0].name} has {len(neutral)}")
        deltas.append(vertices - neutral)
    return {"neutral": neutral, "faces": faces, "names": [p.stem for p in shapes], "deltas": deltas}


def _checked(
    path: Path,
    *,
    neutral: np.ndarray,
    deltas: Any,
    names: Sequence[str],
    faces: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    units: str = "",
) -> Rig:
    rest = _numbers(path, "neutral", neutral)
    if rest.ndim != 2 or rest.shape[1:] != (3,) or len(rest) < 4:
        raise InputError(f"{path}: neutral has shape {rest.shape}, expected [V, 3], V >= 4")
    if not (np.abs(rest) < _FURTHEST).all() or not np.ptp(rest, axis=0).any():
        raise InputError(
            f"{path}: neutral is not a mesh: its vertices are not finite, or one point"
        )
    if not len(names) or len(names) != len(deltas):
        raise InputError(f"{path}: {len(names)} names of shapes, {len(deltas)} shapes")
    lower = [n.lower() for n in names]
    duplicate = next((n for n in names if lower.count(n.lower()) > 1), None)
    if duplicate is not None:
        raise InputError(f"{path}: shape {duplicate!r} appears twice")
    shapes = np.empty((len(names), *rest.shape))
    for i, name in enumerate(names):
        shape = _numbers(path, name, deltas[i])
        if shape.shape != rest.shape or not (np.abs(shape) < _FURTHEST).all():
            raise InputError(
                f"{path}: {name} has shape {shape.shape}, expected finite {rest.shape}"
            )
        shapes[i] = shape
    _check_displacements(path, rest, shapes)
    if units and units not in MILLIMETRES:
        raise InputError(f"{path}: units={units!r}{nearest(units, MILLIMETRES)}")
    return Rig(
        neutral=rest,
        deltas=shapes,
        names=tuple(names),
        faces=_triangles(path, faces, len(rest)),
        mask=_mask(path, mask, len(rest)),
        units=units,
    )


def _numbers(path: Path, name: str, values: Any) -> np.ndarray:
    values = np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} holds {values.dtype}, expected numbers")
    with np.errstate(invalid="ignore", over="ignore"):  # the checks that follow report it
        return values.astype(np.float64)


def _check_displacements(path: Path, neutral: np.ndarray, shapes: np.ndarray) -> None:
    """Checks that shapes are displacements, not positions, which would all resemble the neutral."""
    rest = neutral - neutral.mean(axis=0)
    likeness = np.einsum("kvi,vi->k", shapes, rest) / np.sum(rest**2)
    if len(shapes) > 1 and np.median(likeness) > 0.8:
        raise InputError(f"{path}: its shapes are positions, expected displacements of the neutral")


def _triangles(path: Path, faces: np.ndarray | None, count: int) -> np.ndarray:
    if faces is None or not np.size(faces):
        return np.zeros((0, 3), np.int32)
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise InputError(f"{path}: faces have shape {faces.shape}, expected integers [F, 3]")
    if faces.min() < 0 or faces.max() >= count:
        raise InputError(f"{path}: faces name vertices that are not among the {count}")
    return faces.astype(np.int32)


def _mask(path: Path, mask: np.ndarray | None, count: int) -> np.ndarray | None:
    """Returns indices from frontalMask, which holds indices or a 0/1 mask; None if absent."""
    if mask is None or not np.size(mask):
        return None
    mask = np.asarray(mask).reshape(-1)
    if len(mask) == count and np.isin(mask, (0, 1)).all():
        mask = np.flatnonzero(mask)
    if mask.dtype.kind not in "iub":
        raise InputError(f"{path}: frontalMask holds {mask.dtype}, expected numbers of vertices")
    mask = np.unique(mask.astype(np.int64))
    if not len(mask) or mask[0] < 0 or mask[-1] >= count:
        raise InputError(f"{path}: frontalMask names vertices that are not among the {count}")
    return mask
