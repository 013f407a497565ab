"""Reads neutral meshes from npz, npy, Wavefront OBJ and PLY files."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, budgets
from a2fjax.data import records
from a2fjax.errors import InputError, nearest

ENDINGS = (".npz", ".npy", ".obj", ".ply")
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    MemoryError,
    OverflowError,
)
_LINE_MARKER = 1e22
"""Prefix of each line's numbers, so that a short line cannot take numbers from the next."""


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vertices [V, 3] float32, faces [F, 3] int32; F is 0 for a point set).

    Faces with more than three corners are split into triangle fans. The models are independent of
    the units.

    Raises:
      InputError: missing file, unknown ending, another kind of file, or not a mesh (`check_mesh`).
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"mesh {path}: unknown ending {path.suffix!r}{nearest(ending, ENDINGS)}")
    if ending == ".npz":
        return records.read_mesh(path)
    budgets.regular_file(path)
    try:
        if ending == ".npy":
            vertices, faces = archives.load_npy(path), np.zeros((0, 3))
        else:
            vertices, faces = _read_obj_or_ply(path)
        return records.check_mesh(vertices, faces, name=str(path))
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"mesh {path}: not a {ending[1:]} file ({error})") from None


def read_frame(path: str | Path) -> tuple[np.ndarray, bytes]:
    """Reads a frame of a mesh sequence: (vertices [V, 3] float32, digest of its faces).

    Frames with equal digests have equal faces; equal faces written in another notation may have
    different digests. Coordinates need not be finite: trackers write nan for lost vertices.

    Raises:
      InputError: missing file, ending other than OBJ or PLY, or content of another kind.
    """
    path = Path(path)
    if path.suffix.lower() == ".obj" and path.is_file():
        data = b"\n" + budgets.read_table(path)
        start = data.find(b"\nf ")
        quick = _obj_vertices(data)
        if quick is not None and start > data.rfind(b"\nv "):
            return quick, hashlib.blake2b(data[start:], digest_size=16).digest()
    vertices, faces = _read_obj_or_ply(path)
    return vertices, hashlib.blake2b(faces.tobytes(), digest_size=16).digest()


def read_faces(path: str | Path) -> np.ndarray:
    """Returns the faces [F, 3] int32 of an OBJ or PLY file whose vertices need not be finite.

    Raises:
      InputError: missing file, another kind of file, or faces that refer to missing vertices.
    """
    vertices, faces = _read_obj_or_ply(Path(path))
    if len(faces) and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise InputError(f"mesh {path}: a face names a vertex that is not among {len(vertices)}")
    return faces.astype(np.int32).reshape(-1, 3)


def _read_obj_or_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vertices and faces of an OBJ or PLY file without checking them."""
    ending = path.suffix.lower()
    if ending not in (".obj", ".ply"):
        raise InputError(f"mesh {path}: unknown ending {path.suffix!r}; expected .obj or .ply")
    budgets.regular_file(path)
    try:
        return _read_obj(path) if ending == ".obj" else _read_ply(path)
    except InputError:
        raise
    except _DAMAGE as error:
        raise InputError(f"mesh {path}: not a {ending[1:]} file ({error})") from None


def _numbers(text: bytes) -> np.ndarray | None:
    """Returns all numbers of a text, or None if it contains anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return np.fromstring(text, np.float64, sep=" ")
    except (ValueError, DeprecationWarning):
        return None


def _table(block: bytes, tag: bytes, count: int) -> np.ndarray | None:
    """Returns the numbers [count, n] of lines that all begin with a tag, or None otherwise."""
    values = _numbers(block.replace(tag, b" %g " % _LINE_MARKER))
    if values is None or not count or len(values) % count:
        return None
    table = values.reshape(count, -1)
    return table[:, 1:] if (table[:, 0] == _LINE_MARKER).all() else None


def _obj_vertices(data: bytes) -> np.ndarray | None:
    """Returns the vertices [V, 3] of a regular OBJ (data starts with a newline), or None."""
    first, last = data.find(b"\nv "), data.rfind(b"\nv ")
    if first < 0 or b"\nv\t" in data or b"\n " in data or b"\n\t" in data:
        return None
    end = data.find(b"\n", last + 1)
    block = data[first : end if end >= 0 else len(data)]
    count = block.count(b"\nv ")
    if block.count(b"\n") != count:  # normals or comments between the vertices
        block = b"".join(b"\n" + line for line in block.split(b"\n") if line[:2] == b"v ")
    table = _table(block, b"\nv ", count)
    if table is None or table.shape[1] < 3:
        return None
    return table[:, :3].astype(np.float32)


