"""Shapes of a head from a file: vertex displacements per channel.

The file is an .npz of plain arrays in one of three forms, y up:

    neutral [V, 3], names [K], deltas [K, V, 3]                          this package's form
    neutral [V, 3], expression_names [K], expression_deltas [K, V, 3]    ICT-FaceKit as converted
    neutral [V, 3], poseNames [K], an array [V, 3] for each pose         NVIDIA's bs_skin.npz

Names come from any order of `channel_orders.ORDERS`, in upper or lower case; halves of one channel
are summed.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, channel_orders, registry
from a2fjax import rig as channels_of_rig
from a2fjax.errors import InputError, nearest

_INCLUDED = 0.4


@dataclasses.dataclass(frozen=True)
class Part:
    """Vertices of a part with their shapes.

    Attributes:
      neutral: [V, 3] neutral positions.
      shapes: [72, V, 3] displacement of every channel at weight 1; 0 without a shape.
    """

    neutral: np.ndarray
    shapes: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Displacements as a linear map [72, 3 V] from channels."""
        return self.shapes.reshape(len(self.shapes), -1)


@dataclasses.dataclass(frozen=True)
class Head:
    """A head to show: y up, facing z, the person's left at positive x.

    Attributes:
      name: for the scene.
      part: neutral positions and shapes.
      faces: [F, 3] int32 triangles, counter-clockwise from outside.
      metres: metres in a unit of the positions.
    """

    name: str
    part: Part
    faces: np.ndarray
    metres: float


METRES = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}
"""Metres in a unit."""


def load_head(head: str | Path | None, key: str = "--head") -> Head:
    """Returns a head to show.

    Args:
      head: file of `read` with `faces` or `tris` [F, 3] and, where it states its `units`, "mm",
        "cm" or "m" (else they are guessed from its size); or a name of `registry.heads`; None for
        the demo's.
      key: configuration key or flag that names it, for messages.

    Raises:
      InputError: no such head, or as `read`; no faces; faces that name other vertices.
    """
    name = "demo" if head is None else str(head)
    if name in registry.heads:
        made: Head = registry.heads.get(name).load()()
        return made
    if not Path(name).suffix:
        raise InputError(f"{key}={name!r}: no head of that name{nearest(name, _choices())}")
    path = Path(name)
    data, part = read(path, key)
    faces = data.get("faces", data.get("tris"))
    if faces is None:
        raise InputError(f"{path}: has no faces; expected an array faces or tris [F, 3]")
    shape_ok = faces.ndim == 2 and faces.shape[1:] == (3,) and len(faces) > 0
    if not shape_ok or faces.dtype.kind not in "iu":
        raise InputError(f"{path}: faces have shape {faces.shape}, expected whole numbers [F, 3]")
    if not 0 <= faces.min() <= faces.max() < len(part.neutral):
        raise InputError(f"{path}: faces name vertices that are not among {len(part.neutral)}")
    units = str(data["units"]) if "units" in data else _guessed_units(part.neutral)
    if units not in METRES:
        raise InputError(f"{path}: units={units!r}{nearest(units, METRES)}")
    return Head(path.stem, part, faces.astype(np.int32), METRES[units])


def _choices() -> list[str]:
    return [*registry.heads.names(), "FILE.npz"]


def _guessed_units(neutral: np.ndarray) -> str:
    """Returns the unit in which the mesh [V, 3] of a head is 0.1 to 0.8 m across."""
    size = float(np.linalg.norm(np.ptp(neutral, axis=0)))
    return "m" if size < 2.0 else "cm" if size < 80.0 else "mm"


