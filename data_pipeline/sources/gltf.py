"""glTF and GLB: a mesh with morph targets whose weights are animated. Needs pygltflib.

Formats and the formula of cubic splines follow the glTF 2.0 specification (Khronos, sections 3.6
"Binary data storage", 3.7.2.2 "Morph targets", 3.11 "Animations", appendix C "Animation sampler
interpolation modes").
"""

from __future__ import annotations

import base64
import binascii
import struct
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.errors import InputError
from data_pipeline.sources.sequences import Moving, frame_numbers, named_curves

SUFFIXES = (".glb", ".gltf")
RATE = 60.0
"""Frames a second at which animations with few keys are sampled."""

_BAKED = 0.05  # s: with linear keys closer than this, the keys are the frames
_KINDS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_DAMAGE = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, OverflowError,
    MemoryError, RecursionError, AssertionError, struct.error, binascii.Error,
)  # fmt: skip


class Morphed:
    """Moving vertices as weights and targets; made a block at a time.

    Attributes:
      shape: (frames, vertices, 3).
    """

    def __init__(self, base: np.ndarray, deltas: np.ndarray, weights: np.ndarray):
        """Keeps base [V, 3], deltas [K, V, 3] and weights [F, K]."""
        self.base, self.deltas, self.weights = base, deltas, weights
        self.shape = (len(weights), *base.shape)

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Returns vertices [n, V, 3]."""
        weights = self.weights[frames]
        moved = weights @ self.deltas.reshape(len(self.deltas), -1)
        return self.base + moved.reshape(len(weights), *self.base.shape)


def read(path: Path) -> Moving:
    """Opens a morph animation: curves where the targets have the rig's names, else vertices.

    Vertices are in millimetres (glTF is in metres, y up). Animations that are not baked (steps,
    splines, keys far apart) are sampled at `RATE` by their own interpolation.

    Raises:
      InputError: pygltflib is missing, the file is damaged, or nothing in it is animated by morph
        targets, or by several animations.
    """
    try:
        import pygltflib
    except ImportError:
        raise InputError(
            f"{path}: glTF needs the extra `captures`: pip install 'a2fjax[captures]'"
        ) from None
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        document = pygltflib.GLTF2().load(str(path))
        if document is None:
            raise ValueError("it holds no document")
        return Document(path, document).read()
    except InputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise InputError(f"{path}: not a readable glTF file ({reason})") from None


class Document:
    """A loaded file: its numbers, meshes and the animation of morph targets."""

    def __init__(self, path: Path, document: Any):
        """Keeps what pygltflib read; buffers are read when asked for."""
        self.path = path
        self.document = document
        self.buffers: dict[int, bytes] = {}

    def read(self) -> Moving:
        """Returns what the file holds; raises all that damage can raise."""
        node, sampler = self._animated()
        mesh = self.document.meshes[self.document.nodes[node].mesh]
        base, deltas, faces = self.geometry(mesh)
        place = self._place(node)
        base = 1000.0 * (base @ place[:3, :3].T + place[:3, 3])
        deltas = 1000.0 * (deltas @ place[:3, :3].T)
        keys = self._accessor(sampler.input).reshape(-1)
        values = self._accessor(sampler.output).reshape(-1)
        times, weights = self._sample(keys, values, len(deltas), sampler.interpolation or "LINEAR")
        numbers = frame_numbers(times)
        extras = mesh.extras if isinstance(mesh.extras, dict) else {}
        names = [str(n) for n in extras.get("targetNames") or []]
        found = named_curves(weights, names, self.path) if len(names) == len(deltas) else None
        if found is not None:
            curves, observed = found
            return Moving(
                numbers=numbers, times=times, curves=curves, observed=observed,
                rest=base, faces=faces, units="mm",
            )  # fmt: skip
        vertices = Morphed(base, deltas, weights)
        return Moving(
            numbers=numbers, times=times, vertices=vertices, faces=faces, rest=base, units="mm"
        )

    def _animated(self) -> tuple[int, Any]:
        """Returns the node whose morph weights move and the sampler: that with most targets."""
        found = []
        animations = set()
        for which, animation in enumerate(self.document.animations or []):
            for channel in animation.channels:
                node = channel.target.node
                if channel.target.path != "weights" or node is None:
                    continue
                mesh = self.document.meshes[self.document.nodes[node].mesh]
                targets = len(mesh.primitives[0].targets or [])
                animations.add(which)
                found.append((targets, -node, animation.samplers[channel.sampler]))
        if not found:
            raise InputError(f"{self.path}: no animation of morph target weights in it")
        if len(animations) > 1:
            raise InputError(
                f"{self.path}: {len(animations)} animations in it; expected one a file, the take's"
            )
        _, node, sampler = max(found, key=lambda each: each[:2])
        return -node, sampler

    def geometry(self, mesh: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns base [V, 3], deltas [K, V, 3] and faces; primitives one after the other."""
        bases: list[np.ndarray] = []
        deltas: list[np.ndarray] = []
        faces: list[np.ndarray] = []
        at: dict[int, int] = {}  # where an accessor's vertices begin
        count = 0
        for primitive in mesh.primitives:
            key = primitive.attributes.POSITION
            if key not in at:  # primitives may share vertices
                base = self._accessor(key)
                targets = primitive.targets or []
                moved = [self._target(target, len(base)) for target in targets]
                if base.shape[1:] != (3,) or any(m.shape != base.shape for m in moved):
                    raise ValueError("positions and targets differ in shape")
                at[key] = count
                count += len(base)
                bases.append(base)
                deltas.append(np.array(moved).reshape(len(moved), len(base), 3))
            if primitive.mode in (4, None):  # triangles
                corners = np.arange(self.document.accessors[key].count)
                if primitive.indices is not None:
                    corners = self._accessor(primitive.indices).reshape(-1).astype(np.int64)
                faces.append(corners[: len(corners) // 3 * 3].reshape(-1, 3) + at[key])
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
        return np.zeros((vertices, 3)) if where is None else self._accessor(where)

    def _accessor(self, index: int) -> np.ndarray:
        """Returns an accessor's values [count, width] as float64, normalised where it says so."""
        accessor = self.document.accessors[index]
        kind, width = np.dtype(_KINDS[accessor.componentType]), _WIDTHS[accessor.type]
        if accessor.bufferView is None:
            if not 0 <= accessor.count <= 10_000_000:
                raise ValueError(f"an accessor of {accessor.count} values")
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
        where = self.document.bufferViews[view]
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
        if index not in self.buffers:
            uri = self.document.buffers[index].uri
            if uri is None:
                data = self.document.binary_blob()
            elif uri.startswith("data:"):
                data = base64.b64decode(uri.partition(",")[2])
            else:
                data = (self.path.parent / urllib.parse.unquote(uri)).read_bytes()
            if data is None:
                raise ValueError("it has no binary part")
            self.buffers[index] = data
        return self.buffers[index]

    def _place(self, node: int) -> np.ndarray:
        """Returns the matrix [4, 4] of a node in the scene, as it lies without animation."""
        parents = {
            child: parent
            for parent, each in enumerate(self.document.nodes)
            for child in each.children or []
        }
        matrix = _local(self.document.nodes[node])
        for _ in range(len(self.document.nodes)):
            if node not in parents:
                break
            node = parents[node]
            matrix = _local(self.document.nodes[node]) @ matrix
        return matrix

    def _sample(
        self, keys: np.ndarray, values: np.ndarray, targets: int, mode: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns times [F] and weights [F, K]."""
        if mode not in ("LINEAR", "STEP", "CUBICSPLINE"):
            raise ValueError(f"interpolation {mode!r}")
        rows = 3 if mode == "CUBICSPLINE" else 1
        if not len(keys) or len(values) != len(keys) * rows * targets:
            raise ValueError(f"{len(values)} weights for {len(keys)} keys of {targets} targets")
        if not (np.isfinite(keys).all() and (np.diff(keys) > 0).all()):
            raise ValueError("key times do not increase")
        if not np.isfinite(values).all():
            raise InputError(f"{self.path}: has weights that are not finite")
        table = values.reshape(len(keys), rows, targets)
        if len(keys) == 1:
            return keys, table[:, rows // 2]
        if mode == "LINEAR" and np.diff(keys).max() <= _BAKED:
            return keys, table[:, 0]
        if keys[-1] - keys[0] > 86_400:
            raise ValueError(f"an animation of {keys[-1] - keys[0]:g} s")
        times = keys[0] + np.arange(int((keys[-1] - keys[0]) * RATE + 1e-6) + 1) / RATE
        return times, interpolate(keys, table, times, mode)


def interpolate(keys: np.ndarray, values: np.ndarray, times: np.ndarray, mode: str) -> np.ndarray:
    """Returns an animation's values [F, K] at times inside its keys.

    Args:
      keys: [T] rising times.
      values: [T, 1, K], or [T, 3, K] in-tangent, value and out-tangent for "CUBICSPLINE".
      times: [F].
      mode: "LINEAR", "STEP" or "CUBICSPLINE".
    """
    last = np.clip(np.searchsorted(keys, times, side="right") - 1, 0, len(keys) - 2)
    width = keys[last + 1] - keys[last]
    t = np.clip((times - keys[last]) / width, 0.0, 1.0)[:, None]
    if mode == "STEP":
        return np.where(t < 1.0, values[last, 0], values[last + 1, 0])
    if mode == "LINEAR":
        return (1.0 - t) * values[last, 0] + t * values[last + 1, 0]
    step = width[:, None]
    return (
        (2 * t**3 - 3 * t**2 + 1) * values[last, 1]
        + step * (t**3 - 2 * t**2 + t) * values[last, 2]
        + (-2 * t**3 + 3 * t**2) * values[last + 1, 1]
        + step * (t**3 - t**2) * values[last + 1, 0]
    )


def _local(node: Any) -> np.ndarray:
    if node.matrix is not None:
        return np.array(node.matrix, np.float64).reshape(4, 4).T  # columns first
    matrix = np.eye(4)
    if node.rotation is not None:
        x, y, z, w = np.array(node.rotation, np.float64)
        matrix[:3, :3] = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    if node.scale is not None:
        matrix[:3, :3] *= np.array(node.scale, np.float64)
    if node.translation is not None:
        matrix[:3, 3] = node.translation
    return matrix
