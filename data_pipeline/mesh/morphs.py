"""Shapes in a glTF file: morph targets named by `extras.targetNames`.

After the glTF 2.0 specification (Khronos Group 2021), sections 3.6.2 (accessors) and 3.7.2.2 (morph
targets); positions are in metres.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError

_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_TRIANGLES = 4
_MOST = 50_000_000  # elements: a damaged count must not take the memory


def read(path: Path) -> dict[str, Any]:
    """Returns neutral, deltas, names, faces and units of the mesh with most morph targets.

    Primitives of a mesh that use the same vertices share them; others are laid end to end.

    Raises:
      InputError: the extra `captures` is missing, or the file is damaged or has no named shapes.
    """
    try:
        import pygltflib
    except ImportError:
        raise InputError(
            f"{path}: glTF needs the extra `captures`: pip install 'a2fjax[captures]'"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions and chunks: what is wrong is said below
            return _shapes(path, pygltflib.GLTF2().load(str(path)))
    except InputError:
        raise
    except Exception as error:  # whatever a parser meets in a damaged file
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a glTF file with shapes ({said})") from None


def _shapes(path: Path, gltf: Any) -> dict[str, Any]:
    if gltf is None or not gltf.meshes:
        raise InputError(f"{path}: holds no mesh")
    mesh = max(gltf.meshes, key=lambda m: len(m.primitives[0].targets or ()))
    count = len(mesh.primitives[0].targets or ())
    names = [str(n) for n in (mesh.extras or {}).get("targetNames", ())]
    if not count or len(names) != count:
        raise InputError(
            f"{path}: {len(names)} names (extras.targetNames) for {count} morph targets"
        )
    parts: dict[int, int] = {}
    neutral: list[np.ndarray] = []
    deltas: list[list[np.ndarray]] = [[] for _ in names]
    faces: list[np.ndarray] = []
    total = 0
    for primitive in mesh.primitives:
        where = primitive.attributes.POSITION
        if where not in parts:
            points = _accessor(gltf, where)
            parts[where] = total
            total += len(points)
            neutral.append(points)
            targets = primitive.targets or []
            if len(targets) != count:
                raise InputError(f"{path}: parts of a mesh have {count} and {len(targets)} shapes")
            for shape, target in zip(deltas, targets, strict=True):
                given = target.get("POSITION") if isinstance(target, dict) else target.POSITION
                shape.append(np.zeros_like(points) if given is None else _accessor(gltf, given))
        if primitive.indices is not None and primitive.mode in (None, _TRIANGLES):
            indices = _accessor(gltf, primitive.indices).astype(np.int64)
            faces.append(indices.reshape(-1, 3) + parts[where])
    return {
        "neutral": np.concatenate(neutral),
        "deltas": [np.concatenate(shape) for shape in deltas],
        "names": names,
        "faces": np.concatenate(faces) if faces else None,
        "units": "m",
    }


def _accessor(gltf: Any, index: int) -> np.ndarray:
    """Returns the numbers of an accessor: [N, 3] of vectors, [N] of scalars."""
    accessor = gltf.accessors[index]
    width = {"SCALAR": 1, "VEC3": 3}[accessor.type]
    if not 0 < accessor.count < _MOST:
        raise ValueError(f"an accessor of {accessor.count} elements")
    if accessor.bufferView is None:
        values = np.zeros((accessor.count, width), np.float32)
    else:
        values = _view(
            gltf, accessor.bufferView, accessor.byteOffset, accessor.componentType,
            accessor.count, width,
        )  # fmt: skip
    if accessor.sparse is not None:
        sparse = accessor.sparse
        at = _view(
            gltf, sparse.indices.bufferView, sparse.indices.byteOffset,
            sparse.indices.componentType, sparse.count, 1,
        )[:, 0]  # fmt: skip
        values = values.copy()
        values[at.astype(np.int64)] = _view(
            gltf, sparse.values.bufferView, sparse.values.byteOffset, accessor.componentType,
            sparse.count, width,
        )  # fmt: skip
    return values if width > 1 else values[:, 0]


def _view(
    gltf: Any, index: int, offset: int | None, kind: int, count: int, width: int
) -> np.ndarray:
    view = gltf.bufferViews[index]
    data = gltf.get_data_from_buffer_uri(gltf.buffers[view.buffer].uri)
    numbers = np.dtype(_TYPES[kind])
    start = (view.byteOffset or 0) + (offset or 0)
    stride = view.byteStride or numbers.itemsize * width
    if (
        start < 0
        or count < 1
        or start + stride * (count - 1) + numbers.itemsize * width > len(data)
    ):
        raise ValueError("an accessor reaches beyond its buffer")
    return np.ndarray((count, width), numbers, data, start, (stride, numbers.itemsize))
