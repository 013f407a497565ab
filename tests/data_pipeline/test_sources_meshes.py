import base64
import json
import pickle
import struct
import sys

import numpy as np
import pygltflib
import pytest
import soundfile
from pxr import Gf, Usd, UsdGeom, UsdSkel, UsdUtils, Vt
from scipy.interpolate import CubicHermiteSpline

from a2fjax import rig
from a2fjax.errors import InputError
from data_pipeline import sources
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.mesh import geometry
from data_pipeline.sources import SourceOptions, gltf, meshes, sequences, usd

PLAIN = SourceOptions()
JAW = rig.ARKIT.index("jawOpen")


@pytest.fixture(scope="module")
def face():
    """The demo's head and its 52 shapes, in cm."""
    head = heads.make_head(np.zeros(8))
    return head, expressions.skin_shapes(head)


def moving(face, count, seed=0):
    """Returns weights [F, 52] and vertices [F, V, 3] in cm, the first frame at rest."""
    head, shapes = face
    weights = np.random.default_rng(seed).uniform(0, 0.6, (count, 52))
    weights[0] = 0.0
    return weights, head.vertices + np.einsum("fk,kvi->fvi", weights, shapes)


def write_obj(path, vertices, faces, *, normals=False):
    between = "vn 0 0 1\n" if normals else ""
    lines = ["# one frame\no head\n"]
    lines += [f"v {x:.7g} {y:.7g} {z:.7g}\n{between}" for x, y, z in vertices]
    corner = "{0}//{0}" if normals else "{0}"
    lines += ["f " + " ".join(corner.format(c + 1) for c in face) + "\n" for face in faces]
    path.write_text("".join(lines), encoding="utf-8")


def write_ply(path, vertices, faces, form="binary_little_endian"):
    head = (
        f"ply\nformat {form} 1.0\nelement vertex {len(vertices)}\nproperty float x\n"
        f"property float y\nproperty float z\nelement face {len(faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    if form == "ascii":
        body = "".join(f"{x:.9g} {y:.9g} {z:.9g}\n" for x, y, z in vertices)
        body += "".join(f"3 {a} {b} {c}\n" for a, b, c in faces)
        path.write_bytes((head + body).encode())
        return
    order = "<" if "little" in form else ">"
    data = np.asarray(vertices, order + "f4").tobytes()
    data += b"".join(struct.pack(order + "B3i", 3, *map(int, face)) for face in faces)
    path.write_bytes(head.encode() + data)


def write_audio(path, seconds=0.3):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).normal(size=int(16_000 * seconds)) * 0.1
    soundfile.write(path, noise, 16_000)


def write_rig(path, face):
    head, shapes = face
    named = dict(zip(rig.ARKIT, shapes.astype(np.float32), strict=True))
    names = np.array(["neutral", *rig.ARKIT])
    np.savez(path, poseNames=names, neutral=head.vertices.astype(np.float32), **named)


def write_take(folder, face, numbers, *, write=write_obj, ending="obj", seed=0, **how):
    """Writes the frames of these numbers; returns all vertices [max + 1, V, 3]."""
    folder.mkdir(parents=True)
    _, vertices = moving(face, max(numbers) + 1, seed)
    for number in numbers:
        path = folder / f"{folder.name}.{number + 100}.{ending}"
        write(path, vertices[number], face[0].faces, **how)
    return vertices


@pytest.mark.parametrize(
    "kind", ["obj", "obj with normals", "ascii", "binary_little_endian", "binary_big_endian"]
)
def test_frames_come_back_and_holes_stay_holes(tmp_path, face, kind):
    how = {"ending": "obj", "normals": "normals" in kind}
    if not kind.startswith("obj"):
        how = {"write": write_ply, "ending": "ply", "form": kind}
    numbers = [0, 1, 2, 5, 6, 7, 8]
    vertices = write_take(tmp_path / "anna" / "hello", face, numbers, **how)
    write_audio(tmp_path / "anna" / "hello.wav")
    (tmp_path / "anna" / "shots.json").write_text('{"fps": 29.97, "units": "cm"}')
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert source.layout == "meshes" and "1 folders of OBJ or PLY frames" in why
    (actor,) = pickle.loads(pickle.dumps(source)).actors()
    (take,) = actor.takes
    assert (take.subject, take.name) == ("anna", "hello")
    assert take.data == (tmp_path / "anna" / "hello",)
    capture = source.capture(take)
    np.testing.assert_allclose(capture.times, np.array(numbers) * 1001 / 30_000, atol=1e-12)
    whole = capture.skin[0:7]
    np.testing.assert_allclose(whole, vertices[numbers], atol=1e-5)
    blocks = np.concatenate([capture.skin[a : a + 3] for a in (0, 3, 6)])
    np.testing.assert_array_equal(whole, blocks)
    assert capture.skin.shape == (7, len(face[0].vertices), 3)


