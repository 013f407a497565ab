"""Meshes held or cut in another way than those of the training are brought to them."""

import numpy as np
import pytest

from a2fjax import mesh_descriptor
from a2fjax.data.identity import alignment, surface
from a2fjax.models import familiarity


def head(seed=0, rings=20):
    """An egg with a nose, a chin and a flat back; its proportions are drawn at random."""
    rng = np.random.default_rng(seed)
    theta, phi = np.meshgrid(
        np.linspace(0.05, np.pi - 0.05, rings), np.linspace(0, 2 * np.pi, 2 * rings, False)
    )
    out = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1)
    radius = 1 + rng.uniform(0.2, 0.35) * np.exp(-((out - [0, -0.1, 1]) ** 2).sum(-1) / 0.05)
    radius += rng.uniform(0.1, 0.2) * np.exp(-((out - [0, -0.8, 0.6]) ** 2).sum(-1) / 0.1)
    stretch = [rng.uniform(0.7, 0.85), rng.uniform(1.2, 1.35), 1.0]
    index = np.arange(theta.size).reshape(theta.shape)
    a, b = index[:, :-1], np.roll(index, -1, 0)[:, :-1]
    c, d = index[:, 1:], np.roll(index, -1, 0)[:, 1:]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)]).reshape(-1, 3)
    vertices = (out * radius[..., None] * stretch).reshape(-1, 3)
    vertices[:, 2] *= np.where(vertices[:, 2] < 0, 0.6, 1.0)
    return vertices, faces.astype(np.int32)


@pytest.fixture(scope="module")
def training():
    rows = np.stack([surface.describe(*head(seed)) for seed in range(12)])
    deviation, bounds = familiarity.spread(rows, mesh_descriptor.GROUPS)
    return (lambda x: float(familiarity.distance(x, rows.mean(0), deviation))), bounds


def joined(*meshes):
    starts = np.cumsum([0, *(len(v) for v, _ in meshes)])
    return (
        np.concatenate([v for v, _ in meshes]),
        np.concatenate([f + s for (_, f), s in zip(meshes, starts, strict=False)]),
    )


def ball(centre, radius):
    vertices, faces = head(0, 8)
    return vertices / np.linalg.norm(vertices, axis=1, keepdims=True) * radius + centre, faces


def test_people_and_resampled_meshes_stay_as_they_are(training):
    distance, bounds = training
    for mesh in (head(50), head(51, 28), (head(52)[0] * 1000 + 5, head(52)[1])):
        found = alignment.align(*mesh, distance, bounds[0])
        assert found.changes == () and found.distance < bounds[0]
        assert found.vertices is mesh[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v, f: (v[:, [0, 2, 1]] * [1, -1, 1], f), "turned by 90 degrees"),
        (lambda v, f: (v * [-1, 1, -1], f), "turned by 180 degrees"),
        (lambda v, f: (v[:, [2, 0, 1]], f), "turned by 120 degrees"),
        (lambda v, f: joined((v, f), ball([0, -1.8, 0], 0.4)), "without 1 separate part"),
    ],
)
def test_turned_meshes_and_separate_parts(training, change, words):
    distance, bounds = training
    vertices, faces = head(60)
    mesh = change(vertices, faces)
    assert distance(surface.describe(*mesh)) > bounds[0]
    found = alignment.align(*mesh, distance, bounds[0])
    assert words in found.changes and found.distance < bounds[0]
    expected = surface.describe(vertices, faces)
    np.testing.assert_allclose(surface.describe(found.vertices, found.faces), expected, atol=1e-5)


def test_what_is_no_head_is_not_made_one(training):
    distance, bounds = training
    stick = np.random.default_rng(0).normal(size=(400, 3)) * [1, 0.05, 0.05]
    found = alignment.align(stick, np.zeros((0, 3), np.int32), distance, bounds[0])
    assert found.distance > bounds[1]
