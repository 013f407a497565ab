"""What must not change the identity embedding, from mesh to embedding, with the real parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from a2fjax import mesh_descriptor
from a2fjax.data import augment
from a2fjax.data.identity.canonical_pose import pose
from a2fjax.data.identity.points import sample_points
from a2fjax.models import conditioning

POINTS = 384
BOUND = 1e-2


def rotation(axis, degrees):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.cross(np.eye(3), axis)
    turn = np.radians(degrees)
    return np.eye(3) + np.sin(turn) * cross + (1 - np.cos(turn)) * cross @ cross


def face(seed, rings=24):
    """A head with a nose, a chin and a crooked mouth, their sizes drawn at random."""
    rng = np.random.default_rng(seed)
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, rings), np.linspace(0, 2 * np.pi, 2 * rings, False)
    )
    out = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)

    def bump(centre, width):
        return np.exp(-((out - centre) ** 2).sum(-1) / width)

    radius = 1 + rng.uniform(0.15, 0.35) * bump([0, -0.1, 1], 0.05)
    radius += rng.uniform(0.05, 0.2) * bump([0, -0.8, 0.6], 0.1)
    radius += rng.uniform(-0.05, 0.05) * bump([0.3, -0.4, 0.85], 0.05)
    stretch = [rng.uniform(0.7, 0.9), rng.uniform(1.2, 1.4), 1.0]
    vertices = (out * radius[..., None] * stretch).reshape(-1, 3) * 90.0
    index = np.arange(theta.size).reshape(theta.shape)
    a, b = index[:, :-1], np.roll(index, -1, 0)[:, :-1]
    c, d = index[:, 1:], np.roll(index, -1, 0)[:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    return vertices, faces


def reordered(vertices, faces):
    rng = np.random.default_rng(1)
    order = rng.permutation(len(vertices))
    renamed = np.argsort(order)[faces][rng.permutation(len(faces))]
    return vertices[order], np.stack([np.roll(f, rng.integers(3)) for f in renamed])


def subdivided(vertices, faces):
    """Every triangle in four: the same surface with four times the faces."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, index = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = index.reshape(3, -1) + len(vertices)
    a, b, c = faces.T
    parts = ((a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca))
    middle = vertices[edges].mean(axis=1)
    return np.concatenate([vertices, middle]), np.concatenate([np.stack(p, 1) for p in parts])


def splintered(vertices, faces):
    """A third of the triangles in three about a random point inside: slivers of all sizes."""
    rng = np.random.default_rng(2)
    chosen = rng.random(len(faces)) < 1 / 3
    share = rng.dirichlet([1, 1, 1], chosen.sum())
    inside = (share[:, :, None] * vertices[faces[chosen]]).sum(axis=1)
    a, b, c = faces[chosen].T
    new = np.arange(len(inside)) + len(vertices)
    parts = [np.stack(p, 1) for p in ((a, b, new), (b, c, new), (c, a, new))]
    return np.concatenate([vertices, inside]), np.concatenate([faces[~chosen], *parts])


def moved(axis, degrees):
    def change(vertices, faces):
        return 0.1 * vertices @ rotation(axis, degrees).T + [3.0, 170.0, -4.0], faces

    return change


CHANGES = {
    "vertex order": reordered,
    "subdivided": subdivided,
    "splintered": splintered,
    "tilted": moved([1, 0, 0], 10),
    "turned": moved([0, 1, 0], -10),
    "rolled": moved([0, 0, 1], 7),
    "askew": moved([1, -2, 1.5], 10),
    "other unit": moved([1, 0, 0], 0),
    "inside out": lambda v, f: (v, f[:, ::-1]),
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(False, marks=pytest.mark.slow), True],
    ids=["points", "normals"],
)
def encoder(request):
    def points(mesh):
        return sample_points(*mesh, POINTS, normals=request.param)

    rows = np.stack([points(face(seed)) for seed in range(12)])
    described = np.asarray(conditioning.descriptor(jnp.asarray(rows)))
    assert described.shape == (12, mesh_descriptor.width(request.param))
    mean, projection = conditioning.standardisation(described)
    assert projection.any(0).sum() >= 4
    module = conditioning.IdentityEncoder(16)
    known = jnp.ones(len(rows), bool)
    params = module.init(jax.random.key(0), rows, known, mean, projection)

    def embed(meshes):
        stack = jnp.stack([points(mesh) for mesh in meshes])
        here = jnp.ones(len(meshes), bool)
        return np.asarray(module.apply(params, stack, here, mean, projection))

    return embed