def test_numbers_decide_not_letters(tmp_path, face):
    head = face[0]
    for number in (9, 10, 100):  # by name 10 and 100 come before 9
        write_obj(tmp_path / f"f{number}.obj", head.vertices + number, head.faces)
    files, numbers = sequences.frame_files(tmp_path)
    assert [f.stem for f in files] == ["f9", "f10", "f100"]
    assert numbers.tolist() == [0, 1, 91]
    (tmp_path / "g9.obj").write_text("")
    with pytest.raises(InputError, match=r"f9.obj and g9.obj are both frame 9"):
        sequences.frame_files(tmp_path)


@pytest.mark.parametrize(
    "names, numbers",
    [
        (["head_0000_v2", "head_0001_v2", "head_0003_v2"], [0, 1, 3]),
        (["head_0000_v2", "head_0001_v3", "head_0002_v3"], [0, 1, 2]),
        (["cam1_head_7", "cam1_head_8"], [0, 1]),
        (["a.-010", "a.-009", "a.-008", "a.000", "a.001"], [0, 1, 2, 10, 11]),
        (["head_-2", "head_-1", "head_0", "head_1"], [0, 1, 2, 3]),
        (["head-1", "head0", "head1"], [0, 1, 2]),  # some have no "-": it is a sign
        (["head-1", "head-2", "head-3"], [0, 1, 2]),  # all have: it is a separator
        (["2024-05-06_9", "2024-05-06_10"], [0, 1]),
        (["-003", "-002", "-001"], [0, 1, 2]),
    ],
)
def test_the_frame_number_is_the_number_that_changes(tmp_path, names, numbers):
    for name in reversed(names):
        (tmp_path / f"{name}.obj").write_text("")
    files, found = sequences.frame_files(tmp_path)
    assert [f.stem for f in files] == names and found.tolist() == numbers


def test_a_number_that_is_no_frames(tmp_path):
    for name in ("x1" + 30 * "0", "x2" + 30 * "0"):
        (tmp_path / f"{name}.obj").write_text("")
    with pytest.raises(InputError, match="too large for a frame"):
        sequences.frame_files(tmp_path)
    (tmp_path / "other²").mkdir()
    (tmp_path / "other²" / "head².obj").write_text("")
    with pytest.raises(InputError, match="no .obj or .ply file with a frame number"):
        sequences.frame_files(tmp_path / "other²")


def test_trees_of_vocaset_and_multiface(tmp_path, face):
    vocaset, multiface = tmp_path / "vocaset", tmp_path / "multiface"
    person = "FaceTalk_170725_00137_TA"
    write_take(vocaset / person / "sentence01", face, [1, 2, 3], write=write_ply, ending="ply")
    write_audio(vocaset / "audio" / person / "sentence01.wav")
    source, _ = sources.open_source(vocaset, "auto", SourceOptions(fps=60))
    (actor,) = source.actors()
    assert actor.takes[0].audio == vocaset / "audio" / person / "sentence01.wav"
    assert source.capture(actor.takes[0]).times[-1] == pytest.approx(2 / 60)

    person = "m--20180227--0000--6795937--GHS"
    segment = multiface / person / "tracked_mesh" / "SEN_a_good_morrow"
    segment.mkdir(parents=True)
    for number in (102, 105, 108, 114):  # it counts three fields a frame
        write_obj(segment / f"{number:06d}.obj", face[0].vertices, face[0].faces)
        (segment / f"{number:06d}_transform.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n")
    write_audio(multiface / person / "audio" / "SEN_a_good_morrow.wav")
    source, why = sources.open_source(multiface, "auto", SourceOptions(fps=30))
    assert source.layout == "meshes", why
    (actor,) = source.actors()
    assert (actor.name, actor.takes[0].name) == (person, "SEN_a_good_morrow")
    times = source.capture(actor.takes[0]).times
    np.testing.assert_allclose(times, np.array([0, 1, 2, 4]) / 30)


def test_a_few_frames_drop_out_many_are_an_error(tmp_path, face):
    head = face[0]
    folder = tmp_path / "hello"
    write_take(folder, face, range(40))
    write_obj(folder / "hello.110.obj", head.vertices[:-3], head.faces[:5])
    (folder / "hello.120.obj").write_bytes(b"v 1 2 zero\n")
    skin = sequences.read_folder(folder).vertices
    lost = np.isnan(skin[0:40]).all(axis=(1, 2))
    assert np.flatnonzero(lost).tolist() == [10, 20]
    turned = head.faces[:, ::-1]
    write_obj(folder / "hello.130.obj", head.vertices, turned)
    with pytest.raises(InputError, match=r"hello.130.obj: its faces .* 3 of 40 frames cannot"):
        sequences.read_folder(folder).vertices[0:40]
    # Faces that are the same but written in another way are the same.
    write_obj(folder / "hello.130.obj", head.vertices, head.faces, normals=True)
    assert np.isfinite(sequences.read_folder(folder).vertices[30:31]).all()
    (folder / "hello.100.obj").write_bytes(b"")
    with pytest.raises(InputError, match="hello.100.obj"):
        sequences.read_folder(folder)


