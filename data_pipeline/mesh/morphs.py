"""Reads morph targets of glTF and GLB files: accessors, meshes and shapes. Needs pygltflib.

Follows the glTF 2.0 specification (Khronos Group 2021), sections 3.6 (binary data storage,
accessors) and 3.7.2.2 (morph targets); positions are in metres.
"""

from __future__ import annotations

import base64
import urllib.parse
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets
from a2fjax.errors import InputError
from data_pipeline.mesh.file_checks import READ_ERRORS, import_extra, one_line

_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_TRIANGLES = 4


def read_morphs(path: Path) -> dict[str, Any]:
    """Returns neutral, deltas, names, faces and units of the mesh with the most morph targets.

    Raises:
      InputError: the extra `captures` is missing, or the file is damaged or has no named shapes.
    """
    document = open_document(path)
    try:
        meshes = document.gltf.meshes
        if not meshes:
            raise InputError(f"{path}: holds no mesh")
        mesh = max(meshes, key=lambda m: len(m.primitives[0].targets or ()))
        names, count = target_names(mesh), len(mesh.primitives[0].targets or ())
        if not count or len(names) != count:
            raise InputError(
                f"{path}: {len(names)} names (extras.targetNames) for {count} morph targets"
            )
        neutral, deltas, faces = document.geometry(mesh)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a glTF file with shapes ({one_line(error)})") from None
    return {"neutral": neutral, "deltas": deltas, "names": names, "faces": faces, "units": "m"}


