"""The geometry heads' maps: against vertices made in loops, SVD, and SciPy's bounded solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import lsq_linear

from a2fjax import rig
from a2fjax.errors import InputError
from a2fjax.models.nvidia.geometry import maps, shapes, solver

VERTICES, TONGUE = 90, 30


def head_file(path, *, form="ours", left_out=(), **changes):
    """A head whose every channel moves vertices in a way of its own."""
    rng = np.random.default_rng(0)
    total = VERTICES + TONGUE
    neutral = rng.normal(size=(total, 3)) * 5
    names = [n for n in rig.CHANNELS if n not in rig.EYE_ANGLES and n not in left_out]
    deltas = rng.normal(size=(len(names), total, 3))
    for k, name in enumerate(names):
        still = slice(0, VERTICES) if name in rig.TONGUE else slice(VERTICES, total)
        deltas[k, still] = 0.0
    values = {"neutral": neutral, "tongue": np.arange(VERTICES, total)}
    if form == "ours":
        values |= {"names": np.array(names), "deltas": deltas}
    elif form == "ict":
        values |= {"expression_names": np.array(names), "expression_deltas": deltas}
    else:
        values |= {
            "poseNames": np.array(["neutral", *names]),
            **dict(zip(names, deltas, strict=True)),
        }
    np.savez(path, **(values | changes))
    return path


def motions(count=300, seed=1, free=0.3):
    """Motion with many channels on their bounds."""
    rng = np.random.default_rng(seed)
    motion = np.clip(rng.normal(0.1, free, (count, 72)), 0, 1)
    motion[:, rig.ANGLE_CHANNELS] = rng.normal(0, 8, (count, 4))
    return motion


def moments(motion, actors=1):
    actor = np.stack([motion[k::actors].mean(0) for k in range(actors)])
    return maps.Moments(motion.mean(0), np.cov(motion.T, bias=True), actor)


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return shapes.read(head_file(tmp_path_factory.mktemp("head") / "head.npz"))


@pytest.mark.parametrize("kind", ["pca", "vertices"])
def test_channels_come_back_where_the_geometry_tells_them(head, kind):
    """Round trip to 1e-3 of a weight (0.03 degrees), the residual of optimality checked."""
    motion = motions()
    if kind == "pca":
        constants = maps.pca_constants(head, moments(motion), 60, 20, error=0.001)
    else:
        constants = maps.vertex_constants(head, moments(motion), error=0.001)
    assert maps.undetermined(constants) == {}
    values = solver.head_values(constants, jnp.asarray(motion, jnp.float32))
    found, violation = jax.jit(lambda v: solver.solve(constants, v))(values)
    assert violation <= solver.TOLERANCE
    assert np.abs((found - motion) / rig.SCALE).max() < 1e-3
    free = solver.rig_channels(constants, values)
    assert np.abs((free - motion) / rig.SCALE).max() < 1e-3


def test_vertices_of_the_head_are_those_of_its_shapes(head):
    motion = motions(5)
    constants = maps.vertex_constants(head, moments(motions(), actors=3))
    values = np.asarray(solver.head_values(constants, jnp.asarray(motion, jnp.float32)))
    parts = maps.frame_layout(constants).parts
    for name, part in {"skin": head.skin, "tongue": head.tongue}.items():
        posed = part.neutral + np.einsum("tc,cvi->tvi", motion, part.shapes)
        centre = part.neutral.mean(0)
        size = np.abs(part.neutral - centre).max()
        expected = ((posed - centre) / size).reshape(5, -1)
        np.testing.assert_allclose(values[:, parts[name]], expected, atol=1e-5)
    np.testing.assert_allclose(values[:, parts["eyes"]], motion[:, 68:] / 30, atol=1e-6)
    jaw_only = np.where(np.isin(np.arange(72), shapes.JAW), motion, 0.0)
    alone = np.asarray(solver.head_values(constants, jnp.asarray(jaw_only, jnp.float32)))
    np.testing.assert_allclose(values[:, parts["jaw"]], alone[:, parts["jaw"]], atol=1e-6)
    assert constants["mean_geometry"].shape == (3, values.shape[1])
    assert 0 <= constants["upper"].min() and constants["upper"].max() <= 1


def test_components_are_those_of_numpys_svd_of_all_frames(head):
    motion = motions(400)
    found, deviation = maps.components(head.skin.matrix, moments(motion), 60)
    frames = (motion - motion.mean(0)) @ head.skin.matrix
    left, values, _ = np.linalg.svd(frames, full_matrices=False)
    rank = int((values > 1e-8 * values[0]).sum())
    assert rank == 52
    np.testing.assert_allclose(deviation[:rank], values[:rank] / 400**0.5, rtol=1e-6)
    coefficients = (motion - motion.mean(0)) @ found
    theirs = left[:, :rank] * values[:rank]
    sign = np.sign((coefficients[:, :rank] * theirs).sum(0))
    np.testing.assert_allclose(coefficients[:, :rank], sign * theirs, atol=1e-6 * values[0])
    # Components beyond the rank carry nothing, so that published widths can be had.
    assert not found[:, rank:].any() and not deviation[rank:].any()


def test_outside_the_box_the_answer_is_scipys(head):
    """Frames that no motion of the rig makes: the most probable motion inside its ranges."""
    rng = np.random.default_rng(3)
    motion = motions(6, seed=4) + rng.normal(0, 0.5, (6, 72)) * rig.SCALE
    known = moments(motions())
    constants = maps.vertex_constants(head, known, error=0.2)
    values = np.asarray(solver.head_values(constants, jnp.asarray(motion, jnp.float32)))
    values = values + 0.02 * rng.normal(size=values.shape).astype(np.float32)
    found, violation = solver.solve(constants, jnp.asarray(values))
    assert violation <= solver.TOLERANCE
    matrix = constants["matrix"].astype(np.float64)
    spread = np.sqrt(np.mean(np.diag(matrix.T @ known.covariance @ matrix)))
    covariance = known.covariance + 1e-4 * np.diag(np.diag(known.covariance))
    white = np.linalg.cholesky(np.linalg.inv(covariance)).T
    size = rig.SCALE.astype(np.float64)
    rows = np.concatenate([matrix.T / (0.2 * spread), white]) * size
    for got, frame in zip(np.asarray(found), values, strict=True):
        right = np.concatenate([(frame - constants["base"]) / (0.2 * spread), white @ known.mean])
        best = lsq_linear(rows, right, (rig.MIN / size, rig.MAX / size), tol=1e-12)
        np.testing.assert_allclose(got / size, best.x, atol=2e-3)


def test_what_the_geometry_does_not_tell_is_named_and_is_what_goes_with_the_rest(tmp_path):
    head = shapes.read(head_file(tmp_path / "h.npz", left_out=("cheekPuff", "tongueIn")))
    twin = head.skin.shapes
    twin[rig.INDEX["browInnerUp"]] = 2 * twin[rig.INDEX["mouthPucker"]]
    motion = motions()
    # Of the two that look the same, training motion says which one it is.
    motion[:, rig.INDEX["browInnerUp"]] = 0.3
    motion[0, rig.INDEX["browInnerUp"]] = 0.3001
    constants = maps.vertex_constants(head, moments(motion), error=0.001)
    names = maps.undetermined(constants)
    assert set(names) == {"cheekPuff", "tongueIn", "browInnerUp", "mouthPucker"}
    assert names["cheekPuff"].startswith("nothing moves with it")
    assert names["mouthPucker"].startswith("others together look the same")
    values = solver.head_values(constants, jnp.asarray(motion, jnp.float32))
    found, _ = solver.solve(constants, values)
    still = rig.INDEX["cheekPuff"]
    np.testing.assert_allclose(found[:, still], motion[:, still].mean(), atol=1e-6)
    told = [i for i, n in enumerate(rig.CHANNELS) if n not in ("cheekPuff", "tongueIn")]
    assert np.abs((found - motion)[:, told] / rig.SCALE[told]).max() < 2e-3


def test_few_components_give_back_motion_as_it_is_distributed(head):
    """Ten patterns of motion in twelve components: all 52 channels come back, to 0.01."""
    rng = np.random.default_rng(7)
    patterns = rng.uniform(0, 0.2, (10, 72))
    patterns[:, 52:] = 0.0
    motion = rng.uniform(0, 1, (400, 10)) @ patterns / 2
    constants = maps.pca_constants(head, moments(motion), 12, 0, error=0.001)
    values = solver.head_values(constants, jnp.asarray(motion, jnp.float32))
    found, violation = solver.solve(constants, values)
    assert violation <= solver.TOLERANCE
    assert np.abs(found - motion).max() < 0.01


def test_what_never_moved_in_training_is_left_alone_and_rounding_is_not_blown_up(head):
    """Two channels move, so two components tell everything, and nothing else can be told."""
    motion = np.zeros((200, 72))
    motion[:, [rig.INDEX["jawOpen"], rig.INDEX["mouthPucker"]]] = motions(200)[:, :2]
    constants = maps.pca_constants(head, moments(motion), 30, 20, error=1e-4)
    names = maps.undetermined(constants)
    assert len(names) == 70 and names["jawLeft"].startswith("it never moved in training")
    # A part that never moves has no component.
    assert names["tongueUp"].startswith("nothing moves with it")
    values = np.asarray(solver.head_values(constants, jnp.asarray(motion, jnp.float32)))
    found, _ = solver.solve(constants, values)
    np.testing.assert_allclose(found, motion, atol=1e-4)
    other, _ = solver.solve(constants, values * (1 + 1e-6))
    np.testing.assert_allclose(found, other, atol=1e-4)


def test_a_frame_does_not_depend_on_those_beside_it(tmp_path):
    """Not even where fewer components than channels leave much to choose."""
    head = shapes.read(head_file(tmp_path / "h.npz"))
    motion = motions()
    constants = maps.pca_constants(head, moments(motion), 12, 5)
    assert len(maps.undetermined(constants)) > 40
    values = np.asarray(solver.head_values(constants, jnp.asarray(motion, jnp.float32)))
    rng = np.random.default_rng(5)
    values = values + rng.normal(0, 0.1, values.shape).astype(np.float32)
    whole, violation = solver.solve(constants, values)
    assert violation <= solver.TOLERANCE
    for i in (0, 17):
        alone, _ = solver.solve(constants, values[i : i + 1] * (1 + 3e-7))
        np.testing.assert_allclose(alone[0], whole[i], atol=2e-3)


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_on_a_real_head_it_converges_inside_and_outside_the_box(shared, noise):
    """ICT-FaceKit's 3,000 vertices: shapes as like each other as those of real rigs are."""
    path = shared / "ict" / "ict_lite.npz"
    if not path.is_file():
        pytest.skip(f"no head at {path}")
    head = shapes.read(path)
    motion = motions(200)
    known = moments(motion)
    if noise:
        motion = motion + np.random.default_rng(2).normal(0, 0.4, motion.shape) * rig.SCALE
    constants = maps.vertex_constants(head, known, error=0.1 if noise else 0.001)
    assert set(maps.undetermined(constants)) == {"tongueOut", *rig.TONGUE}
    values = np.asarray(solver.head_values(constants, jnp.asarray(motion, jnp.float32)))
    values = values + noise * np.random.default_rng(3).normal(size=values.shape)
    found, violation = jax.jit(lambda v: solver.solve(constants, v))(values.astype(np.float32))
    assert violation <= solver.TOLERANCE
    if not noise:
        told = [i for i, n in enumerate(rig.CHANNELS) if n not in rig.TONGUE and n != "tongueOut"]
        assert np.abs((found - motion)[:, told] / rig.SCALE[told]).max() < 1e-3


