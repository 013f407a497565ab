"""Rigs: a neutral mesh and named shapes, read from files and made ready to solve on.

A rig is either a person's own (their capture comes with shapes) or a template, whose shapes are
carried over to people of the same topology that have none; see `transfer`.
"""

from __future__ import annotations

import dataclasses
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import rig as channels_of_rig
from a2fjax.errors import InputError, nearest
from data_pipeline.mesh import conventions
from data_pipeline.mesh.conventions import MILLIMETRES, guess_units
from data_pipeline.mesh.rest import estimate_neutral as estimate_neutral
from data_pipeline.mesh.transfer import size_ratio, transfer
from data_pipeline.sources import Blendshapes

ENDINGS = (".npz", ".glb", ".gltf")
READ_ERRORS = (
    OSError, ValueError, EOFError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
    MemoryError, RuntimeError, SyntaxError, tokenize.TokenError, struct.error, zlib.error,
    zipfile.BadZipFile,
)  # fmt: skip
"""What reading damaged .npz and glTF files ends in."""

_FURTHEST = 1e6  # no coordinate of a head, in any unit; numbers that are not finite are not below
_SAME_MM = 0.02  # root mean square; float32 in metres is rounded by 1e-5
_COLUMNS = {
    column.name.lower(): column.channel
    for layout in channels_of_rig.CHANNEL_ORDERS.values()
    for column in layout.columns
    if column.channel is None or channels_of_rig.INDEX[column.channel] < 68
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rig:
    """A head's neutral mesh and its shapes, as a file has them.

    Attributes:
      neutral: [V, 3] in `units`.
      deltas: [K, V, 3] displacements at weight one, in `units`.
      names: [K] of the shapes, as the file writes them.
      faces: [F, 3] int32 triangles; no rows where the file has none.
      mask: [M] indices of vertices to solve on, or None for all.
      units: "mm", "cm" or "m"; "" where the file does not say.
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
        an .npz file with `poseNames`, `neutral` and an array of displacements for each pose, and
        maybe `frontalMask` and `faces` (NVIDIA's framework);
        an .npz file with `neutral`, `expression_names`, `expression_deltas` and maybe `tris` or
        `faces` (as ICT-FaceKit is passed on); both may say their `units`;
        a folder of OBJ or PLY meshes, `neutral.obj` and one for each shape, named after it;
        a .glb or .gltf file with named morph targets (metres, by its specification).

    Raises:
      InputError: not a rig, damaged, or shapes of another size than the neutral.
    """
    path = Path(path)
    if path.is_dir():
        return _checked(path, **_read_folder(path))
    if not path.is_file():
        raise InputError(f"{path}: no such rig")
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
        data = np.load(path, allow_pickle=False)
        if not isinstance(data, np.lib.npyio.NpzFile):
            raise ValueError("an array, not a set of named ones")
        with data:
            return _arrays(path, data)
    except InputError:
        raise
    except READ_ERRORS as error:
        if "pickle" in str(error):
            raise InputError(
                f"{path}: holds pickled objects, which are refused: save plain arrays with "
                "numpy.savez"
            ) from None
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a set of shapes ({said})") from None


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
        found = ", ".join(sorted(keys)[:8]) or "nothing"
        raise InputError(
            f"{path}: not a set of shapes: holds {found}; expected neutral with poseNames and an "
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
    twice = next((n for n in names if lower.count(n.lower()) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: shape {twice!r} appears twice")
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
    with np.errstate(invalid="ignore", over="ignore"):  # said by the checks that follow
        return values.astype(np.float64)


def _check_displacements(path: Path, neutral: np.ndarray, shapes: np.ndarray) -> None:
    """Checks that shapes are displacements: positions look like the neutral, each of them."""
    rest = neutral - neutral.mean(axis=0)
    alike = np.einsum("kvi,vi->k", shapes, rest) / np.sum(rest**2)
    if len(shapes) > 1 and np.median(alike) > 0.8:
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


def make_blendshapes(
    rig: Rig,
    *,
    neutral: np.ndarray | None = None,
    units: str = "auto",
    axes: str = "auto",
    mouth_close: str = "auto",
    stable: np.ndarray | None = None,
    part: str = "skin",
    name: str = "rig",
) -> Blendshapes:
    """Returns shapes ready to solve on: millimetres, the rig's axes and channels.

    Without `neutral` the rig is the person's own, in the capture's unit and axes. With it, units
    and axes are found from the likeness of the two heads (`conventions.find`), the neutral is laid
    on the rig's, and if it is another head the shapes are carried over (`transfer`).

    Args:
      rig: see `read`.
      neutral: [V, 3] the person's neutral mesh in the capture's unit and axes; vertices that are
        not finite are taken from the rig and not solved on.
      units: of the capture: "mm", "cm" or "m"; "auto" finds them, else goes by the rig's, else by
        the size of a head.
      axes: of the capture, see `conventions.parse_axes`; "auto" finds them on the
        template, or from what the shapes are called (`conventions.axes_of_shapes`), else takes the
        rig's own.
      mouth_close: "arkit", "nvidia" or "auto"; see `sources.SourceOptions`.
      stable: [N] indices of vertices that only move with the head, or None to find them.
      part: "skin" or "tongue", for notes.
      name: for messages.

    Raises:
      InputError: unknown shapes, an option of unknown value, or a neutral that is not of the rig's
        topology.
    """
    own = rig.units or guess_units(rig.neutral)
    keep = np.arange(len(rig.neutral)) if rig.mask is None else rig.mask
    channels, deltas, notes = _solvable(name, rig, mouth_close)
    told = conventions.axes_from_shapes(rig.neutral, channels, deltas)
    transferred = False
    if neutral is None:
        unit = own if units == "auto" else units
        if unit not in MILLIMETRES:
            raise InputError(f"--config.units={unit!r}{nearest(unit, ('auto', *MILLIMETRES))}")
        turn = np.eye(3) if told is None else told
        if axes != "auto":
            turn = conventions.parse_axes(axes)
        elif not np.array_equal(turn, np.eye(3)):
            notes.append(f"axes {conventions.axes_name(turn)}, as the names of shapes tell")
        matrix = MILLIMETRES[unit] * turn
        rest, deltas = rig.neutral @ matrix.T, deltas @ matrix.T
    else:
        matrix = MILLIMETRES[own] * (np.eye(3) if told is None else told)
        template, deltas = rig.neutral @ matrix.T, deltas @ matrix.T
        found = conventions.find_convention(neutral, template, units=units, axes=axes, name=name)
        unit, turn = found.units, found.axes
        rest = found.aligned(np.asarray(neutral, np.float64))
        holes = np.logical_not(np.isfinite(rest).all(axis=1))
        notes.append(
            f"capture in {unit}, axes {conventions.axes_name(turn)}: margin "
            f"{found.margin:.1f} over the next, {100 * found.residual:.1f} % of the head's radius "
            "from the template"
        )
        if holes.any():
            rest[holes] = _filled(rest, template, holes)
            keep = keep[~holes[keep]]
            notes.append(f"{holes.sum()} vertices of the neutral are not known: left out")
        transferred = bool(np.sqrt(((rest - template) ** 2).sum(axis=1).mean()) > _SAME_MM)
        if transferred:
            deltas = transfer(template, deltas, rig.faces, rest)
            way = "deformation transfer" if len(rig.faces) else "scaling"
            size = size_ratio(template, rest)
            notes.append(f"shapes of the template carried over by {way}: size {size:.3f} of it")
    return Blendshapes(
        neutral=rest,
        deltas=deltas,
        channels=tuple(channels),
        keep=keep,
        stable=stable,
        millimetres=MILLIMETRES[unit],
        axes=turn,
        transferred=transferred,
        notes=(f"{part}: vertices in {unit}, {len(channels)} shapes", *notes),
    )


def _solvable(name: str, rig: Rig, mouth_close: str) -> tuple[list[str], np.ndarray, list[str]]:
    """Returns channels, their shapes in the rig's own unit and axes, and notes."""
    channels, merged = merge_channels(name, rig.names, rig.deltas)
    dropped = [n for n in rig.names if _COLUMNS.get(n.lower(), n) is None]
    notes = [f"shapes without a channel, left out: {', '.join(dropped)}"] if dropped else []
    note = relative_mouth_close(channels, merged, mouth_close)
    return channels, merged, [*notes, note] if note else notes


def _filled(rest: np.ndarray, template: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Returns the template's vertices of the holes, moved as the nearest known one is."""
    from scipy.spatial import cKDTree

    known = np.flatnonzero(~holes)
    _, near = cKDTree(template[known]).query(template[holes])
    return template[holes] + (rest - template)[known[near]]


def merge_channels(
    name: str, poses: Sequence[str], shapes: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Returns channels [K] and their shapes [K, V, 3]: halves of one channel are added up.

    Args:
      name: for messages.
      poses: names of any order of `rig.CHANNEL_ORDERS`, in any case.
      shapes: [len(poses), V, 3].

    Raises:
      InputError: a name that no layout has, or no shape of the rig at all.
    """
    merged: dict[str, np.ndarray] = {}
    for pose, shape in zip(poses, shapes, strict=True):
        key = pose.lower()
        if key not in _COLUMNS:
            try:
                channels_of_rig.channel_index(pose)
            except InputError as error:
                raise InputError(f"{name}: {error}") from None
        channel = _COLUMNS.get(key)
        if channel is not None:
            merged[channel] = merged.get(channel, 0.0) + shape
    if not merged:
        raise InputError(f"{name}: holds no shape of the rig")
    channels = sorted(merged, key=channels_of_rig.INDEX.__getitem__)
    return channels, np.stack([merged[c] for c in channels])


def relative_mouth_close(channels: Sequence[str], deltas: np.ndarray, convention: str) -> str:
    """Makes mouthClose relative to an open jaw, as ARKit has it, in place; says what was done.

    NVIDIA's includes jawOpen. Told apart by how much of jawOpen is in it: about 1 there, below 0
    where it only brings the lips together.

    Args:
      channels: [K] names.
      deltas: [K, V, 3], changed.
      convention: "arkit", "nvidia" or "auto".

    Raises:
      InputError: another convention.
    """
    if convention not in ("auto", "arkit", "nvidia"):
        raise InputError(f"--config.mouth_close={convention!r}: expected auto, arkit or nvidia")
    if not {"mouthClose", "jawOpen"} <= set(channels):
        return ""
    place = list(channels)
    close, jaw = deltas[place.index("mouthClose")], deltas[place.index("jawOpen")]
    share = float((close * jaw).sum() / max((jaw * jaw).sum(), 1e-12))
    if convention == "nvidia" or (convention == "auto" and share > 0.4):
        close -= jaw
        return f"mouthClose includes jawOpen (share {share:.2f}): subtracted"
    return f"mouthClose is relative to an open jaw (share of jawOpen {share:.2f})"


def _mask(path: Path, mask: np.ndarray | None, count: int) -> np.ndarray | None:
    """Returns indices from frontalMask: vertex numbers, or one 0 or 1 a vertex; None if none."""
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