def test_points_that_a_tracker_lost(tmp_path, face):
    head = face[0]
    for number in range(3):
        write_obj(tmp_path / f"{number}.obj", head.vertices, head.faces)
    lost = head.vertices.copy()
    lost[4], lost[7, 0] = np.nan, np.inf
    for number, normals in ((0, False), (1, True)):
        write_obj(tmp_path / f"{number}.obj", lost, head.faces, normals=normals)
    moving = sequences.read_folder(tmp_path)
    skin = moving.vertices[0:3]
    assert np.isnan(skin[:2, [4, 7]]).all()
    assert np.isnan(skin).sum() == 12
    np.testing.assert_array_equal(moving.faces, head.faces)


def test_a_tongue_has_the_frames_of_the_skin(tmp_path, face):
    write_take(tmp_path / "one", face, [0, 1, 2, 5])
    write_audio(tmp_path / "one.wav")
    tongue = tmp_path / "one" / "tongue"
    points = write_take(tongue, face, [0, 1, 2, 5], seed=4)
    source, _ = sources.open_source(tmp_path, "auto", SourceOptions(fps=30))
    take = source.actors()[0].takes[0]
    np.testing.assert_allclose(source.capture(take).tongue[3:4], points[[5]], atol=1e-5)
    (tongue / "tongue.101.obj").rename(tongue / "tongue.103.obj")  # as many, but others
    with pytest.raises(InputError, match="tongue: other frames are missing"):
        source.capture(take)


def test_sound_is_asked_for(tmp_path, face):
    write_take(tmp_path / "one", face, [0, 1])
    write_take(tmp_path / "two", face, [0, 1])
    write_audio(tmp_path / "audio" / "two.wav")
    source, _ = sources.open_source(tmp_path, "auto", SourceOptions(subject="käthe", fps=30))
    (actor,) = source.actors()
    assert actor.name == "käthe" and [t.name for t in actor.takes] == ["two"]
    ((name, reason),) = actor.rejected
    assert name == "one" and "one.wav" in reason and "missing_audio" in reason
    options = SourceOptions(fps=30, missing_audio="silence")
    (actor,) = sources.open_source(tmp_path, "meshes", options)[0].actors()
    assert [t.audio for t in actor.takes] == [None, tmp_path / "audio" / "two.wav"]


def test_without_a_rate_or_a_rig(tmp_path, face):
    write_take(tmp_path / "one", face, [0, 1])
    write_audio(tmp_path / "one.wav")
    source, _ = sources.open_source(tmp_path, "auto", PLAIN)
    (actor,) = source.actors()
    with pytest.raises(InputError, match="frame rate.*--config.fps"):
        source.capture(actor.takes[0])
    assert source.blendshapes(actor.name, "skin") is None and source.mesh(actor.name) is None
    assert source.blendshapes(actor.name, "tongue") is None


def test_the_shot_list_is_honoured(tmp_path, face):
    for take in ("a", "b_joy"):
        write_take(tmp_path / take, face, [0, 1])
        write_audio(tmp_path / f"{take}.wav")
    listed = {"a": {"sentence": "s", "text": "t", "language": "fr", "emotion": {"sad": 0.5}}}
    listed["a"]["held_out"] = True
    listed["gone"] = {}
    (tmp_path / "shots.json").write_text(
        json.dumps({"fps": 24, "synthetic": True, "shots": listed}), encoding="utf-8"
    )
    options = SourceOptions(language="de", emotion="angry=0.25")
    (actor,) = sources.open_source(tmp_path, "auto", options)[0].actors()
    a, b = actor.takes
    assert (a.sentence, a.text, a.language, a.held_out, a.fps) == ("s", "t", "fr", True, 24)
    assert a.synthetic and a.emotion[rig.EMOTIONS.index("sad")] == 0.5
    assert (b.sentence, b.language) == ("b", "de")
    assert b.emotion[rig.EMOTIONS.index("happy")] > 0  # its name says joy
    assert [name for name, _ in actor.rejected] == ["gone"]
    (tmp_path / "shots.json").write_text("{")
    (actor,) = sources.open_source(tmp_path, "auto", options)[0].actors()
    assert not actor.takes and "shots.json" in actor.rejected[0][1]


