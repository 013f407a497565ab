"""Scenes through their validators, and their geometry against the head's own shapes."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from a2fjax import head_shapes, rig
from a2fjax.animation import formats
from a2fjax.animation.scenes import targets
from a2fjax.errors import InputError

JAW, CLOSE = rig.INDEX["jawOpen"], rig.INDEX["mouthClose"]
SOUND = Path(__file__)  # any file: scenes only name it
USD = [".usda", ".usdc", ".usd", ".usdz"]

VALIDATE = """
const validator = require("gltf-validator"), fs = require("fs");
Promise.all(process.argv.slice(1).map(name =>
  validator.validateBytes(new Uint8Array(fs.readFileSync(name))).then(r => r.issues)
)).then(found => console.log(JSON.stringify(found)));
"""


@pytest.fixture(scope="module")
def curves():
    drawn = np.random.default_rng(0).random((7, 72)).astype(np.float32)
    drawn[:, rig.ANGLE_CHANNELS] = drawn[:, rig.ANGLE_CHANNELS] * 60 - 30
    drawn[:, CLOSE] = np.minimum(drawn[:, CLOSE], drawn[:, JAW])
    return drawn


@pytest.fixture
def own_head(tmp_path):
    """A head of a user in metres, with two shapes, one of them in halves."""
    path = tmp_path / "head.npz"
    neutral = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.1]])
    names = ["jawOpen", "browInnerUp_L", "browInnerUp_R", "mouthClose"]
    deltas = np.random.default_rng(1).standard_normal((4, 4, 3)) * 0.01
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    np.savez(path, neutral=neutral, names=names, deltas=deltas, faces=faces, units="m")
    return path


def moved(head, curves):
    """Vertices [F, V, 3] in metres of curves of the rig, by the head's own shapes."""
    shapes = np.tensordot(curves, head.part.shapes, 1)
    return (head.part.neutral + shapes) * head.metres


def glb_vertices(path):
    """Vertices [F, V, 3] by the specification's formula, parsed without the package's code."""
    data = path.read_bytes()
    size = struct.unpack("<I", data[12:16])[0]
    document, binary = json.loads(data[20 : 20 + size]), data[28 + size :]

    def values(index):
        accessor = document["accessors"][index]
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]]
        if "bufferView" not in accessor:
            return np.zeros((accessor["count"], width))
        view = document["bufferViews"][accessor["bufferView"]]
        return np.frombuffer(binary, "<f4", accessor["count"] * width, view["byteOffset"]).reshape(
            -1, width
        )

    (primitive,) = document["meshes"][0]["primitives"]
    shapes = np.stack([values(t["POSITION"]) for t in primitive["targets"]])
    animation = document["animations"][0]
    weights = values(animation["samplers"][0]["output"]).reshape(-1, len(shapes))
    return values(primitive["attributes"]["POSITION"]) + np.tensordot(weights, shapes, 1)


@pytest.mark.parametrize("convention", ["arkit", "nvidia"])
@pytest.mark.parametrize("order", ["rig68", "ict57"])
def test_the_face_of_a_glb_is_the_heads(tmp_path, curves, own_head, convention, order):
    options = formats.Options(order=order, mouth_close=convention, head=own_head)
    formats.write(tmp_path / "x.glb", curves, options=options)
    expected = moved(head_shapes.load_head(own_head), curves)
    np.testing.assert_allclose(glb_vertices(tmp_path / "x.glb"), expected, atol=1e-7)


def test_the_demos_head_moves_as_its_shapes_say(tmp_path, curves):
    formats.write(tmp_path / "x.glb", curves)
    head = head_shapes.load_head(None)
    assert 0.1 < np.ptp(head.part.neutral * head.metres, axis=0).max() < 0.4
    np.testing.assert_allclose(glb_vertices(tmp_path / "x.glb"), moved(head, curves), atol=1e-6)
    assert np.abs(head.part.shapes[rig.WEIGHT_CHANNELS]).sum(axis=(1, 2)).all()


