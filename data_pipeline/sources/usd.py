"""Reads USD files: point caches (time samples of a mesh's points) and named blend shape weights.

Respects timeCodesPerSecond, metersPerUnit, upAxis and the mesh's transform in the scene. Needs
usd-core.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from a2fjax import archives, budgets
from a2fjax.animation import mouth_close
from a2fjax.animation.row_times import frame_numbers
from a2fjax.errors import InputError
from data_pipeline.mesh.file_checks import import_extra
from data_pipeline.sources.animations import choose_animation
from data_pipeline.sources.sequences import FrameSequence, MotionFile, named_curves

_MEMORY = f"{budgets.PREFIX}USD_GB sets the limit"
SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
_FACE_NAMES = ("face", "head", "skin")


def read_usd(
    path: Path, *, animation: str = "", take: str = "", keep_axes: bool = False
) -> MotionFile:
    """Opens a USD file: the points of the moving mesh, else its blend shape weights.

    If several meshes move, uses the one that `animation` names, else the one named like a face
    (face, head, skin), else the one with the most vertices. Points are in the stage's unit, y up.

    Args:
      path: the file.
      animation: name of the UsdSkel animation to read if there are several; see
        `choose_animation`.
      take: name of the take.
      keep_axes: whether to leave points in the stage's axes.

    Raises:
      InputError: usd-core is missing, the file is damaged, or nothing moves in it.
    """
    _guard(path, animation, take)
    return _read(path, animation, take, keep_axes)


def animation_names(path: Path) -> list[str]:
    """Returns the names of the UsdSkel animations, none where the points of a mesh move.

    Raises:
      InputError: as `read_usd`.
    """
    _guard(path, "", "")
    from pxr import Tf

    try:
        stage, meshes = _open(path)
        return [] if _moving(meshes) else list(_animations(path, stage))
    except (Tf.ErrorException, RuntimeError, ValueError, TypeError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a readable USD file ({_reason(error)})") from None


def _guard(path: Path, animation: str, take: str) -> None:
    """Reads a file in another process first; raises what `read_usd` does."""
    import_extra("pxr", path, "USD")
    budgets.regular_file(path)
    if path.suffix.lower() == ".usdz":
        archives.open_zip(path).close()
    status = path.stat()
    fault = _probe_in_process(path, status.st_size, status.st_mtime_ns, animation, take)
    if fault:
        raise InputError(fault)


def _open(path: Path) -> tuple[Any, list[Any]]:
    """Returns the stage and its meshes."""
    from pxr import Usd, UsdGeom

    stage = Usd.Stage.Open(str(path))
    budgets.check("layers", len(stage.GetUsedLayers()), path)
    meshes = []
    for count, prim in enumerate(stage.Traverse(), 1):
        budgets.check("nodes", count, path)
        if prim.IsA(UsdGeom.Mesh):
            meshes.append(UsdGeom.Mesh(prim))
    return stage, meshes


def _moving(meshes: list[Any]) -> list[Any]:
    return [m for m in meshes if m.GetPointsAttr().GetNumTimeSamples() > 0]


def _read(path: Path, animation: str = "", take: str = "", keep_axes: bool = False) -> MotionFile:
    from pxr import Tf

    try:
        stage, meshes = _open(path)
        moving = _moving(meshes)
        axes = np.eye(3) if keep_axes or not _is_z_up(stage) else _Z_UP
        motion = (
            _points(path, stage, moving, axes, animation)
            if moving
            else _weights(path, stage, meshes, axes, animation, take)
        )
        millimetres = _millimetres(stage)
    except InputError:
        raise
    except (Tf.ErrorException, RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise InputError(f"{path}: not a readable USD file ({_reason(error)})") from None
    if motion is None:
        raise InputError(
            f"{path}: no mesh whose points have time samples, and no blend shape weights with "
            f"names of the rig; it holds {len(meshes)} meshes"
        )
    return dataclasses.replace(motion, millimetres=millimetres, axes=np.eye(3))


@functools.lru_cache(maxsize=4096)
def _probe_in_process(path: Path, size: int, changed: int, animation: str, take: str) -> str:
    """Reads a file once in a separate process with limited time and memory.

    Returns why it cannot be read, or "".

    The library trusts the sizes in a damaged file and follows every reference: it can exhaust
    memory or crash and take the whole build down, and no signal interrupts it.
    """
    memory = int(1e9 * budgets.budget("usd_gb")) + 3 * size
    seconds = budgets.budget("usd_seconds") + size / 1e7
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        # Every additional thread would reserve address space.
        "PXR_WORK_THREAD_LIMIT": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }
    code = "import sys; from data_pipeline.sources import usd; usd.probe(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(path), str(memory), animation, take]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return (
            f"{path}: damaged, or its layers refer to too many others: it could not be read in "
            f"{seconds:.3g} s; {budgets.PREFIX}USD_SECONDS sets the limit"
        )
    if not done.returncode:
        return ""
    output = done.stdout.decode("utf-8", "replace").strip().splitlines()
    reason = f"its reader ended {done.returncode}, perhaps for lack of memory: {_MEMORY}"
    if done.returncode == 2 and output:
        reason = output[-1]
    return reason if str(path) in reason else f"{path}: damaged: {reason}"


def probe(path: str, memory: str, animation: str, take: str) -> None:
    """Reads a whole file and exits the process with 0, or with 2 after printing the reason.

    Args:
      path: path of the file.
      memory: bytes of address space that the process may take.
      animation: as for `read_usd`.
      take: as for `read_usd`.
    """
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # the system has no such limits
    try:
        vertices = _read(Path(path), animation, take).vertices
        for frame in range(vertices.shape[0] if vertices is not None else 0):
            vertices[frame : frame + 1]  # type: ignore[index]
    except (InputError, MemoryError) as error:
        reason = f"it needs more memory: {_MEMORY}"
        print(str(error) if isinstance(error, InputError) else reason, flush=True)
        sys.stdout.flush()
        os._exit(2)  # the library may crash again during cleanup
    os._exit(0)


def _reason(error: Exception) -> str:
    try:
        return " ".join(str(error).split())[:120]
    except UnicodeDecodeError:  # the message quotes the damaged file
        return type(error).__name__


def _choose(meshes: list[Any]) -> Any:
    def rank(mesh: Any) -> tuple[bool, int]:
        name = str(mesh.GetPrim().GetName()).lower()
        points = mesh.GetPointsAttr()
        first = points.Get(points.GetTimeSamples()[0])
        return any(word in name for word in _FACE_NAMES), 0 if first is None else len(first)

    return max(meshes, key=rank)


class _PointCache:
    """Reads the points of a mesh at a time sample, in the scene's frame and unit."""

    def __init__(self, path: Path, stage: Any, mesh: Any, codes: np.ndarray, axes: np.ndarray):
        from pxr import Tf

        self.path = path
        self.stage = stage  # meshes become invalid when their stage is freed
        self.mesh = mesh
        self.codes = codes
        self.axes = axes
        self.damage = (Tf.ErrorException, RuntimeError, ValueError, TypeError)

    def __call__(self, frame: int) -> np.ndarray:
        """Returns the points [V, 3] of a frame."""
        from pxr import Usd

        points = self.at(Usd.TimeCode(self.codes[frame]))
        if points is None:
            raise InputError(f"{self.path}: no points at time code {self.codes[frame]:g}")
        return points

    def at(self, code: Any) -> np.ndarray | None:
        """Returns the points [V, 3] at a time code, or None where there are none."""
        from pxr import UsdGeom

        try:
            points = self.mesh.GetPointsAttr().Get(code)
            if points is None:
                return None
            cache = UsdGeom.XformCache(code)
            transform = np.array(cache.GetLocalToWorldTransform(self.mesh.GetPrim()))
            points = np.asarray(points, np.float64).reshape(-1, 3)
        except self.damage as error:
            raise InputError(f"{self.path}: time code {code}: {_reason(error)}") from None
        # USD uses row vectors: p' = p M. Infinite points become NaN.
        with np.errstate(invalid="ignore", over="ignore"):
            return (points @ transform[:3, :3] + transform[3, :3]) @ self.axes.T