def test_own_shapes_solve_the_frames(tmp_path, face):
    weights, _ = moving(face, 5)
    write_take(tmp_path / "one", face, range(5), write=write_ply, ending="ply")
    write_audio(tmp_path / "one.wav")
    write_rig(tmp_path / "rig.npz", face)
    source, _ = sources.open_source(tmp_path, "auto", SourceOptions(fps=30, units="cm"))
    (actor,) = source.actors()
    shapes = source.blendshapes(actor.name, "skin")
    blocks = geometry.displacements(
        source.capture(actor.takes[0]).skin, shapes.neutral, shapes.keep, None,
        scale=shapes.millimetres, name="one",
    )  # fmt: skip
    moved = np.concatenate([block for _, block in blocks])
    flat = shapes.deltas.reshape(len(shapes.deltas), -1)
    solved = np.linalg.lstsq(flat.T, moved.reshape(5, -1).T, rcond=None)[0].T
    order = [shapes.channels.index(n) for n in rig.ARKIT if n in shapes.channels]
    named = [i for i, n in enumerate(rig.ARKIT) if n in shapes.channels]
    np.testing.assert_allclose(solved[:, order], weights[:, named], atol=2e-3)
    vertices, faces = source.mesh(actor.name)
    np.testing.assert_allclose(vertices, face[0].vertices, atol=1e-5)
    np.testing.assert_array_equal(faces, face[0].faces)
    assert tmp_path / "rig.npz" in actor.files


def test_a_model_without_sound_is_no_take(tmp_path, face):
    write_gltf(tmp_path / "head.glb", face, ["jawOpen"], [0, 0.1], [[0], [1]])
    assert meshes.recognise(tmp_path) is None
    write_audio(tmp_path / "head.wav")
    assert meshes.recognise(tmp_path) == "one person with 1 files of type glb"


# -- USD ------------------------------------------------------------------------------------------


def write_usd(path, face, codes, *, rate=24.0, up="Y", unit=0.01, seed=0, scale=1.0, other=True):
    """Authors a point cache; returns the vertices [F, V, 3] in cm that a y-up reader must see."""
    head = face[0]
    _, vertices = moving(face, len(codes), seed)
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, up)
    if unit:
        UsdGeom.SetStageMetersPerUnit(stage, unit)
    stage.SetTimeCodesPerSecond(rate)
    stage.SetStartTimeCode(codes[0])
    stage.SetEndTimeCode(codes[-1])
    group = UsdGeom.Xform.Define(stage, "/world")
    group.AddScaleOp().Set(Gf.Vec3f(scale))
    mesh = UsdGeom.Mesh.Define(stage, "/world/face")
    mesh.CreateFaceVertexCountsAttr([3] * len(head.faces))
    mesh.CreateFaceVertexIndicesAttr(head.faces.reshape(-1).tolist())
    if other:  # an eye that turns
        eye = UsdGeom.Mesh.Define(stage, "/world/eye")
        eye.CreatePointsAttr().Set(Vt.Vec3fArray([(0, 0, 0)] * 600), 1.0)
    written = vertices / scale
    if up == "Z":  # x stays, y goes to z, z to -y
        written = np.stack([written[..., 0], -written[..., 2], written[..., 1]], axis=-1)
    for code, points in zip(codes, written, strict=True):
        mesh.GetPointsAttr().Set(Vt.Vec3fArray.FromNumpy(points.astype(np.float32)), code)
    stage.GetRootLayer().Save()
    return vertices


@pytest.mark.parametrize("ending", ["usda", "usdc", "usdz"])
def test_usd_point_caches(tmp_path, face, ending):
    codes = [1001.0, 1002.0, 1003.0, 1006.0, 1007.0]
    path = tmp_path / "hello.usdc"
    up, scale = ("Z", 0.5) if ending == "usdc" else ("Y", 1.0)
    vertices = write_usd(tmp_path / f"hello.{ending.replace('z', 'c')}", face, codes, up=up,
                         scale=scale)  # fmt: skip
    if ending == "usdz":
        assert UsdUtils.CreateNewUsdzPackage(str(path), str(path.with_suffix(".usdz")))
        path.unlink()
    write_audio(tmp_path / "hello.wav")
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert source.layout == "meshes" and f"1 files of type {ending}" in why
    (actor,) = source.actors()
    capture = source.capture(actor.takes[0])
    np.testing.assert_allclose(capture.times, np.array([0, 1, 2, 5, 6]) / 24)
    np.testing.assert_allclose(capture.skin[0:5], vertices, atol=1e-5)
    assert capture.millimetres == 10.0 and np.array_equal(capture.axes, np.eye(3))
    np.testing.assert_array_equal(capture.skin[2:4], capture.skin[0:5][2:4])
    read = usd.read_usd(actor.takes[0].data[0])
    assert read.millimetres == 10.0 and read.rest is None
    np.testing.assert_array_equal(read.faces, face[0].faces)
    given, _ = sources.open_source(tmp_path, "auto", SourceOptions(fps=25))
    times = given.capture(given.actors()[0].takes[0]).times
    np.testing.assert_allclose(times, np.array([0, 1, 2, 5, 6]) / 25)


def test_usd_without_a_unit_is_left_as_it_is(tmp_path, face):
    vertices = write_usd(tmp_path / "x.usda", face, [0.0, 1.0], unit=None)
    read = usd.read_usd(tmp_path / "x.usda")
    assert read.millimetres == 0.0
    np.testing.assert_allclose(read.vertices[0:2], vertices, atol=1e-5)


