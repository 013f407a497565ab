import base64
import json
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from a2fjax import rig as channels
from a2fjax.errors import InputError
from data_pipeline.demo import expressions
from data_pipeline.demo import head as heads
from data_pipeline.mesh import blendshapes, conventions, rigs


@pytest.fixture(scope="module")
def template():
    """The demo's average head as a rig in cm."""
    person = heads.make_head(np.zeros(8))
    return rigs.Rig(
        neutral=person.vertices,
        deltas=expressions.skin_shapes(person),
        names=tuple(channels.ARKIT),
        faces=person.faces,
    )


def small(seed=0):
    rng = np.random.default_rng(seed)
    neutral = rng.normal(size=(7, 3))
    deltas = rng.normal(size=(3, 7, 3)) * 0.1
    faces = np.array([[0, 1, 2], [2, 3, 4]])
    return neutral, deltas, ["jawOpen", "mouthClose", "EyeBlink_L"], faces


def write_nvidia(path):
    neutral, deltas, names, faces = small()
    poses = dict(zip(names, deltas, strict=True))
    np.savez(path, poseNames=["neutral", *names], neutral=neutral, faces=faces,
             frontalMask=[1, 2, 5], **poses)  # fmt: skip


def write_ict(path):
    neutral, deltas, names, faces = small()
    np.savez(path, neutral=neutral.astype(np.float32), expression_names=names, tris=faces,
             expression_deltas=deltas.astype(np.float16), units="cm")  # fmt: skip


def write_folder(path, suffix="obj"):
    neutral, deltas, names, faces = small()
    path.mkdir()
    for name, points in zip(["Neutral", *names], [neutral, *(neutral + deltas)], strict=True):
        if suffix == "obj":
            text = "".join("v {:.9g} {:.9g} {:.9g}\n".format(*p) for p in points)
            text += "".join("f {} {} {}\n".format(*(f + 1)) for f in faces)
        else:
            text = "ply\nformat ascii 1.0\n" + f"element vertex {len(points)}\n"
            text += "".join(f"property float {c}\n" for c in "xyz")
            text += f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
            text += "end_header\n" + "".join("{:.9g} {:.9g} {:.9g}\n".format(*p) for p in points)
            text += "".join("3 {} {} {}\n".format(*f) for f in faces)
        (path / f"{name}.{suffix}").write_text(text)


def write_gltf(path, sparse=False):
    """By the specification; one shape may be sparse. .glb where the ending says so."""
    neutral, deltas, names, faces = small()
    data, views, accessors = b"", [], []

    def view(values):
        nonlocal data
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": values.nbytes})
        data += values.tobytes() + b"\0" * (-values.nbytes % 4)
        return len(views) - 1

    def accessor(values, kind, **extra):
        width = "VEC3" if values.ndim == 2 else "SCALAR"
        accessors.append({"componentType": kind, "count": len(values), "type": width, **extra})
        return len(accessors) - 1

    points = neutral.astype("<f4")
    position = accessor(points, 5126, bufferView=view(points))
    corners = faces.astype("<u2").reshape(-1)
    indices = accessor(corners, 5123, bufferView=view(corners))
    targets = []
    for i, shape in enumerate(deltas.astype("<f4")):
        if sparse and i == 1:
            at = np.arange(7, dtype="<u2")
            extra = {"sparse": {"count": 7,
                                "indices": {"bufferView": view(at), "componentType": 5123},
                                "values": {"bufferView": view(shape)}}}  # fmt: skip
            targets.append({"POSITION": accessor(shape, 5126, **extra)})
        else:
            targets.append({"POSITION": accessor(shape, 5126, bufferView=view(shape))})
    document = {
        "asset": {"version": "2.0"},
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": views,
        "accessors": accessors,
        "meshes": [{"primitives": [{"attributes": {"POSITION": position}, "indices": indices,
                                    "targets": targets}],
                    "extras": {"targetNames": names}}],
    }  # fmt: skip
    if path.suffix == ".glb":
        text = json.dumps(document).encode()
        text += b" " * (-len(text) % 4)
        body = struct.pack("<I4s", len(text), b"JSON") + text
        body += struct.pack("<I4s", len(data), b"BIN\0") + data
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    else:
        uri = "data:application/octet-stream;base64," + base64.b64encode(data).decode()
        document["buffers"][0]["uri"] = uri
        path.write_text(json.dumps(document))


