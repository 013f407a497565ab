"""USD: a head with UsdSkel blend shapes, their animation, the eyes' joints and the sound.

Follows the UsdSkel and UsdMedia schemas of OpenUSD. Frame k is time code k, and
`timeCodesPerSecond` is the frame rate; `customLayerData` of the file holds the exact rate and the
convention of mouthClose. A `.usdz` holds the sound, other files refer to it. Needs usd-core. The
capture layout `meshes` of the data pipeline reads the curves back.
"""

from __future__ import annotations

import importlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2fjax import budgets, head_shapes, rig
from a2fjax.animation import mouth_close
from a2fjax.animation.scenes import targets
from a2fjax.errors import InputError

if TYPE_CHECKING:
    from a2fjax.animation.formats import Header

_PACKED_SOUNDS = (".wav", ".mp3", ".m4a")
"""Sounds that a usdz may hold, by its specification."""

_JOINTS = ("head", *(f"head/{eye}" for eye in targets.EYES))


class UsdFormat:
    """Keeps the curves in memory and writes the scene at the end."""

    ending = ".usd"
    order = "rig68"
    takes = ("order", "names_map", "mouth_close", "head")

    def __init__(self, path: Path, header: Header):
        """Makes the scene without its curves.

        Raises:
          InputError: usd-core is missing, no such head, or more frames than the budget.
        """
        _schemas(header.path)
        budgets.check("frames_millions", header.frames / 1e6, header.path)
        self._path, self._header, self._frame = path, header, 0
        self._targets = targets.of_head(head_shapes.load_head(header.head), header.columns)
        self._stage, self._animation = _scene(self._targets, header)
        self._weights = self._animation.CreateBlendShapeWeightsAttr()
        self._rotations = self._animation.CreateRotationsAttr()

    def write(self, motion: np.ndarray) -> None:
        """Appends motion [N, 72] in rig units."""
        from pxr import Gf, Vt

        weights = self._targets.weights(motion)
        turns = [targets.quaternions(motion, eye) for eye in targets.EYES]
        for n, row in enumerate(weights):
            self._weights.Set(Vt.FloatArray.FromNumpy(np.ascontiguousarray(row)), self._frame)
            quats = [Gf.Quatf(1.0)]
            for turn in turns:
                x, y, z, w = map(float, turn[n])
                quats.append(Gf.Quatf(w, x, y, z))
            self._rotations.Set(Vt.QuatfArray(quats), self._frame)
            self._frame += 1

    def abandon(self) -> None:
        """Drops the scene."""
        self._stage = None

    def close(self) -> None:
        """Writes the file."""
        ending, sound = self.ending, self._header.sound
        # The library chooses the form by the ending, which a temporary file lacks.
        with tempfile.TemporaryDirectory(dir=self._path.parent, prefix=".usd") as folder:
            made = Path(folder) / f"scene{'.usdc' if ending == '.usdz' else ending}"
            if sound is not None and (ending != ".usdz" or _can_be_packed(sound)):
                absolute = sound.resolve()
                here = self._header.path.resolve().parent
                name = str(absolute) if ending == ".usdz" else os.path.relpath(absolute, here)
                _add_sound(self._stage, Path(name).as_posix())
            self._stage.GetRootLayer().Export(str(made))
            if ending == ".usdz":
                made = _packed(made)
            os.replace(made, self._path)


class UsdaFormat(UsdFormat):
    """Writes USD as text."""

    ending = ".usda"


class UsdcFormat(UsdFormat):
    """Writes USD as a binary crate."""

    ending = ".usdc"


class UsdzFormat(UsdFormat):
    """Writes a USD package; it contains the sound if that is WAV, MP3 or M4A."""

    ending = ".usdz"


def _schemas(path: Path) -> None:
    try:
        importlib.import_module("pxr.UsdSkel")
    except ImportError:
        raise InputError(
            f"{path}: USD needs the extra `captures`: pip install 'a2fjax[captures]'"
        ) from None


def _can_be_packed(sound: Path) -> bool:
    return sound.suffix.lower() in _PACKED_SOUNDS


def _packed(scene: Path) -> Path:
    from pxr import Sdf, UsdUtils

    package = scene.with_suffix(".usdz")
    if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(scene)), str(package)):
        raise InputError(f"{package.name}: the sound and the scene could not be packed")
    return package