def test_the_lips_distance_is_that_of_the_vertices(tmp_path):
    upper, lower = np.array([1, 5]), np.array([7, 2])
    head = shapes.read(head_file(tmp_path / "h.npz", lip_upper=upper, lip_lower=lower))
    motion = motions(7)
    posed = head.skin.neutral + np.einsum("tc,cvi->tvi", motion, head.skin.shapes)
    expected = (posed[:, upper, 1] - posed[:, lower, 1]).mean(1)
    known = moments(motions())
    for constants in (
        maps.pca_constants(head, known, 60, 20),
        maps.vertex_constants(head, known),
    ):
        values = solver.head_values(constants, jnp.asarray(motion, jnp.float32))
        got = values @ constants["lips"] + constants["lips_rest"]
        np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.parametrize("form", ["ict", "nvidia"])
def test_all_forms_of_a_file_say_the_same(tmp_path, form, head):
    other = shapes.read(head_file(tmp_path / "h.npz", form=form))
    np.testing.assert_array_equal(other.skin.shapes, head.skin.shapes)
    np.testing.assert_array_equal(other.tongue.neutral, head.tongue.neutral)


def test_the_tongue_may_be_a_file_of_its_own_and_nvidias_mouth_close_is_made_relative(tmp_path):
    names = np.array(["jawOpen", "mouthClose"])
    rng = np.random.default_rng(0)
    deltas = rng.normal(size=(2, 20, 3))
    neutral = rng.normal(size=(20, 3))
    np.savez(tmp_path / "skin.npz", neutral=neutral, names=names, deltas=deltas)
    deltas[1] += deltas[0]
    np.savez(tmp_path / "nv.npz", neutral=neutral, names=names, deltas=deltas)
    tongue = {"neutral": neutral[:9], "names": np.array(["TongueTipUp"]), "deltas": deltas[:1, :9]}
    np.savez(tmp_path / "tongue.npz", **tongue)
    ours = shapes.read(tmp_path / "skin.npz")
    theirs = shapes.read(tmp_path / "nv.npz", tmp_path / "tongue.npz")
    np.testing.assert_allclose(theirs.skin.shapes, ours.skin.shapes, atol=1e-12)
    assert theirs.tongue.neutral.shape == (9, 3)
    assert theirs.tongue.shapes[rig.INDEX["tongueTipUp"]].any()


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"names": np.array(["jawOpne"] * 68)}, "jawOpen"),
        ({"neutral": np.zeros((4, 2))}, r"neutral has shape \(4, 2\), expected \[V, 3\]"),
        ({"deltas": np.zeros((3, 4, 3))}, "68 names of shapes, 3 shapes"),
        ({"jaw": np.array([1, 2])}, "jaw names 2 vertices, expected 5"),
        ({"lip_upper": np.array([1]), "lip_lower": np.array([2, 3])}, "1 and 2 vertices"),
        ({"tongue": np.array([500])}, "tongue names vertices that are not among the 120"),
        ({"neutral": np.full((120, 3), np.nan)}, "neutral has values that are not finite"),
    ],
)
def test_damaged_shapes_are_refused_by_name(tmp_path, changes, said):
    path = head_file(tmp_path / "head.npz", **changes)
    with pytest.raises(InputError, match=said):
        shapes.read(path)


def test_missing_and_unreadable_files_are_refused(tmp_path):
    (tmp_path / "head.npz").write_bytes(b"no archive")
    with pytest.raises(InputError, match="expected a NumPy archive"):
        shapes.read(tmp_path / "head.npz")
    with pytest.raises(InputError, match=r"model\.rig=.*heda.npz.*head.npz"):
        shapes.read(tmp_path / "heda.npz")
    np.savez(tmp_path / "other.npz", points=np.zeros(3))
    with pytest.raises(InputError, match="holds points; expected neutral with names"):
        shapes.read(tmp_path / "other.npz")
