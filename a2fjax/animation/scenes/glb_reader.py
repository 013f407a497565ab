"""Reads the curves of a GLB: animated weights of named morph targets, and the eyes' joints.

Follows the glTF 2.0 specification (Khronos Group 2021), sections 3.6, 3.11 and 4.4. Keys are
float32, LINEAR or STEP, as `glb` and most exporters write them; the capture layout `meshes` of the
data pipeline reads other forms as well.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from a2fjax import budgets, channel_orders
from a2fjax.animation import mouth_close, tracks
from a2fjax.animation.scenes import targets
from a2fjax.errors import InputError

_FLOAT = 5126
_WIDTHS = {"SCALAR": 1, "VEC4": 4}
_DAMAGE = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, struct.error)


def read(path: str | Path) -> tracks.Track:
    """Reads the animation of the mesh with the most morph targets.

    Raises:
      InputError: missing, damaged or no GLB; no animated weights; targets without names of
        channels; keys of another form.
    """
    path = budgets.regular_file(path)
    try:
        with path.open("rb") as file:
            document, start, size = _chunks(path, file)
            return _read(path, _Binary(path, file, document, start, size))
    except InputError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: damaged GLB ({type(error).__name__}: {reason})") from None


def _chunks(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int, int]:
    """Returns the JSON document, and place and size of the binary part."""
    total = path.stat().st_size
    head = file.read(20)
    if len(head) < 20 or head[:4] != b"glTF":
        raise InputError(f"{path}: not a GLB")
    version, length, text_size = struct.unpack("<III", head[4:16])
    if version != 2 or head[16:20] != b"JSON":
        raise InputError(f"{path}: GLB of version {version}, expected 2")
    if length > total or 20 + text_size > total:
        raise InputError(f"{path}: truncated: {total} bytes, expected {length}")
    budgets.check("text_mb", text_size / 1e6, path)
    document = budgets.parse_json(file.read(text_size), name=str(path))
    if not isinstance(document, dict):
        raise InputError(f"{path}: its JSON is no object")
    start = 20 + text_size
    chunk = file.read(8)
    size = struct.unpack("<I", chunk[:4])[0] if chunk[4:] == b"BIN\0" else 0
    if start + 8 + size > total:
        raise InputError(f"{path}: truncated: its binary part is incomplete")
    return document, start + 8, size


class _Binary:
    """A document with its binary part; damaged ones raise `_DAMAGE`."""

    def __init__(self, path: Path, file: BinaryIO, document: dict[str, Any], start: int, size: int):
        self.path, self.document = path, document
        self._file, self._start, self._size = file, start, size

    def floats(self, index: int) -> np.ndarray:
        """Returns the values [count, width] float32 of an accessor."""
        accessor = self.document["accessors"][index]
        width, count = _WIDTHS[accessor["type"]], int(accessor["count"])
        view = self.document["bufferViews"][accessor["bufferView"]]
        plain = view.get("buffer", 0) == 0 and "byteStride" not in view
        if accessor["componentType"] != _FLOAT or "sparse" in accessor or not plain:
            raise InputError(
                f"{self.path}: keys of another form than packed float32; the layout `meshes` of "
                "data_pipeline reads them"
            )
        offset = int(view.get("byteOffset", 0)) + int(accessor.get("byteOffset", 0))
        if count < 1 or offset < 0 or offset + 4 * count * width > self._size:
            raise ValueError("an accessor beyond the binary part")
        self._file.seek(self._start + offset)
        values = np.frombuffer(self._file.read(4 * count * width), "<f4")
        if not np.isfinite(values).all():
            raise InputError(f"{self.path}: has keys that are not finite")
        return values.reshape(count, width)


def _read(path: Path, binary: _Binary) -> tracks.Track:
    document = binary.document
    animation, sampler, mesh = _animated(path, document)
    if sampler.get("interpolation", "LINEAR") not in ("LINEAR", "STEP"):
        raise InputError(f"{path}: {sampler['interpolation']} keys, expected LINEAR or STEP")
    names = [str(name) for name in (mesh.get("extras") or {}).get("targetNames") or ()]
    count = len(mesh["primitives"][0].get("targets") or ())
    if not count or len(names) != count:
        raise InputError(f"{path}: {len(names)} names (extras.targetNames) for {count} targets")
    times = binary.floats(sampler["input"])[:, 0].astype(np.float64)
    budgets.check("frames_millions", len(times) / 1e6, path)
    values = binary.floats(sampler["output"]).reshape(len(times), count)
    notes = animation.get("extras") if isinstance(animation.get("extras"), dict) else {}
    stated = notes.get(mouth_close.KEY, "arkit")
    mouth_close.check(stated, f"{path}: {mouth_close.KEY}")
    try:
        motion, observed = channel_orders.from_names(values, names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    for eye, rotation in _eyes(document, animation, binary).items():
        if len(rotation) == len(times):
            index = list(targets.EYES[eye])
            motion[:, index], observed[index] = targets.angles(rotation), True
    return tracks.Track(mouth_close.to_rig(motion, stated), _times(path, times, notes), observed)


def _animated(path: Path, document: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Returns the animation, sampler and mesh of the node with the most animated targets."""
    found = []
    for animation in document.get("animations") or ():
        for channel in animation["channels"]:
            target = channel["target"]
            if target.get("path") == "weights" and "node" in target:
                mesh = document["meshes"][document["nodes"][target["node"]]["mesh"]]
                sampler = animation["samplers"][channel["sampler"]]
                found.append((animation, sampler, mesh))
    if not found:
        raise InputError(f"{path}: no animation of morph target weights in it")
    return max(found, key=lambda f: len(f[2]["primitives"][0].get("targets") or ()))


def _eyes(
    document: dict[str, Any], animation: dict[str, Any], binary: _Binary
) -> dict[str, np.ndarray]:
    """Returns the rotations [F, 4] of the eyes' joints, by name."""
    found = {}
    for channel in animation["channels"]:
        target = channel["target"]
        if target.get("path") == "rotation" and "node" in target:
            name = document["nodes"][target["node"]].get("name")
            if name in targets.EYES:
                found[name] = binary.floats(animation["samplers"][channel["sampler"]]["output"])
    return found


def _times(path: Path, times: np.ndarray, notes: dict[str, Any]) -> np.ndarray:
    """Returns the times of the keys in s: exact where the file states its rate."""
    if (np.diff(times) <= 0).any():
        raise InputError(f"{path}: key times do not increase")
    stated = notes.get("fps_exact")
    if stated is None:
        return times
    fps: Fraction = tracks.rate(str(stated))
    exact = np.arange(len(times)) * (fps.denominator / fps.numerator)
    # Keys are float32: others than these were moved by an editor.
    return exact if np.allclose(times, exact, rtol=1e-6, atol=1e-6) else times