def _obj_faces(data: bytes, vertices: int) -> np.ndarray | None:
    """Returns the faces of a regular OBJ if all have the same corner count, otherwise None."""
    first = data.find(b"\nf ")
    if first < 0:
        return np.zeros((0, 3), np.int64) if b"\nf" not in data else None
    if first < data.rfind(b"\nv ") or b"\nf\t" in data:
        return None
    lines = [line for line in data[first:].split(b"\n") if line[:2] == b"f "]
    text = re.sub(rb"/[\d/-]*", b"", b"\n" + b"\n".join(lines))
    table = _table(text, b"\nf ", len(lines))
    if table is None or table.shape[1] < 3 or (table != np.rint(table)).any():
        return None
    corners = table.astype(np.int64)
    return _fans(np.where(corners > 0, corners - 1, corners + vertices))


def _fans(corners: np.ndarray) -> np.ndarray:
    """Returns triangles [F * (n - 2), 3] of polygons [F, n]."""
    first = np.broadcast_to(corners[:, :1], (len(corners), corners.shape[1] - 2))
    return np.stack([first, corners[:, 1:-1], corners[:, 2:]], axis=-1).reshape(-1, 3)


def _fan(corners: list[int]) -> list[tuple[int, int, int]]:
    return [(corners[0], a, b) for a, b in zip(corners[1:], corners[2:], strict=False)]


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = b"\n" + budgets.read_table(path)
    quick = _obj_vertices(data)
    if quick is not None:
        triangles = _obj_faces(data, len(quick))
        if triangles is not None:
            return quick, triangles
    # Parse line by line to handle irregular files and to report the faulty line.
    vertices: list[list[float]] = []
    faces: list[tuple[int, int, int]] = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            if not words:
                continue
            try:
                if words[0] == "v":
                    vertices.append([float(words[1]), float(words[2]), float(words[3])])
                elif words[0] == "f":
                    corners = [int(word.split("/")[0]) for word in words[1:]]
                    # A negative index counts back from the vertices read so far.
                    faces += _fan([c - 1 if c > 0 else c + len(vertices) for c in corners])
            except (ValueError, IndexError):
                raise InputError(
                    f"mesh {path}:{number}: cannot read {line.strip()[:60]!r}"
                ) from None
    return np.array(vertices, np.float32).reshape(-1, 3), np.array(faces, np.int64)


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    data = budgets.read_bytes(path)
    with io.BytesIO(data) as file:
        if file.readline().strip() != b"ply":
            raise ValueError("its first line is not 'ply'")
        form = ""
        elements: list[tuple[str, int, list[list[str]]]] = []
        while True:
            line = file.readline()
            if not line:
                raise ValueError("the header has no end")
            words = line.decode("ascii", "replace").split()
            if not words or words[0] in ("comment", "obj_info"):
                continue
            if words[0] == "end_header":
                break
            if words[0] == "format":
                form = words[1]
            elif words[0] == "element":
                elements.append((words[1], int(words[2]), []))
            elif words[0] == "property":
                elements[-1][2].append(words[1:])
        source: _AsciiPly | _BinaryPly
        if form == "ascii":
            source = _AsciiPly(file.read())
        elif form in ("binary_little_endian", "binary_big_endian"):
            source = _BinaryPly(file.read(), "<" if form.endswith("little_endian") else ">")
        else:
            raise ValueError(f"format {form!r}, expected ascii or binary")
    vertices: np.ndarray = np.zeros((0, 3))
    faces: Any = []
    for name, count, properties in elements:
        if not 0 <= count * max(1, len(properties)) <= len(data):
            raise ValueError(f"its header states {count} of {name}, the file has {len(data)} bytes")
        if name == "vertex" and all(p[0] != "list" for p in properties):
            table = source.table(count, [_PLY_TYPES[p[0]] for p in properties])
            names = [p[-1] for p in properties]
            vertices = np.stack([table[names.index(axis)] for axis in "xyz"], -1)
            continue
        alike = source.lists(count, properties)
        if alike is not None:
            for p, corners in zip(properties, alike, strict=True):
                if name == "face" and p[-1] in ("vertex_indices", "vertex_index"):
                    faces = _fans(corners) if corners.shape[1] > 2 else []
            continue
        for _ in range(count):
            for p in properties:
                if p[0] != "list":
                    source.take(1, _PLY_TYPES[p[0]])
                    continue
                (length,) = source.take(1, _PLY_TYPES[p[1]])
                corners = source.take(int(length), _PLY_TYPES[p[2]])
                if name == "face" and p[-1] in ("vertex_indices", "vertex_index"):
                    faces += _fan([int(c) for c in corners])
    return vertices.astype(np.float32), np.array(faces, np.int64)