def open_document(path: Path) -> Document:
    """Opens a file; its contents are checked as they are read.

    Raises:
      InputError: pygltflib or the file is missing, or the file is not glTF.
    """
    pygltflib = import_extra("pygltflib", path, "glTF")
    budgets.regular_file(path)
    _check_document(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about versions and chunks: errors are reported below
            gltf = pygltflib.GLTF2().load(str(path))
        if gltf is None:
            raise ValueError("it holds no document")
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a readable glTF file ({one_line(error)})") from None
    return Document(path, gltf)


def _check_document(path: Path) -> None:
    """Checks the JSON of a file, which the library parses without limits.

    Raises:
      InputError: beyond the budgets, or not JSON.
    """
    with path.open("rb") as file:
        head = file.read(20)
        if head[:4] != b"glTF":
            text = budgets.read_bytes(path)
        else:
            length = int.from_bytes(head[12:16], "little")
            budgets.check("text_mb", length / 1e6, path)
            text = file.read(length)
    budgets.check("nodes", text.count(b"{"), path)
    budgets.parse_json(text, name=str(path))


def target_names(mesh: Any) -> list[str]:
    """Returns the names of a mesh's morph targets; empty if it has none."""
    extras = mesh.extras if isinstance(mesh.extras, dict) else {}
    return [str(name) for name in extras.get("targetNames") or ()]


class Document:
    """A loaded file. If it is damaged, methods raise the errors in `file_checks.READ_ERRORS`."""

    def __init__(self, path: Path, gltf: Any):
        """Stores the parsed document; buffers are read on demand."""
        self.path = path
        self.gltf = gltf
        self._buffers: dict[int, bytes] = {}
        self._stored, self._unpacked = path.stat().st_size, 0

    def geometry(self, mesh: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns base [V, 3], deltas [K, V, 3] and faces [F, 3] of a mesh.

        Primitives that use the same vertices share them; others are concatenated.
        """
        bases: list[np.ndarray] = []
        deltas: list[np.ndarray] = []
        faces: list[np.ndarray] = []
        first_vertex: dict[int, int] = {}  # index of each accessor's first vertex
        count = 0
        for primitive in mesh.primitives:
            key = primitive.attributes.POSITION
            if key not in first_vertex:
                base = self.accessor(key)
                moved = [self._target(target, len(base)) for target in primitive.targets or []]
                if base.shape[1:] != (3,) or any(m.shape != base.shape for m in moved):
                    raise ValueError("positions and targets differ in shape")
                first_vertex[key] = count
                count += len(base)
                bases.append(base)
                deltas.append(np.array(moved).reshape(len(moved), len(base), 3))
            if primitive.mode in (_TRIANGLES, None):
                corners = np.arange(self.gltf.accessors[key].count)
                if primitive.indices is not None:
                    corners = self.accessor(primitive.indices).reshape(-1).astype(np.int64)
                faces.append(corners[: len(corners) // 3 * 3].reshape(-1, 3) + first_vertex[key])
        if len({len(d) for d in deltas}) != 1 or not len(deltas[0]):
            raise ValueError("its parts have different numbers of morph targets, or none")
        triangles = np.concatenate(faces) if faces else np.zeros((0, 3))
        if count < 4 or (len(triangles) and triangles.max() >= count):
            raise ValueError(f"{count} vertices, and faces that name others")
        whole, shapes = np.concatenate(bases), np.concatenate(deltas, axis=1)
        if not (np.isfinite(whole).all() and np.isfinite(shapes).all()):
            raise ValueError("positions that are not finite")
        return whole, shapes, triangles.astype(np.int32)

    def _target(self, target: Any, vertices: int) -> np.ndarray:
        where = target.get("POSITION") if isinstance(target, dict) else target.POSITION
        return np.zeros((vertices, 3)) if where is None else self.accessor(where)

    def accessor(self, index: int) -> np.ndarray:
        """Returns an accessor's values [count, width] as float64, normalised if so flagged."""
        accessor = self.gltf.accessors[index]
        kind, width = np.dtype(_KINDS[accessor.componentType]), _WIDTHS[accessor.type]
        if accessor.count < 0:
            raise ValueError(f"an accessor of {accessor.count} values")
        # Accessors may share bytes, or have none: what they unpack to is unrelated to the file.
        self._unpacked += accessor.count * width * np.dtype(np.float64).itemsize
        budgets.check_unpacked(self._unpacked, self._stored, self.path)
        if accessor.bufferView is None:
            values = np.zeros((accessor.count, width))
        else:
            values = self._view(
                accessor.bufferView, accessor.byteOffset or 0, accessor.count, kind, width
            ).astype(np.float64)
        if accessor.sparse is not None:
            sparse = accessor.sparse
            places = self._view(
                sparse.indices.bufferView, sparse.indices.byteOffset or 0, sparse.count,
                np.dtype(_KINDS[sparse.indices.componentType]), 1,
            ).reshape(-1)  # fmt: skip
            values[places] = self._view(
                sparse.values.bufferView, sparse.values.byteOffset or 0, sparse.count, kind, width
            )
        if accessor.normalized and kind.kind in "iu":
            values = np.maximum(values / np.iinfo(kind).max, -1.0)
        return values

    def _view(self, view: int, offset: int, count: int, kind: np.dtype, width: int) -> np.ndarray:
        where = self.gltf.bufferViews[view]
        data = self._buffer(where.buffer)
        row = kind.itemsize * width
        step = where.byteStride or row
        start = (where.byteOffset or 0) + offset
        if count < 0 or start < 0 or step < row:
            raise ValueError("a buffer view of negative size")
        if count and start + (count - 1) * step + row > len(data):
            raise ValueError("a buffer ends too early")
        table = np.ndarray((count, width), kind, data, start, (step, kind.itemsize))
        return table.copy()

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            uri = self.gltf.buffers[index].uri
            if uri is None:
                data = self.gltf.binary_blob()
            elif uri.startswith("data:"):
                data = base64.b64decode(uri.partition(",")[2])
            else:
                file = budgets.regular_file(self.path.parent / urllib.parse.unquote(uri))
                budgets.check("unpacked_gb", file.stat().st_size / 1e9, file)
                data = file.read_bytes()
                self._stored += len(data)
            if data is None:
                raise ValueError("it has no binary part")
            self._buffers[index] = data
        return self._buffers[index]