def _is_z_up(stage: Any) -> bool:
    from pxr import UsdGeom

    return bool(UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.z)


def _millimetres(stage: Any) -> float:
    """Returns one unit of the stage in mm, or 0 if it states none."""
    from pxr import UsdGeom

    if not UsdGeom.StageHasAuthoredMetersPerUnit(stage):
        return 0.0
    unit = 1000.0 * float(UsdGeom.GetStageMetersPerUnit(stage))
    return unit if np.isfinite(unit) and unit > 0 else 0.0


def _points(path: Path, stage: Any, moving: list[Any], axes: np.ndarray, asked: str) -> MotionFile:
    from pxr import Usd

    notes: tuple[str, ...] = ()
    mesh = _choose(moving)
    names = [str(each.GetPrim().GetName()) for each in moving]
    if asked and len(moving) > 1:
        lengths = [0.0] * len(names)
        index, notes = choose_animation(path, names, lengths, asked=asked, kind="mesh")
        mesh = moving[index]
    elif len(moving) > 1:
        why = "named like a face, or the largest; --config.animation=NAME chooses another"
        notes = (
            f"{path.name}: mesh {mesh.GetPrim().GetName()!s} of {', '.join(names[:8])} ({why})",
        )
    codes = np.array(mesh.GetPointsAttr().GetTimeSamples(), np.float64)
    cache = _PointCache(path, stage, mesh, codes, axes)
    first = cache(0)
    if len(first) < 4:
        raise InputError(f"{path}: a mesh of {len(first)} vertices, expected at least 4")
    rest = cache.at(Usd.TimeCode.Default())
    if rest is not None and (rest.shape != first.shape or not np.isfinite(rest).all()):
        rest = None
    return MotionFile(
        numbers=frame_numbers(codes),
        times=_seconds(path, stage, codes),
        vertices=FrameSequence((len(codes), len(first), 3), cache, str(path)),
        faces=_faces(path, mesh, len(first), codes[0]),
        rest=rest,
        notes=notes,
    )