class _AsciiPly:
    def __init__(self, text: bytes):
        values = _numbers(text)
        if values is None:
            raise ValueError("there is something else than numbers after its header")
        self._values, self._at = values, 0

    def take(self, count: int, kind: str) -> np.ndarray:
        if count < 0 or self._at + count > len(self._values):
            raise ValueError("it ends too early")
        self._at += count
        return self._values[self._at - count : self._at]

    def table(self, count: int, kinds: list[str]) -> list[np.ndarray]:
        values = self.take(count * len(kinds), "f8").reshape(count, len(kinds))
        return list(values.T)

    def lists(self, count: int, properties: list[list[str]]) -> list[np.ndarray] | None:
        """Returns the values [count, n] of each property if all rows have the same n, or None."""
        if len(properties) != 1 or properties[0][0] != "list" or self._at >= len(self._values):
            return None
        width = 1 + int(self._values[self._at])
        end = self._at + count * width
        if width < 1 or end > len(self._values):
            return None
        table = self._values[self._at : end].reshape(count, width)
        if (table[:, 0] != width - 1).any():
            return None
        self._at = end
        return [table[:, 1:].astype(np.int64)]


class _BinaryPly:
    def __init__(self, data: bytes, order: str):
        self._data, self._at, self._order = data, 0, order

    def take(self, count: int, kind: str) -> np.ndarray:
        dtype = np.dtype(self._order + kind)
        if count < 0 or self._at + count * dtype.itemsize > len(self._data):
            raise ValueError("it ends too early")
        out = np.frombuffer(self._data, dtype, count, self._at)
        self._at += count * dtype.itemsize
        return out

    def table(self, count: int, kinds: list[str]) -> list[np.ndarray]:
        dtype = np.dtype([(str(i), self._order + kind) for i, kind in enumerate(kinds)])
        if count < 0 or self._at + count * dtype.itemsize > len(self._data):
            raise ValueError("it ends too early")
        table = np.frombuffer(self._data, dtype, count, self._at)
        self._at += count * dtype.itemsize
        return [table[str(i)] for i in range(len(kinds))]

    def lists(self, count: int, properties: list[list[str]]) -> list[np.ndarray] | None:
        """Returns the values [count, n] of each property if all rows have the same n, or None."""
        fields: list[tuple[str, str, tuple[int, ...]]] = []
        lengths, at = [], self._at
        for i, p in enumerate(properties):
            if p[0] != "list":
                fields.append((f"v{i}", self._order + _PLY_TYPES[p[0]], (1,)))
                at += np.dtype(_PLY_TYPES[p[0]]).itemsize
                continue
            kind = np.dtype(self._order + _PLY_TYPES[p[1]])
            if at + kind.itemsize > len(self._data):
                return None
            length = int(np.frombuffer(self._data, kind, 1, at)[0])
            values = np.dtype(self._order + _PLY_TYPES[p[2]])
            lengths.append((f"n{i}", length))
            fields += [(f"n{i}", kind.str, ()), (f"v{i}", values.str, (length,))]
            at += kind.itemsize + length * values.itemsize
            if length < 0 or at > len(self._data):
                return None
        dtype = np.dtype(fields)
        if not count or self._at + count * dtype.itemsize > len(self._data):
            return None
        table = np.frombuffer(self._data, dtype, count, self._at)
        if any((table[name] != length).any() for name, length in lengths):
            return None
        self._at += count * dtype.itemsize
        return [table[f"v{i}"] for i in range(len(properties))]