def test_usd_blend_shape_weights_are_curves(tmp_path):
    stage = Usd.Stage.CreateNew(str(tmp_path / "x.usda"))
    stage.SetTimeCodesPerSecond(30)
    animation = UsdSkel.Animation.Define(stage, "/anim")
    animation.CreateBlendShapesAttr(["jawOpen", "mouthSmile_L", "mouthSmileRight", "unused"])
    weights = animation.CreateBlendShapeWeightsAttr()
    rows = np.array([[0, 0, 0, 0], [0.5, 0.25, 0.125, 0], [1, 0.5, 0.25, 0]])
    names = ["jawOpen", "mouthSmileLeft", "mouthSmileRight"]
    animation.GetBlendShapesAttr().Set([*names, "unused"])
    for code, row in zip((10, 11, 13), rows, strict=True):
        weights.Set(Vt.FloatArray(row.tolist()), code)
    stage.GetRootLayer().Save()
    read = usd.read_usd(tmp_path / "x.usda")
    np.testing.assert_allclose(read.times, np.array([0, 1, 3]) / 30)
    found = [rig.INDEX[n] for n in names]
    np.testing.assert_allclose(read.curves[:, found], rows[:, :3], atol=1e-6)
    assert read.vertices is None and np.flatnonzero(read.observed).tolist() == sorted(found)
    weights.Set(Vt.FloatArray([0, 0, 0, 1.0]), 14)  # now the unknown one moves
    stage.GetRootLayer().Save()
    with pytest.raises(InputError, match="no mesh whose points have time samples"):
        usd.read_usd(tmp_path / "x.usda")


# -- glTF -----------------------------------------------------------------------------------------


class Scene:
    """A glTF document put together accessor by accessor."""

    def __init__(self):
        self.document = pygltflib.GLTF2()
        self.data = b""

    def view(self, array):
        data = np.ascontiguousarray(array).tobytes()
        self.document.bufferViews.append(
            pygltflib.BufferView(buffer=0, byteOffset=len(self.data), byteLength=len(data))
        )
        self.data += data + b"\0" * (-len(data) % 4)
        return len(self.document.bufferViews) - 1

    def add(self, array, kind="SCALAR", component=5126, **more):
        self.document.accessors.append(
            pygltflib.Accessor(
                bufferView=self.view(array),
                componentType=component,
                count=len(array),
                type=kind,
                **more,
            )  # fmt: skip
        )
        return len(self.document.accessors) - 1

    def sparse(self, array):
        rows = np.flatnonzero(np.abs(array).max(axis=1) > 0).astype(np.uint16)
        self.document.accessors.append(
            pygltflib.Accessor(
                componentType=5126, count=len(array), type="VEC3",
                sparse=pygltflib.Sparse(
                    count=len(rows),
                    indices=pygltflib.AccessorSparseIndices(
                        bufferView=self.view(rows), componentType=5123
                    ),
                    values=pygltflib.AccessorSparseValues(
                        bufferView=self.view(array[rows].astype("<f4"))
                    ),
                ),
            )
        )  # fmt: skip
        return len(self.document.accessors) - 1


def write_gltf(path, face, names, keys, values, mode="LINEAR", *, node=None, how="glb"):
    """Writes the demo's head with targets `names` and their weights [T, (3,) K]; metres."""
    head, shapes = face
    scene = Scene()
    targets = [shapes[rig.ARKIT.index(n)] * 0.01 for n in rig.ARKIT[: len(names)]]
    primitive = pygltflib.Primitive(
        attributes=pygltflib.Attributes(
            POSITION=scene.add((head.vertices * 0.01).astype("<f4"), "VEC3")
        ),
        indices=scene.add(head.faces.reshape(-1).astype("<u2"), component=5123),
        targets=[
            {"POSITION": scene.sparse(t) if i % 2 else scene.add(t.astype("<f4"), "VEC3")}
            for i, t in enumerate(targets)
        ],
    )
    document = scene.document
    document.meshes = [pygltflib.Mesh(primitives=[primitive], extras={"targetNames": names})]
    document.nodes = [node or pygltflib.Node(), pygltflib.Node(mesh=0)]
    document.nodes[0].children = [1]
    document.scenes = [pygltflib.Scene(nodes=[0])]
    sampler = pygltflib.AnimationSampler(
        input=scene.add(np.asarray(keys, "<f4")),
        output=scene.add(np.asarray(values, "<f4").reshape(-1)),
        interpolation=mode,
    )
    target = pygltflib.AnimationChannelTarget(node=1, path="weights")
    channel = pygltflib.AnimationChannel(sampler=0, target=target)
    document.animations = [pygltflib.Animation(samplers=[sampler], channels=[channel])]
    document.buffers = [pygltflib.Buffer(byteLength=len(scene.data))]
    if how == "data":
        text = base64.b64encode(scene.data).decode()
        document.buffers[0].uri = f"data:application/octet-stream;base64,{text}"
        document.save_json(str(path))
    elif how == "file":
        path.with_suffix(".bin").write_bytes(scene.data)
        document.buffers[0].uri = path.with_suffix(".bin").name
        document.save_json(str(path))
    else:
        document.set_binary_blob(scene.data)
        document.save_binary(str(path))