def read(path: str | Path, key: str) -> tuple[dict[str, np.ndarray], Part]:
    """Reads the shapes of a head.

    Args:
      path: see the module.
      key: configuration key or flag that names the file, for messages.

    Returns:
      The arrays of the file, without those of identities, and the head.

    Raises:
      InputError: no such file, damaged, or shapes that do not fit.

    Example:
        >>> read("none.npz", "--face")
        Traceback (most recent call last):
          ...
        a2fjax.errors.InputError: --face='none.npz': no such file
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(map(str, path.parent.glob("*.npz"))) if path.parent.is_dir() else []
        raise InputError(f"{key}={str(path)!r}: no such file{nearest(str(path), near)}")
    with archives.load_npz(path) as file:
        data = {name: file[name] for name in file.files if "identity" not in name}
    names, deltas = _listed(path, data)
    neutral = _numbers(path, "neutral", data["neutral"])
    if neutral.ndim != 2 or neutral.shape[1:] != (3,) or not len(neutral):
        raise InputError(f"{path}: neutral has shape {neutral.shape}, expected [V, 3]")
    columns = {c.name.lower(): c for o in channel_orders.ORDERS.values() for c in o.columns}
    shapes = np.zeros((channels_of_rig.NUM_CHANNELS, *neutral.shape))
    for name, delta in zip(names, deltas, strict=True):
        column = columns.get(name.lower())
        if column is None:
            known = [c.name for c in columns.values()]
            raise InputError(f"{path}: unknown shape {name!r}{nearest(name, known)}")
        if column.channel is None or column.channel in channels_of_rig.EYE_ANGLES:
            continue
        delta = _numbers(path, name, delta)
        if delta.shape != neutral.shape:
            raise InputError(f"{path}: {name} has shape {delta.shape}, expected {neutral.shape}")
        shapes[channels_of_rig.INDEX[column.channel]] += delta
    if not shapes.any():
        raise InputError(f"{path}: no shape of the rig moves a vertex")
    close = shapes[channels_of_rig.INDEX["mouthClose"]]
    jaw = shapes[channels_of_rig.INDEX["jawOpen"]]
    if (close * jaw).sum() > _INCLUDED * (jaw * jaw).sum() > 0:
        # NVIDIA's mouthClose includes jawOpen; the rig's is relative to an open jaw.
        close -= jaw
    return data, Part(neutral, shapes)


def _listed(path: Path, data: dict[str, np.ndarray]) -> tuple[list[str], Any]:
    if "neutral" in data:
        for prefix in ("", "expression_"):
            if {f"{prefix}names", f"{prefix}deltas"} <= set(data):
                names = [str(n) for n in np.ravel(data[f"{prefix}names"])]
                deltas = data[f"{prefix}deltas"]
                count = len(deltas) if deltas.ndim else 0
                if len(names) != count:
                    raise InputError(f"{path}: {len(names)} names of shapes, {count} shapes")
                return names, deltas
        if "poseNames" in data:
            names = [str(n) for n in np.ravel(data["poseNames"]) if str(n) != "neutral"]
            absent = [n for n in names if n not in data]
            if absent:
                raise InputError(f"{path}: poseNames lists {absent[0]!r}, which is not in the file")
            return names, [data[n] for n in names]
    held = ", ".join(sorted(data)[:8]) or "nothing"
    raise InputError(
        f"{path}: holds {held}; expected neutral with names and deltas, expression_names and "
        "expression_deltas, or poseNames and an array a pose"
    )


def _numbers(path: Path, name: str, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} holds {value.dtype}, expected numbers")
    value = value.astype(np.float64)
    if not np.isfinite(value).all():
        raise InputError(f"{path}: {name} has values that are not finite")
    return value


def vertices(
    path: str | Path, data: dict[str, np.ndarray], name: str, count: int, size: int | None = None
) -> np.ndarray | None:
    """Returns the vertex indices of an optional array, which may hold one 0 or 1 per vertex.

    Args:
      path: file, for messages.
      data: arrays of the file.
      name: of the array.
      count: number of vertices of the head.
      size: number of vertices that the array must name; None for any.

    Raises:
      InputError: not vertices of the head, or another number of them.
    """
    if name not in data:
        return None
    value = np.ravel(data[name])
    if value.dtype.kind not in "iub":
        raise InputError(f"{path}: {name} holds {value.dtype}, expected vertex numbers")
    if len(value) == count and np.isin(value, (0, 1)).all():
        value = np.flatnonzero(value)
    if len(value) and not 0 <= value.min() <= value.max() < count:
        raise InputError(f"{path}: {name} names vertices that are not among the {count}")
    if size is not None and len(value) != size:
        raise InputError(f"{path}: {name} names {len(value)} vertices, expected {size}")
    return value.astype(np.int64)