WRITERS = {
    "nvidia.npz": write_nvidia,
    "ict.npz": write_ict,
    "objs": write_folder,
    "plys": lambda path: write_folder(path, "ply"),
    "rig.glb": write_gltf,
    "rig.gltf": lambda path: write_gltf(path, sparse=True),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_rig_is_read_as_it_was_written(tmp_path, kind):
    if "gl" in kind:
        pytest.importorskip("pygltflib")
    WRITERS[kind](tmp_path / kind)
    found = rigs.read_rig(tmp_path / kind)
    neutral, deltas, names, faces = small()
    place = [found.names.index(n) for n in names]
    np.testing.assert_allclose(found.neutral, neutral, atol=1e-6)
    np.testing.assert_allclose(found.deltas[place], deltas, atol=2e-4)
    np.testing.assert_array_equal(found.faces, faces)
    assert (found.mask is not None) == (kind == "nvidia.npz")
    assert found.units == {"ict.npz": "cm", "rig.glb": "m", "rig.gltf": "m"}.get(kind, "")


@pytest.mark.parametrize("kind", WRITERS)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_damaged_rigs_are_one_line(tmp_path_factory, kind, data):
    if "gl" in kind:
        pytest.importorskip("pygltflib")
    path = tmp_path_factory.mktemp("rig") / kind
    WRITERS[kind](path)
    file = data.draw(st.sampled_from(sorted(path.iterdir()))) if path.is_dir() else path
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    file.write_bytes(bytes(whole))
    try:
        found = rigs.read_rig(path)
    except InputError as error:
        assert "\n" not in str(error) and path.name in str(error)
    else:
        assert np.isfinite(found.neutral).all() and np.isfinite(found.deltas).all()
        assert found.deltas.shape == (len(found.names), *found.neutral.shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(neutral=np.zeros((7, 2))), r"neutral has shape \(7, 2\), expected"),
        (dict(neutral=np.full((7, 3), np.nan)), "neutral is not a mesh"),
        (dict(neutral=np.zeros((7, 3))), "neutral is not a mesh"),
        (dict(neutral=np.array([["a"] * 3] * 7)), "neutral holds <U1, expected numbers"),
        (dict(expression_deltas=np.zeros((3, 6, 3))), r"jawOpen has shape \(6, 3\)"),
        (dict(expression_deltas=np.full((3, 7, 3), np.inf)), "jawOpen has shape .* finite"),
        (dict(expression_deltas=np.zeros((2, 7, 3))), "3 names of shapes, 2 shapes"),
        (dict(expression_names=["jawOpen", "JAWOPEN", "x"]), "'jawOpen' appears twice"),
        (dict(expression_deltas=np.tile(small()[0], (3, 1, 1))), "shapes are positions"),
        (dict(tris=np.zeros((2, 4), int)), "faces have shape"),
        (dict(tris=np.full((2, 3), 7)), "faces name vertices"),
        (dict(frontalMask=np.array([8])), "frontalMask names vertices"),
        (dict(frontalMask=np.array([0.5])), "frontalMask holds float64"),
        (dict(units="inch"), "units='inch'; expected one of: mm, cm, m"),
        (dict(neutral=np.array([None] * 3)), "pickled objects, which are refused"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, change, message):
    write_ict(tmp_path / "rig.npz")
    arrays = dict(np.load(tmp_path / "rig.npz"))
    np.savez(tmp_path / "rig.npz", **{**arrays, **change})
    with pytest.raises(InputError, match=f"rig.npz: .*{message}") as error:
        rigs.read_rig(tmp_path / "rig.npz")
    assert "\n" not in str(error.value)


def test_what_is_no_rig_is_named(tmp_path):
    (tmp_path / "rig.pkl").write_bytes(pickle.dumps({"neutral": np.zeros((4, 3))}))
    (tmp_path / "pickled.npz").write_bytes(pickle.dumps({"neutral": np.zeros((4, 3))}))
    (tmp_path / "rig.fbx").write_text("x")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    np.savez(tmp_path / "poses.npz", neutral=np.zeros((4, 3)), poseNames=["neutral", "jawOpen"])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    write_folder(tmp_path / "folder")
    (tmp_path / "folder" / "眉毛.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    for name, message in {
        "rig.pkl": "pickles are refused",
        "pickled.npz": "pickled objects, which are refused",
        "rig.fbx": "not a rig: expected .npz, .glb, .gltf or a folder",
        "nothing.npz": "no such rig",
        "empty": "no neutral.obj or neutral.ply",
        "other.npz": "holds weights; expected neutral with poseNames",
        "poses.npz": "lists 'jawOpen', which is not in the file",
        "array.npz": "is one array, expected a NumPy archive",
        "folder": "眉毛.obj: 3 vertices, Neutral.obj has 7",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            rigs.read_rig(tmp_path / name)
        assert "\n" not in str(error.value)


def test_shapes_become_channels(tmp_path):
    neutral, deltas, _, _ = small()
    names = ("browInnerUp_L", "cheekRaiser_L", "browInnerUp_R")
    face = blendshapes.make_blendshapes(
        rigs.Rig(neutral=neutral, deltas=deltas, names=names), units="cm"
    )
    assert face.channels == ("browInnerUp",) and not face.transferred
    np.testing.assert_allclose(face.deltas[0], 10 * (deltas[0] + deltas[2]))
    assert any("left out: cheekRaiser_L" in note for note in face.notes)
    with pytest.raises(InputError, match="ann: unknown channel 'jawOpne'; did you mean 'jawOpen'"):
        blendshapes.make_blendshapes(
            rigs.Rig(neutral=neutral, deltas=deltas[:1], names=("jawOpne",)), name="ann"
        )
    with pytest.raises(InputError, match="ann: holds no shape of the rig"):
        blendshapes.make_blendshapes(
            rigs.Rig(neutral=neutral, deltas=deltas[:1], names=names[1:2]), name="ann"
        )
    with pytest.raises(InputError, match="units='inch'"):
        blendshapes.make_blendshapes(
            rigs.Rig(neutral=neutral, deltas=deltas, names=names), units="inch"
        )


def test_own_shapes_in_other_axes_are_turned(template):
    z_up = conventions.parse_axes("+x+z-y")
    turned = rigs.Rig(
        neutral=template.neutral @ z_up, deltas=template.deltas @ z_up, names=template.names
    )
    plain = blendshapes.make_blendshapes(template)
    for axes in ("auto", "+x+z-y"):
        face = blendshapes.make_blendshapes(turned, axes=axes)
        np.testing.assert_array_equal(face.axes, z_up)
        np.testing.assert_allclose(face.neutral, plain.neutral, atol=1e-9)
        np.testing.assert_allclose(face.deltas, plain.deltas, atol=1e-9)
    kept = blendshapes.make_blendshapes(turned, axes="+x+y+z")
    np.testing.assert_allclose(kept.neutral, turned.neutral * 10)


def test_the_template_itself_is_not_transferred(template):
    pose = Rotation.from_euler("xyz", [10, -5, 3], degrees=True).as_matrix()
    capture = (template.neutral @ pose.T + [3.0, 150.0, -20.0]) / 100
    face = blendshapes.make_blendshapes(template, neutral=capture)
    plain = blendshapes.make_blendshapes(template)
    assert face.millimetres == 1000.0 and not face.transferred
    np.testing.assert_allclose(face.neutral, plain.neutral, atol=1e-6)
    np.testing.assert_array_equal(face.deltas, plain.deltas)


def test_a_person_without_shapes_gets_the_templates(template):
    person = heads.make_head(np.array([0.5, -0.7, 0.3, 0.8, -0.4, 0.6, -0.2, 0.1]))
    mirrored = conventions.parse_axes("-x+z-y")
    capture = person.vertices @ mirrored * 10
    capture[[3, 200]] = np.nan
    face = blendshapes.make_blendshapes(template, neutral=capture, name="ann")
    np.testing.assert_array_equal(face.axes, mirrored)
    assert face.transferred and face.millimetres == 1.0
    assert set(face.keep) == set(range(422)) - {3, 200} and np.isfinite(face.neutral).all()
    notes = " ".join(face.notes)
    assert "axes: -x+z-y, unit: mm" in notes and "carried over from the rig by deformation" in notes
    assert "2 vertices have no position in the neutral mesh: left out" in notes
    # The neutral lies on the template's: no rotation is left between them.
    known = np.delete(np.arange(422), [3, 200])
    a, b = face.neutral[known], blendshapes.make_blendshapes(template).neutral[known]
    left, _ = Rotation.align_vectors(b - b.mean(axis=0), a - a.mean(axis=0))
    assert left.magnitude() < 1e-6
    # A hole is filled from its neighbours: nearer to the truth than the template's own vertex.
    truth = person.vertices * 10
    at, _ = Rotation.align_vectors(b - b.mean(axis=0), truth[known] - truth[known].mean(axis=0))
    expected = at.apply(truth - truth[known].mean(axis=0)) + b.mean(axis=0)
    assert np.linalg.norm(face.neutral[[3, 200]] - expected[[3, 200]], axis=1).max() < 10.0
    with pytest.raises(InputError, match="ann: 400 vertices, the template rig has 422"):
        blendshapes.make_blendshapes(template, neutral=capture[:400], name="ann")


@pytest.mark.parametrize("name", ["ict_facekit", "ict_lite"])
def test_ict_facekit_is_a_template(shared, name):
    found = rigs.read_rig(shared / "ict" / f"{name}.npz")
    face = blendshapes.make_blendshapes(found, name=name)
    assert len(face.channels) == 51 and "tongueOut" not in face.channels
    assert face.millimetres == 10.0 and np.array_equal(face.axes, np.eye(3))
    brow = face.deltas[face.channels.index("browInnerUp")]
    halves = [found.names.index(f"browInnerUp_{side}") for side in "LR"]
    np.testing.assert_allclose(brow, 10 * found.deltas[halves].sum(axis=0))
    assert any("cheekRaiser_L" in note for note in face.notes)