def test_how_a_face_is_meshed_and_held_does_not_change_its_embedding(encoder):
    mesh = face(100)
    own, other, *changed = encoder([mesh, face(101), *(c(*mesh) for c in CHANGES.values())])
    for name, value in zip(CHANGES, changed, strict=True):
        assert np.linalg.norm(value - own) <= BOUND * np.linalg.norm(own), name
    assert np.linalg.norm(other - own) > 0.2 * np.linalg.norm(own)


def test_mirrored_points_are_those_of_the_mirrored_face():
    vertices, faces = face(5)
    vertices[vertices[:, 0] > 0] *= [1.2, 1.0, 1.0]
    points = sample_points(vertices, faces, POINTS, normals=True)
    reflected = sample_points(vertices * [-1, 1, 1], faces, POINTS, normals=True)
    both = conditioning.descriptor(jnp.stack([augment.mirror_points(points), reflected]))
    np.testing.assert_allclose(both[0], both[1], atol=2e-5)
    assert np.abs(both[0] - conditioning.descriptor(points[None])[0]).max() > 1e-3


def test_means_over_the_points_are_integrals_over_the_surface():
    """Against many samples drawn at random, in the pose that the points are in."""
    vertices, faces = face(3)
    points = sample_points(vertices, faces, POINTS, normals=True)
    rng = np.random.default_rng(0)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    area = np.linalg.norm(normal, axis=1)
    pick = rng.choice(len(faces), 200_000, p=area / area.sum())
    u, v = np.sqrt(rng.random((len(pick), 1))), rng.random((len(pick), 1))
    drawn = (1 - u) * a[pick] + u * (1 - v) * b[pick] + u * v * c[pick]
    drawn -= drawn.mean(axis=0)
    drawn /= np.sqrt((drawn**2).sum(-1).mean())
    facing = (normal / np.maximum(area, 1e-12)[:, None])[pick]
    facing *= np.sign((drawn * facing).sum(-1).mean())
    turn = pose(drawn, np.full(len(drawn), 1 / len(drawn)))
    truth = np.concatenate([drawn @ turn.T, facing @ turn.T], axis=1)
    found, expected = (
        mesh_descriptor.descriptor(np, x.astype(np.float64), np.matmul) for x in (points, truth)
    )
    np.testing.assert_allclose(found, expected, atol=3e-3)
    noise = mesh_descriptor.descriptor(np, truth[:POINTS], np.matmul) - expected
    assert np.abs(noise).max() > 5 * np.abs(found - expected).max()


def test_half_a_face_keeps_its_turn_and_a_ball_everything():
    vertices, faces = face(4)
    half = faces[(vertices[faces][..., 0] >= 0).all(axis=1)]
    for turn in (0, 6):
        held = vertices @ rotation([0, 1, 0], turn).T
        places = held[half].mean(axis=1)
        area = np.linalg.norm(
            np.cross(held[half[:, 1]] - held[half[:, 0]], held[half[:, 2]] - held[half[:, 0]]),
            axis=1,
        )
        places = places - area @ places / area.sum()
        places /= np.sqrt(area @ (places**2).sum(1) / area.sum())
        np.testing.assert_allclose(pose(places, area / area.sum())[0], [1, 0, 0], atol=1e-9)
    ball = np.random.default_rng(0).normal(size=(4000, 3))
    ball /= np.linalg.norm(ball, axis=1, keepdims=True)
    ball = np.concatenate(
        [ball * s for s in np.stack(np.meshgrid(*[[-1, 1]] * 3), -1).reshape(-1, 3)]
    )
    np.testing.assert_allclose(pose(ball, np.full(len(ball), 1 / len(ball))), np.eye(3), atol=1e-6)


def test_a_mask_and_a_head_are_both_put_upright():
    vertices, faces = face(6)
    mask = faces[(vertices[faces][..., 2] > 0).all(axis=1)]
    for part in (faces, mask):
        straight, tilted = (
            sample_points(vertices @ rotation([1, 0.3, 0.2], turn).T, part, 256) for turn in (0, 12)
        )
        both = np.asarray(conditioning.descriptor(jnp.stack([straight, tilted])))
        np.testing.assert_allclose(both[0], both[1], atol=1e-5)


def test_a_vertex_cloud_has_no_normals():
    points = sample_points(face(0)[0], None, 64, normals=True)
    assert points.shape == (64, 6) and not points[:, 3:].any()