def _faces(path: Path, mesh: Any, vertices: int, code: float) -> np.ndarray:
    counts = np.asarray(mesh.GetFaceVertexCountsAttr().Get(code) or [], np.int64)
    indices = np.asarray(mesh.GetFaceVertexIndicesAttr().Get(code) or [], np.int64)
    if (counts < 0).any() or counts.sum() != len(indices):
        raise InputError(f"{path}: its faces have {len(indices)} corners, expected {counts.sum()}")
    if len(indices) and not 0 <= indices.min() <= indices.max() < vertices:
        raise InputError(f"{path}: a face names a vertex that is not among the {vertices}")
    starts = np.cumsum(counts) - counts
    # Triangle fans: triangle i of a face has corners 0, i and i + 1.
    owner = np.repeat(np.arange(len(counts)), np.maximum(counts - 2, 0))
    if not len(owner):
        return np.zeros((0, 3), np.int32)
    step = np.concatenate([np.arange(max(count - 2, 0)) for count in counts])
    first = starts[owner]
    corners = np.stack([first, first + step + 1, first + step + 2], axis=1)
    return indices[corners].astype(np.int32)


def _weights(
    path: Path, stage: Any, meshes: list[Any], axes: np.ndarray, asked: str, take: str
) -> MotionFile | None:
    animations = _animations(path, stage)
    if not animations:
        return None
    names, lengths = list(animations), [float(np.ptp(codes)) for codes, _ in animations.values()]
    index, notes = choose_animation(path, names, lengths, asked=asked, take=take)
    codes, (curves, observed) = animations[names[index]]
    rest, faces = _rest(path, meshes)
    return MotionFile(
        numbers=frame_numbers(codes),
        times=_seconds(path, stage, codes),
        curves=curves,
        observed=observed,
        rest=None if rest is None else rest @ axes.T,
        faces=faces,
        notes=notes,
    )


def _animations(
    path: Path, stage: Any
) -> dict[str, tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """Returns (time codes, curves and what of them is observed) by animation."""
    from pxr import UsdSkel

    convention = str(stage.GetRootLayer().customLayerData.get(mouth_close.KEY, "arkit"))
    animations: dict[str, tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]] = {}
    for prim in stage.Traverse():
        if not prim.IsA(UsdSkel.Animation):
            continue
        animation = UsdSkel.Animation(prim)
        names = [str(n) for n in animation.GetBlendShapesAttr().Get() or []]
        attribute = animation.GetBlendShapeWeightsAttr()
        codes = np.array(attribute.GetTimeSamples(), np.float64)
        if not names or not len(codes):
            continue
        rows = [np.asarray(attribute.Get(code), np.float64).reshape(-1) for code in codes]
        wrong = next((i for i, row in enumerate(rows) if len(row) != len(names)), None)
        if wrong is not None:
            raise InputError(
                f"{path}: time code {codes[wrong]:g} has {len(rows[wrong])} weights, expected "
                f"{len(names)}"
            )
        named = named_curves(np.array(rows), names, path, convention=convention)
        if named is not None:
            name = str(prim.GetName())
            animations[name if name not in animations else str(prim.GetPath())] = codes, named
    return animations


def _rest(path: Path, meshes: list[Any]) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns the still mesh that the weights belong to: (points, faces)."""
    sizes = [len(m.GetPointsAttr().Get() or []) for m in meshes]
    if not sizes or max(sizes) < 4:
        return None, np.zeros((0, 3), np.int32)
    mesh = meshes[int(np.argmax(sizes))]
    points = np.asarray(mesh.GetPointsAttr().Get(), np.float64)
    return points, _faces(path, mesh, len(points), 0.0)


def _seconds(path: Path, stage: Any, codes: np.ndarray) -> np.ndarray:
    rate = float(stage.GetTimeCodesPerSecond())
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"{path}: timeCodesPerSecond is {rate:g}")
    start = stage.GetStartTimeCode() if stage.HasAuthoredTimeCodeRange() else codes[0]
    return (codes - min(start, codes[0])) / rate
