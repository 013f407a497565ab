import numpy as np
import pytest
from scipy.optimize import lsq_linear

from a2fjax import rig
from data_pipeline.demo import expressions, scans, style, takes
from data_pipeline.demo import head as heads

SHAPES = [np.zeros(8), np.full(8, 0.9), np.full(8, -0.9)]
SHAPES.append(np.random.default_rng(5).uniform(-1, 1, 8))


def test_the_mesh_is_sound_and_the_same_topology_for_everybody():
    layout = heads.make_layout()
    one, other = (heads.make_head(s) for s in SHAPES[1:3])
    assert 400 <= len(one.vertices) <= 520
    assert 60 <= len(one.tongue) <= 80
    assert one.faces is other.faces
    for head in (one, other):
        assert np.isfinite(head.vertices).all()
        corners = head.vertices[layout.faces]
        area = np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
        )
        assert area.min() > 0
        assert 15 < np.ptp(head.vertices[:, 1]) < 30
    # Every vertex is used, and the holes at mouth and eyes leave no lid or lip outside.
    assert set(layout.faces.ravel()) == set(range(len(layout.plane)))


def mirrored(points):
    """For each vertex the index of its mirror image."""
    distance = np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=-1)
    index = distance.argmin(axis=1)
    assert distance[np.arange(len(points)), index].max() < 1e-6
    return index


@pytest.mark.parametrize("part", ["skin", "tongue"])
def test_shapes_of_a_symmetric_face_mirror_each_other(part):
    shape = np.array([0.3, -0.5, 0.6, 0.2, 0.0, 0.4, -0.3, 0.1])
    head = heads.make_head(shape)
    if part == "skin":
        names, points, shapes = rig.ARKIT, head.vertices, expressions.skin_shapes(head)
    else:
        names, points, shapes = rig.TONGUE, head.tongue, expressions.tongue_shapes(head)
        points, shapes = points[:64], shapes[:, :64]
    index = mirrored(points)
    for i, name in enumerate(names):
        partner = names.index(rig.CHANNELS[rig.MIRROR_SOURCE[rig.INDEX[name]]])
        np.testing.assert_allclose(
            shapes[i][index] * [-1, 1, 1], shapes[partner], atol=1e-6, err_msg=name
        )


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_come_back_from_noisy_scans(shape):
    rng = np.random.default_rng(0)
    head = heads.make_head(shape)
    for shapes in (expressions.skin_shapes(head), expressions.tongue_shapes(head)):
        matrix = shapes.reshape(len(shapes), -1).T
        spread = scans.NOISE * np.sqrt(np.diag(np.linalg.inv(matrix.T @ matrix)))
        assert spread.max() < 0.018
        assert np.sqrt(np.mean(spread**2)) < 0.011
        q, r = np.linalg.qr(matrix)  # The same least squares, of as many rows as there are shapes.
        errors = []
        for _ in range(8):
            weights = rng.uniform(0, 1, len(shapes)) * (rng.uniform(size=len(shapes)) < 0.4)
            seen = matrix @ weights + scans.NOISE * rng.normal(size=len(matrix))
            errors.append(lsq_linear(r, q.T @ seen, (0, 1)).x - weights)
        assert np.sqrt(np.mean(np.square(errors))) < 0.012


@pytest.mark.parametrize("shape", SHAPES)
def test_mouth_close_shuts_an_open_jaw(shape):
    layout, head = heads.make_layout(), heads.make_head(shape)
    shapes = expressions.skin_shapes(head)
    edge = np.flatnonzero(layout.of("edge"))
    across = layout.opposite_lip[edge]
    jaw, close = (shapes[rig.INDEX[n]] for n in ("jawOpen", "mouthClose"))

    def gap(vertices):
        return np.linalg.norm(vertices[edge] - vertices[across], axis=1)

    assert gap(head.vertices).max() < 0.05
    assert gap(head.vertices + jaw).max() > 2.0
    # Where the lips were at rest apart from each other they are again, at every opening.
    for opening in (0.3, 1.0):
        shut = gap(head.vertices + opening * (jaw + close))
        assert shut[1:12].max() < 0.15


def test_the_skull_never_moves_and_each_shape_moves_something():
    layout, head = heads.make_layout(), heads.make_head(SHAPES[3])
    shapes = expressions.skin_shapes(head)
    assert np.abs(shapes[:, layout.of("skull")]).max() == 0.0
    assert np.linalg.norm(shapes, axis=-1).max(axis=1).min() > 0.3
    tongue = expressions.tongue_shapes(head)
    assert np.abs(tongue[:, list(heads.TONGUE_RIGID)]).max() == 0.0
    assert len(heads.TONGUE_RIGID) >= 4


def test_style_can_be_read_off_the_normalised_neutral_mesh():
    people = takes.draw_people(60, 20, 10.0, seed=4)
    meshes = []
    for person in people:
        points = heads.make_head(person.shape).vertices
        points = points - points.mean(axis=0)
        meshes.append((points / np.sqrt((points**2).sum(axis=1).mean())).ravel())
    meshes = np.array(meshes)
    values = np.array([list(vars(style.draw_style(p.shape)).values()) for p in people])
    known, centre = slice(0, 60), meshes[:60].mean(axis=0)
    kernel = (meshes - centre) @ (meshes[known] - centre).T
    mean = values[known].mean(axis=0)
    fitted = np.linalg.solve(kernel[known] + 1e-3 * np.eye(60), values[known] - mean)
    error = kernel[60:] @ fitted + mean - values[60:]
    assert (np.sqrt(np.mean(error**2, axis=0)) < 0.15 * values.std(axis=0)).all()


def test_every_style_parameter_shows():
    for i in range(5):
        ends = np.zeros((2, 8))
        ends[:, i] = -1, 1
        low, high = (heads.make_head(e).vertices for e in ends)
        moved = np.linalg.norm(high - low, axis=1)
        assert moved.max() > 0.04 * np.ptp(low[:, 1]), style.SHAPE[i]


def test_head_motion_is_small_smooth_and_a_rotation():
    times = np.arange(0, 10, 1 / 60)
    rotation, shift = scans._head_motion(times, np.random.default_rng(0))
    np.testing.assert_allclose(
        rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (600, 1, 1)), atol=1e-5
    )
    angle = np.degrees(np.arccos(np.clip((np.trace(rotation, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert 0.5 < angle.max() < 12 and 0.02 < np.abs(shift).max() < 1.0
    assert np.abs(np.diff(shift, axis=0)).max() < 0.05
