"""Reads glTF and GLB meshes with animated morph target weights. Needs pygltflib.

Animations and the cubic spline formula follow the glTF 2.0 specification (Khronos Group 2021,
section 3.11 and appendix C "Animation sampler interpolation modes"); `morphs` reads the meshes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import budgets
from a2fjax.animation import mouth_close
from a2fjax.animation.row_times import frame_numbers
from a2fjax.errors import InputError
from data_pipeline.mesh import morphs
from data_pipeline.mesh.file_checks import READ_ERRORS, one_line
from data_pipeline.sources.animations import choose_animation
from data_pipeline.sources.sequences import MotionFile, named_curves

SUFFIXES = (".glb", ".gltf")
RATE = 60.0
"""Frames a second at which animations with few keys are sampled."""

_FRAME_GAP = {"LINEAR": 0.05, "STEP": 0.085}  # s: even keys at most this far apart are frames
_EVEN = 1.9  # ratio of the longest to the shortest time between keys; at 2, one is left out


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


def read_gltf(path: Path, *, animation: str = "", take: str = "") -> MotionFile:
    """Opens a morph animation: curves if the targets have the rig's names, else vertices.

    glTF is in metres, y up. Keys at the even distances of frames are used as frames. Other STEP
    keys that are as near are sampled at their own rate, and the rest (splines, sparse keys) at
    `RATE`, with their interpolation.

    Args:
      path: the file.
      animation: name of the animation to read if there are several; see `choose_animation`.
      take: name of the take.

    Raises:
      InputError: pygltflib is missing, the file is damaged, or no animation moves its morph
        targets.
    """
    document = morphs.open_document(path)
    try:
        return _read(document, animation, take)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a readable glTF file ({one_line(error)})") from None


def animation_names(path: Path) -> list[str]:
    """Returns the names of the animations of morph targets.

    Raises:
      InputError: pygltflib is missing, or the file is damaged.
    """
    document = morphs.open_document(path)
    try:
        return list(_morph_animations(document))
    except READ_ERRORS as error:
        raise InputError(f"{path}: not a readable glTF file ({one_line(error)})") from None


def _read(document: morphs.Document, animation: str, take: str) -> MotionFile:
    """Reads the animation; may raise any of the errors of damaged files."""
    node, sampler, notes = _animated(document, animation, take)
    mesh = document.gltf.meshes[document.gltf.nodes[node].mesh]
    base, deltas, faces = document.geometry(mesh)
    transform = _place(document.gltf.nodes, node)
    base = base @ transform[:3, :3].T + transform[:3, 3]
    deltas = deltas @ transform[:3, :3].T
    keys = document.accessor(sampler.input).reshape(-1)
    values = document.accessor(sampler.output).reshape(-1)
    mode = sampler.interpolation or "LINEAR"
    times, weights = _sample(document.path, keys, values, len(deltas), mode)
    numbers = frame_numbers(times)
    names = morphs.target_names(mesh)
    named = None
    if len(names) == len(deltas):
        convention = _mouth_close(document, sampler)
        named = named_curves(weights, names, document.path, convention=convention)
    if named is not None:
        curves, observed = named
        return MotionFile(
            numbers=numbers, times=times, curves=curves, observed=observed,
            rest=base, faces=faces, millimetres=1000.0, axes=np.eye(3), notes=notes,
        )  # fmt: skip
    return MotionFile(
        numbers=numbers, times=times, vertices=MorphedVertices(base, deltas, weights),
        rest=base, faces=faces, millimetres=1000.0, axes=np.eye(3), notes=notes,
    )  # fmt: skip


def _morph_animations(document: morphs.Document) -> dict[str, list[tuple[int, int, Any]]]:
    """Returns (number of targets, -node, sampler) of the animated nodes, by animation."""
    animations: dict[str, list[tuple[int, int, Any]]] = {}
    for which, animation in enumerate(document.gltf.animations or []):
        name = str(animation.name or which)
        name = name if name not in animations else f"{name} ({which})"
        for channel in animation.channels:
            node = channel.target.node
            if channel.target.path != "weights" or node is None:
                continue
            mesh = document.gltf.meshes[document.gltf.nodes[node].mesh]
            targets = len(mesh.primitives[0].targets or [])
            sampler = animation.samplers[channel.sampler]
            animations.setdefault(name, []).append((targets, -node, sampler))
    return animations


def _animated(document: morphs.Document, asked: str, take: str) -> tuple[int, Any, tuple[str, ...]]:
    """Returns the node with the most animated morph targets, its sampler, and notes."""
    animations = _morph_animations(document)
    if not animations:
        raise InputError(f"{document.path}: no animation of morph target weights in it")
    chosen = {n: max(c, key=lambda each: each[:2]) for n, c in animations.items()}
    lengths = [0.0]
    if len(chosen) > 1:
        lengths = [
            float(np.ptp(document.accessor(sampler.input))) for _, _, sampler in chosen.values()
        ]
    names = list(chosen)
    index, notes = choose_animation(document.path, names, lengths, asked=asked, take=take)
    _, node, sampler = chosen[names[index]]
    return -node, sampler, notes


def _mouth_close(document: morphs.Document, sampler: Any) -> str:
    """Returns the convention of mouthClose that the animation of a sampler states."""
    for animation in document.gltf.animations:
        if any(each is sampler for each in animation.samplers) and animation.extras:
            return str(animation.extras.get(mouth_close.KEY, "arkit"))
    return "arkit"


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
    gaps, longest = np.diff(keys), _FRAME_GAP.get(mode, 0.0)
    if gaps.max() <= longest and gaps.max() < _EVEN * gaps.min():
        return keys, table[:, 0]
    rate = RATE
    if mode == "STEP" and gaps.min() <= longest:
        # Exporters leave out keys that repeat the one before.
        rate = min(RATE, 1.0 / float(np.median(gaps[gaps < 1.5 * gaps.min()])))
    frames = (keys[-1] - keys[0]) * rate
    budgets.check("frames_millions", frames / 1e6, path)
    budgets.check_unpacked(frames * targets * 8, path.stat().st_size, path)
    times = keys[0] + np.arange(int(frames + 1e-3) + 1) / rate
    return times, interpolate(keys, table, times, mode)


def interpolate(keys: np.ndarray, values: np.ndarray, times: np.ndarray, mode: str) -> np.ndarray:
    """Returns an animation's values [F, K] at times inside its keys.

    Args:
      keys: [T] rising times.
      values: [T, 1, K], or [T, 3, K] in-tangent, value and out-tangent for "CUBICSPLINE".
      times: [F].
      mode: "LINEAR", "STEP" or "CUBICSPLINE".
    """
    if mode == "STEP":
        # Keys are float32: a time that was meant to be a key's may be just before it.
        held = np.searchsorted(keys, times + 1e-3 * np.diff(keys).min(), side="right") - 1
        return values[np.maximum(held, 0), 0]
    last = np.clip(np.searchsorted(keys, times, side="right") - 1, 0, len(keys) - 2)
    width = keys[last + 1] - keys[last]
    t = np.clip((times - keys[last]) / width, 0.0, 1.0)[:, None]
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