@pytest.mark.parametrize("how", ["glb", "data", "file"])
def test_named_targets_are_curves(tmp_path, face, how):
    names = list(rig.ARKIT[:6])
    keys = np.arange(10) / 30
    values = np.random.default_rng(0).uniform(0, 1, (10, 6))
    path = tmp_path / f"hello.{'glb' if how == 'glb' else 'gltf'}"
    write_gltf(path, face, names, keys, values, how=how)
    write_audio(tmp_path / "hello.wav")
    source, _ = sources.open_source(tmp_path, "auto", PLAIN)
    (actor,) = source.actors()
    capture = source.capture(actor.takes[0])
    np.testing.assert_allclose(capture.times, keys, atol=1e-6)
    np.testing.assert_allclose(capture.curves[:, [rig.INDEX[n] for n in names]], values, atol=1e-6)
    assert capture.skin is None and capture.observed.sum() == 6
    vertices, faces = source.mesh(actor.name)
    np.testing.assert_allclose(vertices, face[0].vertices * 10, atol=1e-4)
    np.testing.assert_array_equal(faces, face[0].faces)


def test_other_targets_are_vertices_in_their_place(tmp_path, face):
    head, shapes = face
    keys, values = np.arange(4) / 60, np.random.default_rng(0).uniform(0, 1, (4, 3))
    node = pygltflib.Node(scale=[2.0, 2.0, 2.0], rotation=[0, 0, np.sqrt(0.5), np.sqrt(0.5)])
    node.translation = [0.0, 1.0, 0.0]
    write_gltf(tmp_path / "x.glb", face, ["a", "b", "c"], keys, values, node=node)
    read = gltf.read_gltf(tmp_path / "x.glb")
    assert read.curves is None and read.vertices.shape == (4, len(head.vertices), 3)
    points = head.vertices + np.einsum("fk,kvi->fvi", values, shapes[:3])
    turned = np.stack([-points[..., 1], points[..., 0], points[..., 2]], axis=-1)
    expected = turned * 0.02 + [0, 1, 0]
    assert read.millimetres == 1000.0
    np.testing.assert_allclose(read.vertices[0:4], expected, atol=2e-7)
    np.testing.assert_array_equal(read.vertices[1:3], read.vertices[0:4][1:3])


def test_interpolation_as_the_file_asks(tmp_path, face):
    keys = np.array([0.0, 0.5, 0.75, 1.5])
    rng = np.random.default_rng(3)
    names = ["jawOpen", "mouthClose"]
    at = [rig.INDEX[n] for n in names]
    values = rng.uniform(0, 1, (4, 2))
    slopes = rng.normal(size=(4, 2))
    write_gltf(tmp_path / "s.glb", face, names, keys, values, "STEP")
    write_gltf(tmp_path / "l.glb", face, names, keys, values, "LINEAR")
    cubic = np.stack([slopes, values, slopes], axis=1)
    write_gltf(tmp_path / "c.glb", face, names, keys, cubic, "CUBICSPLINE")
    step, line, curve = (gltf.read_gltf(tmp_path / f"{n}.glb") for n in "slc")
    times = np.arange(91) / 60
    np.testing.assert_allclose(step.times, times, atol=1e-6)
    held = values[np.searchsorted(keys, times + 1e-9, side="right") - 1]
    np.testing.assert_allclose(step.curves[:, at], held, atol=1e-6)
    linear = np.stack([np.interp(times, keys, v) for v in values.T], axis=1)
    np.testing.assert_allclose(line.curves[:, at], linear, atol=1e-6)
    spline = CubicHermiteSpline(keys, values, slopes)(times)
    np.testing.assert_allclose(curve.curves[:, at], spline, atol=1e-5)


@pytest.mark.parametrize("rate", [12, 24, 30])
def test_steps_at_a_frame_rate_are_its_frames(tmp_path, face, rate):
    names = list(rig.ARKIT[:2])
    keys = np.arange(3 * rate) / rate
    values = np.random.default_rng(0).uniform(0, 1, (len(keys), 2))
    write_gltf(tmp_path / "all.glb", face, names, keys, values, "STEP")
    read = gltf.read_gltf(tmp_path / "all.glb")
    np.testing.assert_allclose(read.times, keys, atol=1e-6)
    at = [rig.INDEX[n] for n in names]
    np.testing.assert_allclose(read.curves[:, at], values, atol=1e-6)
    # Exporters leave out keys that repeat the one before: they are frames all the same.
    kept = np.random.default_rng(1).uniform(size=len(keys)) < 0.6
    kept[[0, 1, -1]] = True
    write_gltf(tmp_path / "few.glb", face, names, keys[kept], values[kept], "STEP")
    read = gltf.read_gltf(tmp_path / "few.glb")
    np.testing.assert_allclose(read.times, keys, atol=1e-5)
    held = values[np.maximum.accumulate(np.where(kept, np.arange(len(keys)), 0))]
    np.testing.assert_allclose(read.curves[:, at], held, atol=1e-6)
    assert read.numbers.tolist() == list(range(len(keys)))


