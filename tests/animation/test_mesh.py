import struct

import numpy as np
import pytest

from a2fjax.animation import mesh
from a2fjax.data import records
from a2fjax.errors import InputError

VERTICES = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 1.25]], np.float32)
FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 1, 4]])
QUAD = [[0, 1, 2, 3], [0, 1, 4]]


def obj(path, faces=QUAD, negative=False):
    lines = ["# head", "o head", *(f"v {x} {y} {z} 1.0" for x, y, z in VERTICES), "vt 0 0"]
    for face in faces:
        index = [i - len(VERTICES) if negative else i + 1 for i in face]
        lines.append("f " + " ".join(f"{i}/1/1" for i in index))
    path.write_text("\n".join(lines))


def ply(path, form):
    head = (
        f"ply\nformat {form} 1.0\ncomment a head\nelement vertex 5\nproperty float x\n"
        "property double y\nproperty float z\nproperty uchar red\nelement face 2\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    if form == "ascii":
        body = "".join(f"{x} {y} {z} 255\n" for x, y, z in VERTICES)
        body += "".join(f"{len(f)} {' '.join(map(str, f))}\n" for f in QUAD)
        path.write_text(head + body)
        return
    order = "<" if "little" in form else ">"
    data = b"".join(struct.pack(order + "fdfB", *v, 255) for v in VERTICES.tolist())
    data += b"".join(struct.pack(f"{order}B{len(f)}i", len(f), *f) for f in QUAD)
    path.write_bytes(head.encode() + data)


@pytest.mark.parametrize(
    "kind", ["npz", "npy", "obj", "obj-", "ascii", "binary_little_endian", "binary_big_endian"]
)
def test_the_same_mesh_from_every_format(tmp_path, kind):
    path = tmp_path / f"x.{kind.rstrip('-') if len(kind) < 5 else 'ply'}"
    if kind == "ascii" or kind.startswith("binary"):
        path = tmp_path / "x.ply"
        ply(path, kind)
    elif kind == "npz":
        records.write_mesh(path, VERTICES, FACES)
    elif kind == "npy":
        np.save(path, VERTICES)
    else:
        obj(path, negative=kind == "obj-")
    vertices, faces = mesh.read(path)
    assert vertices.dtype == np.float32 and np.array_equal(vertices, VERTICES)
    assert faces.tolist() == ([] if kind == "npy" else FACES.tolist())


@pytest.mark.parametrize("ending", ["npz", "npy", "obj", "ply"])
def test_what_is_no_mesh(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    with pytest.raises(InputError, match="no such file"):
        mesh.read(path)
    for content in (b"", b"\x93NUMPY\xff\xff garbage", b"ply\nformat ascii 1.0\n", b"v 1 2\n"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"x.{ending}") as error:
            mesh.read(path)
        assert "\n" not in str(error.value)


def test_meshes_that_cannot_be_used(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((0, 3)))
    with pytest.raises(InputError, match="has 0 vertices"):
        mesh.read(tmp_path / "x.npy")
    np.save(tmp_path / "x.npy", np.full((9, 3), np.nan))
    with pytest.raises(InputError, match="not finite"):
        mesh.read(tmp_path / "x.npy")
    obj(tmp_path / "x.obj", faces=[[0, 1, 9]])
    with pytest.raises(InputError, match="names vertex 9"):
        mesh.read(tmp_path / "x.obj")
    (tmp_path / "x.obj").write_text("v 0 0 zero\n")
    with pytest.raises(InputError, match="x.obj:1"):
        mesh.read(tmp_path / "x.obj")
    with pytest.raises(InputError, match="unknown ending '.objj'.*'.obj'"):
        mesh.read(tmp_path / "x.objj")


def test_truncated_binary_ply(tmp_path):
    ply(tmp_path / "x.ply", "binary_little_endian")
    data = (tmp_path / "x.ply").read_bytes()
    for cut in (1, 10, 60):
        (tmp_path / "x.ply").write_bytes(data[:-cut])
        with pytest.raises(InputError, match="ends too early"):
            mesh.read(tmp_path / "x.ply")


@pytest.mark.parametrize("kind", ["plain", "normals between", "tabs", "crlf", "quads", "mixed"])
def test_objs_read_by_the_block_are_as_read_by_the_line(tmp_path, kind):
    rng = np.random.default_rng(2)
    vertices = rng.normal(size=(50, 3)) * 10.0 ** rng.integers(-6, 6, (50, 3))
    faces = rng.integers(0, 50, (30, 4 if kind == "quads" else 3)).tolist()
    if kind == "mixed":
        faces[7] = [1, 2, 3, 4, 5]
    gap, end = ("\t" if kind == "tabs" else " "), ("\r\n" if kind == "crlf" else "\n")
    lines = ["# x", "mtllib a.mtl"]
    for row in vertices.tolist():
        lines.append(gap.join(["v", *map(repr, row), "1.0"]))
        lines += ["vn 0 0 1"] if kind == "normals between" else []
    corner = "{0}/{0}/{0}" if kind == "crlf" else "{0}//1"
    lines += [gap.join(["f", *(corner.format(c + 1) for c in face)]) for face in faces]
    path = tmp_path / "x.obj"
    path.write_bytes(end.join(lines).encode())
    fans = [[f[0], a, b] for f in faces for a, b in zip(f[1:], f[2:], strict=False)]
    for read in (mesh.read(path), (mesh.read_frame(path)[0], mesh.read_faces(path))):
        np.testing.assert_array_equal(read[0], vertices.astype(np.float32))
        assert read[1].tolist() == fans


def test_lines_too_short_are_not_filled_from_the_next(tmp_path):
    path = tmp_path / "x.obj"
    obj(path)
    lines = path.read_text().splitlines()
    lines[2:4] = ["v 0 0", "v 1 0 0 1 5"]  # as many numbers as before
    path.write_text("\n".join(lines))
    for read in (mesh.read, mesh.read_frame, mesh.read_faces):
        with pytest.raises(InputError, match=r"x.obj:3: cannot read 'v 0 0'"):
            read(path)


def test_frames_tell_other_faces_by_their_digest(tmp_path):
    digests = []
    for n, faces in enumerate((QUAD, QUAD, [[0, 2, 1, 3], [0, 1, 4]])):
        obj(tmp_path / f"{n}.obj", faces=faces)
        digests.append(mesh.read_frame(tmp_path / f"{n}.obj")[1])
    assert digests[0] == digests[1] != digests[2]
