"""GLB: a head with morph targets, and an animation of their weights and of the eyes' joints.

Follows the glTF 2.0 specification (Khronos Group 2021): sections 3.6 (buffers), 3.7.2.2 (morph
targets), 3.11 (animations) and 4.4 (GLB). Names of the targets are in `mesh.extras.targetNames`,
where Blender, three.js and Unity look for them; `animation.extras` holds the exact frame rate, the
convention of mouthClose and the sound's file. glTF has no sound of its own.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax import head_shapes, rig
from a2fjax.animation import mouth_close
from a2fjax.animation.scenes import glb_reader, targets
from a2fjax.errors import InputError

if TYPE_CHECKING:
    from a2fjax.animation.formats import Header

_FLOAT, _UINT = 5126, 5125
_VERTICES, _CORNERS = 34962, 34963
_LARGEST = 2**32 - 1
_BLOCK = 100_000


class GlbFormat:
    """Writes a GLB block by block; its size is known before the first frame."""

    order = "rig68"
    takes = ("order", "names_map", "mouth_close", "head")
    read = staticmethod(glb_reader.read)

    def __init__(self, path: Path, header: Header):
        """Writes everything but the values of the curves.

        Raises:
          InputError: no such head, or more than the 4 GiB that a GLB can hold.
        """
        self._targets = targets.of_head(head_shapes.load_head(header.head), header.columns)
        self._frames, self._written = header.frames, 0
        layout = _Layout(self._targets, header)
        text = json.dumps(layout.document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        binary = 12 + 8 + len(text) + 8
        total = binary + layout.size
        if total > _LARGEST:
            raise InputError(
                f"{header.path}: would take {total / 2**30:.1f} GiB, a GLB holds 4; cut the "
                "recording, or lower --fps"
            )
        self._file = open(path, "wb")
        self._file.write(struct.pack("<4sII", b"glTF", 2, total))
        self._file.write(struct.pack("<I4s", len(text), b"JSON") + text)
        self._file.write(struct.pack("<I4s", layout.size, b"BIN\0"))
        self._file.truncate(total)
        for name, array in layout.arrays.items():
            self._file.seek(binary + layout.offsets[name])
            self._file.write(array.tobytes())
        self._file.seek(binary + layout.offsets["times"])
        for first in range(0, self._frames, _BLOCK):
            frames = np.arange(first, min(first + _BLOCK, self._frames))
            seconds = frames * header.fps.denominator / header.fps.numerator
            self._file.write(seconds.astype("<f4").tobytes())
        self._at = {name: binary + layout.offsets[name] for name in ("weights", *targets.EYES)}

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        self._written += len(motion)
        values = {name: targets.quaternions(motion, name) for name in targets.EYES}
        values["weights"] = self._targets.weights(motion)
        for name, array in values.items():
            data = np.ascontiguousarray(array, "<f4").tobytes()
            self._file.seek(self._at[name])
            self._file.write(data)
            self._at[name] += len(data)

    def abandon(self) -> None:
        """Closes the file."""
        self._file.close()

    def close(self) -> None:
        """Closes the file.

        Raises:
          ValueError: the number of frames written differs from the header's.
        """
        self._file.close()
        if self._written != self._frames:
            raise ValueError(f"{self._written} frames written, {self._frames} announced")


class _Layout:
    """The JSON document, and where each array lies in the binary part."""

    def __init__(self, scene: targets.Targets, header: Header):
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": "a2fjax"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
        }
        self.arrays: dict[str, np.ndarray] = {}
        self.offsets: dict[str, int] = {}
        self.size = 0
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._mesh(scene)
        self._nodes(scene)
        self._animation(scene, header)
        self.document |= {
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": self.size}],
        }

    def _space(self, name: str, count: int, kind: str, *, target: int = 0, **more: Any) -> int:
        """Reserves an array of 4-byte values; returns its accessor."""
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[kind]
        self.offsets[name] = self.size
        view = {"buffer": 0, "byteOffset": self.size, "byteLength": count * width * 4}
        self._views.append(view | ({"target": target} if target else {}))
        self.size += count * width * 4
        accessor = {"bufferView": len(self._views) - 1, "componentType": _FLOAT, "type": kind}
        self._accessors.append(accessor | {"count": count} | more)
        return len(self._accessors) - 1

    def _points(self, name: str, points: np.ndarray, *, bounds: bool = True) -> int:
        array = np.ascontiguousarray(points, "<f4")
        low, high = array.min(axis=0).tolist(), array.max(axis=0).tolist()
        span = {"min": low, "max": high} if bounds else {}
        if not array.any():  # Without a view, an accessor holds zeros.
            accessor = {"componentType": _FLOAT, "type": "VEC3", "count": len(array)}
            self._accessors.append(accessor | span)
            return len(self._accessors) - 1
        self.arrays[name] = array
        return self._space(name, len(array), "VEC3", target=_VERTICES, **span)

    def _mesh(self, scene: targets.Targets) -> None:
        self.arrays["faces"] = np.ascontiguousarray(scene.faces.reshape(-1), "<u4")
        corners = self._space("faces", scene.faces.size, "SCALAR", target=_CORNERS)
        self._accessors[corners]["componentType"] = _UINT
        attributes = {
            "POSITION": self._points("neutral", scene.neutral),
            "NORMAL": self._points("normals", scene.normals, bounds=False),
        }
        moved = [
            {"POSITION": self._points(f"target {i}", delta)} for i, delta in enumerate(scene.deltas)
        ]
        primitive = {"attributes": attributes, "indices": corners, "targets": moved, "material": 0}
        self.document["meshes"] = [
            {
                "name": "face",
                "primitives": [primitive],
                "weights": [0.0] * len(scene.names),
                "extras": {"targetNames": list(scene.names)},
            }
        ]
        skin = {"baseColorFactor": [0.8, 0.62, 0.53, 1.0], "metallicFactor": 0.0}
        skin["roughnessFactor"] = 0.7
        self.document["materials"] = [
            {"name": "skin", "pbrMetallicRoughness": skin, "doubleSided": True}
        ]

    def _nodes(self, scene: targets.Targets) -> None:
        eyes = [{"name": name, "translation": place.tolist()} for name, place in scene.eyes.items()]
        face = {"name": "face", "mesh": 0, "children": [1, 2], "extras": {"head": scene.head}}
        self.document["nodes"] = [face, *eyes]

    def _animation(self, scene: targets.Targets, header: Header) -> None:
        last = np.float32((header.frames - 1) * header.fps.denominator / header.fps.numerator)
        times = self._space("times", header.frames, "SCALAR", min=[0.0], max=[float(last)])
        count = header.frames * len(scene.names)
        outputs = [self._space("weights", count, "SCALAR")]
        outputs += [self._space(name, header.frames, "VEC4") for name in targets.EYES]
        paths = ["weights", "rotation", "rotation"]
        self.document["animations"] = [
            {
                "name": header.path.name.removesuffix(".glb"),
                "samplers": [
                    {"input": times, "output": output, "interpolation": "LINEAR"}
                    for output in outputs
                ],
                "channels": [
                    {"sampler": node, "target": {"node": node, "path": path}}
                    for node, path in enumerate(paths)
                ],
                "extras": _notes(header),
            }
        ]


def _notes(header: Header) -> dict[str, Any]:
    """Returns what the animation says of itself."""
    sound = {}
    if header.sound is not None:
        here = header.path.resolve().parent
        sound = {"sound": Path(os.path.relpath(header.sound.resolve(), here)).as_posix()}
    return {
        **header.metadata,
        **sound,
        "fps_exact": str(header.fps),
        "frames": header.frames,
        "rig": rig.FINGERPRINT,
        mouth_close.KEY: header.columns.mouth_close,
    }