def add_animation(path, name, frames):
    """Adds an animation of the first frames of the first one, which is called "Idle"."""
    document = pygltflib.GLTF2().load(str(path))
    document.animations[0].name = "Idle"
    accessors = []
    for index, count in ((document.animations[0].samplers[0].input, frames),
                         (document.animations[0].samplers[0].output, frames * 2)):  # fmt: skip
        accessor = pygltflib.Accessor(**vars(document.accessors[index]))
        accessor.count = count
        document.accessors.append(accessor)
        accessors.append(len(document.accessors) - 1)
    sampler = pygltflib.AnimationSampler(input=accessors[0], output=accessors[1])
    document.animations.append(
        pygltflib.Animation(name=name, samplers=[sampler], channels=document.animations[0].channels)
    )
    document.save_binary(str(path))


@pytest.mark.parametrize(
    "name, asked, frames, words",
    [
        ("Talk", "", 10, "animation 'Idle' of 'Idle', 'Talk' (the longest; --config.animation"),
        ("head|hello", "", 4, "'head|hello' of 'Idle', 'head|hello' (named like the take"),
        ("Talk", "talk", 4, "animation 'Talk' of 'Idle', 'Talk' (--config.animation)"),
    ],
)
def test_one_of_several_animations_is_chosen_and_named(tmp_path, face, name, asked, frames, words):
    values = np.random.default_rng(0).uniform(0, 1, (10, 2))
    write_gltf(tmp_path / "hello.glb", face, list(rig.ARKIT[:2]), np.arange(10) / 30, values)
    add_animation(tmp_path / "hello.glb", name, 4)
    write_audio(tmp_path / "hello.wav")
    source, _ = sources.open_source(tmp_path, "auto", SourceOptions(animation=asked))
    capture = source.capture(source.actors()[0].takes[0])
    assert len(capture.times) == frames and words in capture.notes[0]
    source, _ = sources.open_source(tmp_path, "auto", SourceOptions(animation="tlak"))
    with pytest.raises(InputError, match="animation='tlak': no animation in it.*holds 'Idle'"):
        source.capture(source.actors()[0].takes[0])


def test_each_animation_with_a_sound_file_is_a_take(tmp_path, face):
    values = np.random.default_rng(0).uniform(0, 1, (10, 2))
    write_gltf(tmp_path / "scene.glb", face, list(rig.ARKIT[:2]), np.arange(10) / 30, values)
    add_animation(tmp_path / "scene.glb", "Talk", 4)
    write_audio(tmp_path / "Idle.wav")
    write_audio(tmp_path / "scene_Talk.wav")
    source, why = sources.open_source(tmp_path, "auto", PLAIN)
    assert source.layout == "meshes", why
    (actor,) = source.actors()
    frames = {take.name: len(source.capture(take).times) for take in actor.takes}
    assert frames == {"Idle": 10, "scene_Talk": 4}
    assert [take.audio.name for take in actor.takes] == ["Idle.wav", "scene_Talk.wav"]


def test_one_of_several_usd_animations_is_chosen_and_named(tmp_path):
    stage = Usd.Stage.CreateNew(str(tmp_path / "hello.usda"))
    for name, count in (("idle", 3), ("talk", 5)):
        animation = UsdSkel.Animation.Define(stage, f"/{name}")
        animation.CreateBlendShapesAttr(["jawOpen"])
        weights = animation.CreateBlendShapeWeightsAttr()
        for code in range(count):
            weights.Set(Vt.FloatArray([0.1 * code]), code)
    stage.GetRootLayer().Save()
    read = usd.read_usd(tmp_path / "hello.usda")
    assert len(read.times) == 5 and "animation 'talk' of 'idle', 'talk'" in read.notes[0]
    assert len(usd.read_usd(tmp_path / "hello.usda", animation="idle").times) == 3
    assert len(usd.read_usd(tmp_path / "hello.usda", take="idle").times) == 3
    write_audio(tmp_path / "hello_idle.wav")
    write_audio(tmp_path / "talk.wav")
    for asked, expected in (("", {"hello_idle": 3, "talk": 5}), ("Talk", {"talk": 5})):
        options = SourceOptions(animation=asked)
        source, why = sources.open_source(tmp_path, "auto", options)
        assert source.layout == "meshes", why
        (actor,) = source.actors()
        assert {t.name: len(source.capture(t).times) for t in actor.takes} == expected


