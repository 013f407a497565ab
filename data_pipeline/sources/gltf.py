"""Reads glTF and GLB meshes with animated morph target weights. Needs pygltflib.

Animations and the cubic spline formula follow the glTF 2.0 specification (Khronos Group 2021,
section 3.11 and appendix C "Animation sampler interpolation modes"); `morphs` reads the meshes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax.animation.row_times import frame_numbers
from a2fjax.errors import InputError
from data_pipeline.mesh import morphs
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line
from data_pipeline.sources.sequences import MotionFile, named_curves

SUFFIXES = (".glb", ".gltf")
RATE = 60.0
"""Frames a second at which animations with few keys are sampled."""

_BAKED = 0.05  # s: linear keys at most this far apart are used as frames


class MorphedVertices:
    """Moving vertices computed from weights and morph targets in blocks.

    Attributes:
      shape: (frames, vertices, 3).
    """

    def __init__(self, base: np.ndarray, deltas: np.ndarray, weights: np.ndarray):
        """Stores base [V, 3], deltas [K, V, 3] and weights [F, K]."""
        self.base, self.deltas, self.weights = base, deltas, weights
        self.shape = (len(weights), *base.shape)

    def __getitem__(self, frames: slice) -> np.ndarray:
        """Returns vertices [n, V, 3]."""
        weights = self.weights[frames]
        moved = weights @ self.deltas.reshape(len(self.deltas), -1)
        return self.base + moved.reshape(len(weights), *self.base.shape)


def read_gltf(path: Path) -> MotionFile:
    """Opens a morph animation: curves if the targets have the rig's names, else vertices.

    Vertices are in millimetres (glTF is in metres, y up). Animations that are not baked (steps,
    splines, sparse keys) are sampled at `RATE` with their interpolation mode.

    Raises:
      InputError: pygltflib is missing, the file is damaged, or its morph targets are animated by
        no animation or by several.
    """
    document = morphs.open_document(path)
    try:
        return _read(document)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a readable glTF file ({one_line(error)})") from None


def _read(document: morphs.Document) -> MotionFile:
    """Reads the animation; may raise any of the errors of damaged files."""
    node, sampler = _animated(document)
    mesh = document.gltf.meshes[document.gltf.nodes[node].mesh]
    base, deltas, faces = document.geometry(mesh)
    transform = _place(document.gltf.nodes, node)
    base = 1000.0 * (base @ transform[:3, :3].T + transform[:3, 3])
    deltas = 1000.0 * (deltas @ transform[:3, :3].T)
    keys = document.accessor(sampler.input).reshape(-1)
    values = document.accessor(sampler.output).reshape(-1)
    mode = sampler.interpolation or "LINEAR"
    times, weights = _sample(document.path, keys, values, len(deltas), mode)
    numbers = frame_numbers(times)
    names = morphs.target_names(mesh)
    named = named_curves(weights, names, document.path) if len(names) == len(deltas) else None
    if named is not None:
        curves, observed = named
        return MotionFile(
            numbers=numbers, times=times, curves=curves, observed=observed,
            rest=base, faces=faces, units="mm",
        )  # fmt: skip
    vertices = MorphedVertices(base, deltas, weights)
    return MotionFile(
        numbers=numbers, times=times, vertices=vertices, faces=faces, rest=base, units="mm"
    )


def _animated(document: morphs.Document) -> tuple[int, Any]:
    """Returns the node with the most animated morph targets, and its sampler."""
    candidates = []
    animations = set()
    for which, animation in enumerate(document.gltf.animations or []):
        for channel in animation.channels:
            node = channel.target.node
            if channel.target.path != "weights" or node is None:
                continue
            mesh = document.gltf.meshes[document.gltf.nodes[node].mesh]
            targets = len(mesh.primitives[0].targets or [])
            animations.add(which)
            candidates.append((targets, -node, animation.samplers[channel.sampler]))
    if not candidates:
        raise InputError(f"{document.path}: no animation of morph target weights in it")
    if len(animations) > 1:
        raise InputError(
            f"{document.path}: {len(animations)} animations in it; expected one a file, the take's"
        )
    _, node, sampler = max(candidates, key=lambda each: each[:2])
    return -node, sampler


def _place(nodes: Sequence[Any], node: int) -> np.ndarray:
    """Returns the scene matrix [4, 4] of a node without animation."""
    parents = {child: parent for parent, each in enumerate(nodes) for child in each.children or []}
    matrix = _local(nodes[node])
    for _ in range(len(nodes)):
        if node not in parents:
            break
        node = parents[node]
        matrix = _local(nodes[node]) @ matrix
    return matrix


def _sample(
    path: Path, keys: np.ndarray, values: np.ndarray, targets: int, mode: str
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
        raise InputError(f"{path}: has weights that are not finite")
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
        return np.array(node.matrix, np.float64).reshape(4, 4).T  # glTF is column-major
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