def test_glbs_are_valid_by_khronos(tmp_path, curves, own_head):
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node")
    found = subprocess.run(
        [node, "-e", "require.resolve('gltf-validator')"], capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip("needs npm's gltf-validator where NODE_PATH finds it")
    written = []
    for name, options in {
        "demo": formats.Options(sound=SOUND),
        "own": formats.Options(head=own_head, mouth_close="nvidia"),
        "named": formats.Options(names_map="metahuman_tongue"),
    }.items():
        written.append(tmp_path / f"{name}.glb")
        formats.write(written[-1], curves, fps="29.97", options=options)
    formats.write(tmp_path / "one.glb", curves[:1])
    done = subprocess.run(
        [node, "-e", VALIDATE, *map(str, written), str(tmp_path / "one.glb")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    for issues in json.loads(done.stdout):
        assert not issues["numErrors"] and not issues["numWarnings"], issues
        # The eyes' joints hold rotations and no mesh.
        assert {m["code"] for m in issues["messages"]} <= {"NODE_EMPTY"}


def test_a_glb_says_where_its_sound_is(tmp_path, curves):
    (tmp_path / "a").mkdir()
    sound = tmp_path / "in.wav"
    options = formats.Options(sound=sound)
    formats.write(tmp_path / "a" / "x.glb", curves, options=options, metadata={"audio": "in.wav"})
    data = (tmp_path / "a" / "x.glb").read_bytes()
    document = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    notes = document["animations"][0]["extras"]
    assert notes["sound"] == "../in.wav" and notes["audio"] == "in.wav"
    assert notes["fps_exact"] == "50" and notes["frames"] == 7


@pytest.mark.parametrize("ending", USD)
def test_usd_is_valid_and_holds_the_curves(tmp_path, curves, ending):
    pytest.importorskip("pxr", reason="needs the extra captures")
    from pxr import Gf, Usd, UsdSkel, UsdValidation, Vt

    from a2fjax.audio import io

    io.save(tmp_path / "in.wav", np.zeros(2240, np.float32))
    path = tmp_path / f"x{ending}"
    options = formats.Options(mouth_close="nvidia", sound=tmp_path / "in.wav")
    formats.write(path, curves, fps="29.97", options=options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.wav", path.name]
    stage = Usd.Stage.Open(str(path))
    registry = UsdValidation.ValidationRegistry()
    context = UsdValidation.ValidationContext(registry.GetOrLoadAllValidators())
    assert not [error.GetMessage() for error in context.Validate(stage)]

    animation = UsdSkel.Animation(stage.GetPrimAtPath("/Face/Skeleton/Animation"))
    codes = animation.GetBlendShapeWeightsAttr().GetTimeSamples()
    assert codes == list(range(7)) and stage.GetTimeCodesPerSecond() == 30000 / 1001
    notes = stage.GetRootLayer().customLayerData
    assert notes["mouth_close_convention"] == "nvidia" and notes["fps_exact"] == "30000/1001"
    sound = stage.GetPrimAtPath("/Face/Sound").GetAttribute("filePath").Get()
    assert sound.resolvedPath and sound.path == ("0/in.wav" if ending == ".usdz" else "in.wav")

    cache = UsdSkel.Cache()
    root = UsdSkel.Root(stage.GetPrimAtPath("/Face"))
    cache.Populate(root, Usd.PrimDefaultPredicate)
    (binding,) = cache.ComputeSkelBindings(root, Usd.PrimDefaultPredicate)
    query, (skinning,) = cache.GetSkelQuery(binding.GetSkeleton()), binding.GetSkinningTargets()
    shapes = UsdSkel.BlendShapeQuery(UsdSkel.BindingAPI(skinning.GetPrim()))
    assert not skinning.GetBlendShapeMapper() or skinning.GetBlendShapeMapper().IsIdentity()
    head = head_shapes.load_head(None)
    for frame, expected in enumerate(moved(head, curves)):
        weights = query.GetAnimQuery().ComputeBlendShapeWeights(frame)
        sub = shapes.ComputeSubShapeWeights(weights)
        points = np.array(skinning.GetPrim().GetAttribute("points").Get(), np.float32)
        deformed = Vt.Vec3fArray.FromNumpy(points)
        indices = shapes.ComputeBlendShapePointIndices()
        offsets = shapes.ComputeSubShapePointOffsets()
        assert shapes.ComputeDeformedPoints(*sub, indices, offsets, deformed)
        np.testing.assert_allclose(np.array(deformed), expected, atol=1e-6)
    turns = animation.GetRotationsAttr().Get(3)
    for joint, (eye, channels) in enumerate(targets.EYES.items(), 1):
        pitch, yaw = curves[3, list(channels)]
        turned = Gf.Rotation(turns[joint]).TransformDir(Gf.Vec3d(0, 0, 1))
        # Down is positive pitch, the person's left (x) positive yaw.
        assert np.degrees(np.arctan2(turned[0], turned[2])) == pytest.approx(yaw, abs=1e-3), eye
        assert np.degrees(np.arcsin(-turned[1])) == pytest.approx(pitch, abs=1e-3)


@pytest.mark.parametrize("convention", ["arkit", "nvidia"])
def test_the_pipeline_reads_both(tmp_path, curves, convention):
    pytest.importorskip("pygltflib", reason="needs the extra captures")
    pytest.importorskip("pxr", reason="needs the extra captures")
    from data_pipeline.sources import gltf, usd

    for ending, read in ((".glb", gltf.read_gltf), (".usdc", usd.read_usd)):
        options = formats.Options(mouth_close=convention)
        formats.write(tmp_path / f"x{ending}", curves, fps=30, options=options)
        found = read(tmp_path / f"x{ending}")
        assert found.observed[rig.WEIGHT_CHANNELS].all() and found.millimetres == 1000
        weights = found.curves[:, rig.WEIGHT_CHANNELS]
        np.testing.assert_allclose(weights, curves[:, rig.WEIGHT_CHANNELS], atol=1e-6)
        np.testing.assert_allclose(found.times, np.arange(7) / 30, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faces": None}, "has no faces"),
        ({"faces": np.zeros((2, 4), int)}, r"faces have shape \(2, 4\)"),
        ({"faces": np.full((2, 3), 9)}, "faces name vertices"),
        ({"units": "feet"}, "units='feet'"),
    ],
)
def test_wrong_heads(tmp_path, own_head, curves, change, message):
    with np.load(own_head) as data:
        arrays = {**data, **change}
    path = tmp_path / "wrong.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(InputError, match=message) as error:
        formats.write(tmp_path / "x.glb", curves, options=formats.Options(head=path))
    assert "wrong.npz" in str(error.value) and not (tmp_path / "x.glb").exists()


def test_angles_of_eyes_come_back():
    drawn = np.random.default_rng(0).uniform(-45, 45, (100, 72)).astype(np.float32)
    for eye, channels in targets.EYES.items():
        found = targets.angles(targets.quaternions(drawn, eye))
        np.testing.assert_allclose(found, drawn[:, list(channels)], atol=1e-4)
