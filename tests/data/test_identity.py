import numpy as np
import pytest

from a2fjax.data import records
from a2fjax.data.identity import points as identity
from a2fjax.errors import InputError

PLACES = np.stack(np.meshgrid(*[np.linspace(-1.5, 1.5, 5)] * 3), -1).reshape(-1, 3)


def embedding(points: np.ndarray, width: float = 0.4) -> np.ndarray:
    square = ((points[:, None].astype(np.float64) - PLACES) ** 2).sum(-1)
    return np.exp(-square / (2 * width**2)).mean(axis=0)


def change(a: np.ndarray, b: np.ndarray) -> float:
    a, b = embedding(a), embedding(b)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def independent(vertices: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """Many area-weighted samples drawn at random: what the few points stand for."""
    random = np.random.default_rng(5)
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = random.choice(len(faces), count, p=area / area.sum())
    u, v = np.sqrt(random.random((count, 1))), random.random((count, 1))
    points = (1 - u) * a[face] + u * (1 - v) * b[face] + u * v * c[face]
    points -= points.mean(axis=0)
    return points / np.sqrt((points**2).sum(-1).mean())


@pytest.mark.parametrize("count", [32, 256])
def test_centred_unit_radius_and_deterministic(build, count):
    points = identity.sample_points(*build.head(20), count)
    assert points.shape == (count, 3) and points.dtype == np.float32
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose((points**2).sum(-1).mean(), 1, atol=1e-5)
    np.testing.assert_array_equal(points, identity.sample_points(*build.head(20), count))


def test_place_and_size_do_not_count(build):
    vertices, faces = build.head(20)
    points = identity.sample_points(vertices, faces, 64)
    moved = identity.sample_points(vertices * 100.0 + [5, -3, 170], faces, 64)
    assert change(moved, points) < 0.005


def test_order_of_vertices_faces_and_corners_does_not_count(build):
    vertices, faces = build.head(24, jitter=0.2)
    random = np.random.default_rng(1)
    order = random.permutation(len(vertices))
    renamed = np.argsort(order)[faces][random.permutation(len(faces))]
    renamed = np.stack([np.roll(f, random.integers(3)) for f in renamed])
    a = identity.sample_points(vertices, faces, 128)
    b = identity.sample_points(vertices[order], renamed, 128)
    assert change(a, b) < 1e-4


def test_vertex_clouds_do_not_depend_on_order_either(build):
    vertices, _ = build.head(24, jitter=0.2)
    random = np.random.default_rng(1)
    a = identity.sample_points(vertices, None, 128)
    b = identity.sample_points(random.permutation(vertices), np.zeros((0, 3)), 128)
    assert change(a, b) < 1e-4


def test_few_points_stand_for_the_surface(build):
    vertices, faces = build.head(40)
    points = identity.sample_points(vertices, faces, 256)
    truth = independent(vertices, faces, 50_000)
    assert change(points, truth) < 0.01
    # as many points drawn at random are several times further off
    assert change(independent(vertices, faces, 256), truth) > 3 * change(points, truth)


def test_remeshing_changes_less_than_another_head(build):
    points = identity.sample_points(*build.head(40), 256)
    remeshed = identity.sample_points(*build.head(63, jitter=0.3, seed=2), 256)
    vertices, faces = build.head(40)
    other = identity.sample_points(vertices * [1.05, 1.0, 1.0], faces, 256)
    assert change(remeshed, points) < 0.01
    assert change(other, points) > 2 * change(remeshed, points)


def test_faces_weigh_by_area_not_by_vertices():
    """A square meshed finely on one half: both halves get as many points."""
    x = np.concatenate([np.linspace(0, 1, 33), [2.0]])
    grid = np.stack(np.meshgrid(x, [0.0, 1.0], indexing="ij"), -1).reshape(-1, 2)
    vertices = np.concatenate([grid, np.zeros((len(grid), 1))], axis=1)
    i = np.arange(33) * 2
    faces = np.concatenate([np.stack([i, i + 1, i + 2], -1), np.stack([i + 1, i + 3, i + 2], -1)])
    points = identity.sample_points(vertices, faces, 100)
    assert abs(int((points[:, 0] < 0).sum()) - 50) <= 2
    cloud = identity.sample_points(vertices, None, 100)
    assert (cloud[:, 0] > cloud[:, 0].max() - 0.1).mean() < 0.1


def test_fewer_vertices_than_points_and_flat_faces():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    points = identity.sample_points(corners, None, 10)
    assert points.shape == (10, 3) and len(np.unique(points, axis=0)) == 4
    line = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]], np.float32)
    flat = identity.sample_points(line, np.array([[0, 1, 2]]), 4)
    assert np.isfinite(flat).all()


@pytest.mark.parametrize(
    "vertices, faces",
    [
        (np.zeros((0, 3)), None),
        (np.zeros((9, 3)), None),
        (np.full((9, 3), np.nan), None),
        (np.eye(4, 3), np.array([[0, 1, 9]])),
    ],
)
def test_what_is_no_mesh_is_refused(vertices, faces):
    with pytest.raises(InputError):
        identity.sample_points(vertices, faces, 8)


def test_points_of_a_file_follow_the_file(build, tmp_path):
    path = tmp_path / "mesh.npz"
    vertices, faces = build.head(16)
    records.write_mesh(path, vertices, faces)
    first = identity.mesh_points(path, 16)
    assert identity.mesh_points(path, 16) is first
    np.testing.assert_array_equal(first, identity.sample_points(vertices, faces, 16))
    records.write_mesh(path, vertices * [2, 1, 1], faces)
    assert np.abs(identity.mesh_points(path, 16) - first).max() > 0.1
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        identity.mesh_points(path, 16)