def _scene(scene: targets.Targets, header: Header) -> tuple[Any, Any]:
    """Returns the stage and its animation, without frames."""
    from pxr import Usd, UsdGeom, UsdSkel

    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(float(header.fps))
    stage.SetFramesPerSecond(float(header.fps))
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(header.frames - 1)
    stage.GetRootLayer().customLayerData = {
        **{key: str(value) for key, value in header.metadata.items()},
        "creator": "a2fjax",
        "fps_exact": str(header.fps),
        "rig": rig.FINGERPRINT,
        mouth_close.KEY: header.columns.mouth_close,
    }
    root = UsdSkel.Root.Define(stage, "/Face")
    stage.SetDefaultPrim(root.GetPrim())
    skeleton = _skeleton(stage, scene)
    mesh = _mesh(stage, scene)
    animation = UsdSkel.Animation.Define(stage, "/Face/Skeleton/Animation")
    animation.CreateBlendShapesAttr(list(scene.names))
    animation.CreateJointsAttr(list(_JOINTS))
    animation.CreateTranslationsAttr([(0, 0, 0), *(_place(p) for p in scene.eyes.values())])
    animation.CreateScalesAttr([(1, 1, 1)] * len(_JOINTS))
    for prim in (root, mesh):
        UsdSkel.BindingAPI.Apply(prim.GetPrim()).CreateSkeletonRel().SetTargets(
            [skeleton.GetPath()]
        )
    binding = UsdSkel.BindingAPI.Apply(skeleton.GetPrim())
    binding.CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    return stage, animation


def _place(point: np.ndarray) -> tuple[float, float, float]:
    x, y, z = map(float, point)
    return x, y, z


def _skeleton(stage: Any, scene: targets.Targets) -> Any:
    from pxr import Gf, UsdSkel, Vt

    skeleton = UsdSkel.Skeleton.Define(stage, "/Face/Skeleton")
    skeleton.CreateJointsAttr(list(_JOINTS))
    places = [Gf.Matrix4d(1.0)]
    places += [Gf.Matrix4d(1.0).SetTranslate(_place(p)) for p in scene.eyes.values()]
    for create in (skeleton.CreateBindTransformsAttr, skeleton.CreateRestTransformsAttr):
        create(Vt.Matrix4dArray(places))
    return skeleton


def _mesh(stage: Any, scene: targets.Targets) -> Any:
    from pxr import Tf, UsdGeom, UsdSkel, Vt

    def vectors(array: np.ndarray) -> Any:
        return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(array, np.float32))

    def numbers(array: np.ndarray) -> Any:
        return Vt.IntArray.FromNumpy(np.ascontiguousarray(array, np.int32))

    mesh = UsdGeom.Mesh.Define(stage, "/Face/Mesh")
    mesh.CreatePointsAttr(vectors(scene.neutral))
    mesh.CreateFaceVertexCountsAttr(numbers(np.full(len(scene.faces), 3)))
    mesh.CreateFaceVertexIndicesAttr(numbers(scene.faces.reshape(-1)))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateNormalsAttr(vectors(scene.normals))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateDoubleSidedAttr(True)
    mesh.CreateDisplayColorAttr([(0.8, 0.62, 0.53)])
    # The furthest that any one shape moves a vertex.
    reach = np.concatenate([scene.neutral[None], scene.neutral + scene.deltas])
    mesh.CreateExtentAttr(vectors(np.stack([reach.min(axis=(0, 1)), reach.max(axis=(0, 1))])))
    binding = UsdSkel.BindingAPI.Apply(mesh.GetPrim())
    binding.CreateJointIndicesPrimvar(True, 1).Set([0])
    binding.CreateJointWeightsPrimvar(True, 1).Set([1.0])
    paths = []
    for index, (name, delta) in enumerate(zip(scene.names, scene.deltas, strict=True)):
        plain = name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f"target_{index}"
        path = mesh.GetPath().AppendChild(Tf.MakeValidIdentifier(plain))
        shape = UsdSkel.BlendShape.Define(stage, path)
        moved = np.flatnonzero(delta.any(axis=1))
        # A shape needs a point, even if it moves none.
        moved = moved if len(moved) else np.zeros(1, np.int64)
        shape.CreateOffsetsAttr(vectors(delta[moved]))
        shape.CreatePointIndicesAttr(numbers(moved))
        paths.append(path)
    binding.CreateBlendShapesAttr(list(scene.names))
    binding.CreateBlendShapeTargetsRel().SetTargets(paths)
    return mesh


def _add_sound(stage: Any, name: str) -> None:
    from pxr import Sdf, UsdMedia

    sound = UsdMedia.SpatialAudio.Define(stage, "/Face/Sound")
    sound.CreateFilePathAttr(Sdf.AssetPath(name))
    sound.CreateAuralModeAttr(UsdMedia.Tokens.nonSpatial)
    sound.CreatePlaybackModeAttr(UsdMedia.Tokens.onceFromStart)
