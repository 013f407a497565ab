"""Neutral meshes from the files people have: npz, npy, Wavefront OBJ and PLY."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from a2fjax.data import records
from a2fjax.errors import InputError, nearest

ENDINGS = (".npz", ".npy", ".obj", ".ply")
_PLY_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip


def read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns (vertices [V, 3] float32, faces [F, 3] int32; F is 0 for a point set).

    Faces of more than three corners are split into fans. Units do not matter to the models.

    Raises:
      InputError: missing file, unknown ending, not such a file, or not a mesh (`check_mesh`).
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise InputError(f"mesh {path}: unknown ending {path.suffix!r}{nearest(ending, ENDINGS)}")
    if ending == ".npz":
        return records.read_mesh(path)
    if not path.is_file():
        raise InputError(f"mesh {path}: no such file")
    try:
        if ending == ".npy":
            vertices, faces = np.load(path, allow_pickle=False), np.zeros((0, 3))
        elif ending == ".obj":
            vertices, faces = _read_obj(path)
        else:
            vertices, faces = _read_ply(path)
        return records.check_mesh(vertices, faces, name=str(path))
    except InputError:
        raise
    except (OSError, ValueError, EOFError, IndexError, TypeError) as error:
        raise InputError(f"mesh {path}: not a {ending[1:]} file ({error})") from None


def _fan(corners: list[int]) -> list[tuple[int, int, int]]:
    return [(corners[0], a, b) for a, b in zip(corners[1:], corners[2:], strict=False)]


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
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
                raise InputError(f"mesh {path}:{number}: cannot read {line.strip()!r}") from None
    return np.array(vertices, np.float32).reshape(-1, 3), np.array(faces, np.int64)


def _read_ply(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(path, "rb") as file:
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
            source = _AsciiPly(file.read().split())
        elif form in ("binary_little_endian", "binary_big_endian"):
            source = _BinaryPly(file.read(), "<" if form.endswith("little_endian") else ">")
        else:
            raise ValueError(f"format {form!r}, expected ascii or binary")
    vertices, faces = np.zeros((0, 3)), []
    for name, count, properties in elements:
        if name == "vertex" and all(p[0] != "list" for p in properties):
            table = source.table(count, [_PLY_TYPES[p[0]] for p in properties])
            names = [p[-1] for p in properties]
            vertices = np.stack([table[names.index(axis)] for axis in "xyz"], -1)
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
    def __init__(self, words: list[bytes]):
        self._words, self._at = words, 0

    def take(self, count: int, kind: str) -> np.ndarray:
        words = self._words[self._at : self._at + count]
        if len(words) < count:
            raise ValueError("it ends too early")
        self._at += count
        return np.array([float(word) for word in words])

    def table(self, count: int, kinds: list[str]) -> list[np.ndarray]:
        values = self.take(count * len(kinds), "f8").reshape(count, len(kinds))
        return list(values.T)


class _BinaryPly:
    def __init__(self, data: bytes, order: str):
        self._data, self._at, self._order = data, 0, order

    def take(self, count: int, kind: str) -> np.ndarray:
        dtype = np.dtype(self._order + kind)
        if self._at + count * dtype.itemsize > len(self._data):
            raise ValueError("it ends too early")
        out = np.frombuffer(self._data, dtype, count, self._at)
        self._at += count * dtype.itemsize
        return out

    def table(self, count: int, kinds: list[str]) -> list[np.ndarray]:
        dtype = np.dtype([(str(i), self._order + kind) for i, kind in enumerate(kinds)])
        if self._at + count * dtype.itemsize > len(self._data):
            raise ValueError("it ends too early")
        table = np.frombuffer(self._data, dtype, count, self._at)
        self._at += count * dtype.itemsize
        return [table[str(i)] for i in range(len(kinds))]