def test_one_of_several_moving_usd_meshes_is_chosen_and_named(tmp_path):
    stage = Usd.Stage.CreateNew(str(tmp_path / "hello.usda"))
    for name, count in (("hair", 9), ("head", 5), ("beard", 7)):
        points = UsdGeom.Mesh.Define(stage, f"/{name}").CreatePointsAttr()
        for code in range(3):
            points.Set(Vt.Vec3fArray([(float(v), float(code), 0.0) for v in range(count)]), code)
    stage.GetRootLayer().Save()
    read = usd.read_usd(tmp_path / "hello.usda")
    assert read.vertices.shape[1] == 5 and "mesh head of hair, head, beard" in read.notes[0]
    read = usd.read_usd(tmp_path / "hello.usda", animation="Beard")
    assert read.vertices.shape[1] == 7 and "'beard' of 'hair', 'head', 'beard'" in read.notes[0]
    with pytest.raises(InputError, match="animation='berd': no mesh in it.*mean 'beard'"):
        usd.read_usd(tmp_path / "hello.usda", animation="berd")


# -- what must not happen -------------------------------------------------------------------------


@pytest.mark.parametrize("module, file", [("pxr", "x.usda"), ("pygltflib", "x.glb")])
def test_a_missing_library_is_named(tmp_path, monkeypatch, module, file):
    (tmp_path / file).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    read = usd.read_usd if module == "pxr" else gltf.read_gltf
    with pytest.raises(InputError, match=r"a2fjax\[captures\]"):
        read(tmp_path / file)


def damaged(data, rng):
    """Yields damaged versions of a file."""
    yield b""
    yield data[: int(rng.integers(1, 30))]
    for share in rng.uniform(0.05, 0.99, 4):
        yield data[: int(len(data) * share)]
    for _ in range(4):
        noisy = bytearray(data)
        for place in rng.integers(0, len(data), 20):
            noisy[place] = int(rng.integers(0, 256))
        yield bytes(noisy)
    yield data.replace(b"3", b"9")
    yield data + b"\n\0\xff tail"


@pytest.mark.parametrize("kind", ["obj", "ascii", "binary", "usda", "usdc", "glb", "gltf"])
def test_damaged_files_are_told_and_the_others_survive(tmp_path, face, kind):
    rng = np.random.default_rng(11)
    good, bad = tmp_path / "good", tmp_path / "schlecht ÿ日本"
    if kind in ("obj", "ascii", "binary"):
        form = {"ascii": "ascii", "binary": "binary_big_endian"}.get(kind)
        how = {"write": write_ply, "ending": "ply", "form": form} if form else {}
        for folder in (good, bad):
            write_take(folder, face, range(2), **how)
        target = next(p for p in sorted(bad.iterdir()))
    else:
        for folder in (good, bad):
            target = tmp_path / f"{folder.name}.{kind}"
            if kind.startswith("usd"):
                write_usd(target, face, [0.0, 1.0])
            else:
                how = "glb" if kind == "glb" else "data"
                write_gltf(target, face, ["p", "q"], [0, 0.1], [[0, 1], [1, 0]], how=how)
    for folder in (good, bad):
        write_audio(tmp_path / f"{folder.name}.wav")
    contents = list(damaged(target.read_bytes(), rng))
    if kind == "usdc":  # each is looked at in a process of its own
        contents = [contents[0], contents[3], contents[7], contents[8]]
    errors = 0
    for turn, content in enumerate(contents):
        target.unlink()
        if kind.startswith("usd"):  # the library keeps a file it has open
            target = target.with_stem(f"{bad.name}{turn}")
            write_audio(target.with_suffix(".wav"))
        target.write_bytes(content)
        source, _ = sources.open_source(tmp_path, "auto", SourceOptions(fps=30))
        (actor,) = source.actors()
        assert len(actor.takes) == 2
        for take in actor.takes[1 if turn and kind == "usdc" else 0 :]:  # the good one once
            try:
                capture = source.capture(take)
                frames = capture.skin[0 : len(capture.times)]
                assert frames.shape[0] == len(capture.times)
            except InputError as error:
                errors += 1
                assert take.name.startswith(bad.name) and "\n" not in str(error)
                assert bad.name in str(error)
    assert errors >= 3


def test_a_crate_that_asks_for_all_memory(tmp_path, face):
    """A size inside the file is changed to 2**56: reading must end, and end small."""
    write_usd(tmp_path / "x.usdc", face, [0.0, 1.0])
    data = bytearray((tmp_path / "x.usdc").read_bytes())
    count = struct.pack("<Q", len(face[0].vertices))
    places = [i for i in range(len(data) - 8) if data[i : i + 8] == count]
    assert places
    for place in places:
        data[place + 7] = 1
    (tmp_path / "y.usdc").write_bytes(bytes(data))
    with pytest.raises(InputError, match="y.usdc"):
        usd.read_usd(tmp_path / "y.usdc")
