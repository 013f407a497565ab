import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from a2fjax.errors import InputError
from data_pipeline.mesh import conventions, geometry


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_rigid_transform_is_undone_exactly(seed):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(9, 3)) * 50
    turn = Rotation.random(4, random_state=seed).as_matrix()
    shift = rng.normal(size=(4, 3)) * 100
    # source = R'(target - t), so that R source + t = target
    source = np.einsum("fij,fnj->fni", turn.transpose(0, 2, 1), target[None] - shift[:, None])
    rotation, found = geometry.rigid_transform(source, target, np.ones((4, 9)))
    np.testing.assert_allclose(rotation, turn, atol=1e-9)
    np.testing.assert_allclose(found, shift, atol=1e-7)


def test_rotation_agrees_with_scipy_under_noise_and_weights():
    rng = np.random.default_rng(1)
    target = rng.normal(size=(20, 3))
    source = Rotation.from_euler("xyz", [0.3, -0.2, 0.9]).apply(target) + rng.normal(size=(20, 3))
    w = rng.uniform(0.1, 2, 20)
    rotation, _ = geometry.rigid_transform(source[None], target, w[None])
    mean = (w @ source) / w.sum(), (w @ target) / w.sum()
    expected, _ = Rotation.align_vectors(target - mean[1], source - mean[0], weights=w)
    np.testing.assert_allclose(rotation[0], expected.as_matrix(), atol=1e-9)
    assert np.linalg.det(rotation[0]) == pytest.approx(1.0)


def test_flat_points_give_a_rotation_not_a_reflection():
    rng = np.random.default_rng(2)
    target = np.c_[rng.normal(size=(8, 2)), np.zeros(8)]
    source = Rotation.from_euler("z", 0.4).apply(target)[None]
    rotation, _ = geometry.rigid_transform(source, target, np.ones((1, 8)))
    assert np.linalg.det(rotation[0]) == pytest.approx(1.0)


def test_a_third_of_moving_vertices_does_not_pull_the_head():
    rng = np.random.default_rng(3)
    target = rng.normal(size=(60, 3)) * 60
    source = np.repeat(target[None], 50, axis=0)
    source[:, :20] += [0, -8, 3]  # a jaw that opens
    source += rng.normal(size=source.shape) * 0.1
    rotation, shift = geometry.head_motion(source, target)
    moved = source[:, 20:] @ rotation.transpose(0, 2, 1) + shift[:, None]
    assert np.abs(moved - target[20:]).mean() < 0.12
    plain, plain_shift = geometry.rigid_transform(source, target, np.ones((50, 60)))
    pulled = source[:, 20:] @ plain.transpose(0, 2, 1) + plain_shift[:, None]
    assert np.abs(pulled - target[20:]).mean() > 1.0  # without robust weights it does


def test_stable_vertices_are_those_that_do_not_move(head):
    found = geometry.stable_vertices(head.neutral, head.deltas)
    assert set(head.still) <= set(found)
    assert (
        np.linalg.norm(head.deltas[:, found], axis=2).max()
        <= 0.02 * np.linalg.norm(head.deltas, axis=2).max() + 1e-12
    )
    everywhere = head.deltas + 0.5  # nothing is still: the least moved share
    some = geometry.stable_vertices(head.neutral, everywhere)
    assert 12 <= len(some) < 450 and geometry.spans(head.neutral, some)


def test_displacements_are_blockwise_and_rigid_free(head, monkeypatch):
    rng = np.random.default_rng(4)
    neutral = head.neutral * 10
    w = rng.uniform(0, 0.5, (20, 52))
    moved = np.einsum("fk,kvi->fvi", w, head.deltas * 10)
    turn = Rotation.from_rotvec(rng.normal(size=(20, 3)) * 0.1).as_matrix()
    points = np.einsum("fij,fvj->fvi", turn, neutral + moved) + rng.normal(size=(20, 1, 3)) * 5
    keep = np.arange(0, 450, 2)
    monkeypatch.setattr(geometry, "_BUDGET", 450 * 24 * 7)
    blocks = list(geometry.displacements(points / 10, neutral, keep, head.still, scale=10.0))
    assert [b[0].stop - b[0].start for b in blocks] == [7, 7, 6]
    np.testing.assert_allclose(np.concatenate([b[1] for b in blocks]), moved[:, keep], atol=1e-6)


def test_bad_vertices_are_named(head):
    neutral = head.neutral
    keep = np.arange(450)
    with pytest.raises(InputError, match=r"shot: shape \(5, 449, 3\), expected \[frames, 450, 3\]"):
        list(geometry.displacements(np.zeros((5, 449, 3)), neutral, keep, None, name="shot"))
    with pytest.raises(InputError, match="no frames"):
        list(geometry.displacements(np.zeros((0, 450, 3)), neutral, keep, None))
    bad = np.full((5, 450, 3), np.nan)
    with pytest.raises(InputError, match="shot: in none of the 5 frames"):
        list(geometry.displacements(bad, neutral, keep, None, name="shot"))


def rigid(rng, frames, turn=np.pi, shift=500.0):
    """Rotations [F, 3, 3] by up to `turn` and shifts [F, 1, 3]."""
    axis = rng.normal(size=(frames, 3))
    axis *= rng.uniform(0, turn, (frames, 1)) / np.linalg.norm(axis, axis=1, keepdims=True)
    return Rotation.from_rotvec(axis).as_matrix(), rng.normal(size=(frames, 1, 3)) * shift


def all_blocks(points, head, **options):
    neutral = head.neutral * 10
    blocks = geometry.displacements(points, neutral, np.arange(450), head.still, **options)
    return np.concatenate([moved for _, moved in blocks])


@given(
    st.integers(0, 10_000), st.integers(0, 47), st.sampled_from([1.0, 10.0, 1000.0]), st.booleans()
)
@settings(max_examples=30, deadline=None)
def test_any_rigid_motion_unit_and_axes_leave_displacements(head, seed, axes, scale, single):
    rng = np.random.default_rng(seed)
    moved = np.einsum("fk,kvi->fvi", rng.uniform(0, 0.5, (6, 52)), head.deltas * 10)
    turn, shift = rigid(rng, 6)
    points = np.einsum("fij,fvj->fvi", turn, head.neutral * 10 + moved) + shift
    matrix = conventions.signed_permutations()[axes]
    capture = (points @ matrix / scale).astype(np.float32 if single else np.float64)
    found = all_blocks(capture, head, scale=scale, axes=matrix)
    # Float32 itself rounds a coordinate of 1 m by 6e-5 mm.
    np.testing.assert_allclose(found, moved, atol=1e-3 if single else 1e-6)


@given(st.integers(0, 10_000), st.floats(0, 0.3), st.floats(0, 0.3))
@settings(max_examples=25, deadline=None)
def test_outliers_and_gaps_do_not_turn_the_head(head, seed, astray, gaps):
    rng = np.random.default_rng(seed)
    moved = np.einsum("fk,kvi->fvi", rng.uniform(0, 0.5, (8, 52)), head.deltas * 10)
    turn, shift = rigid(rng, 8)
    points = np.einsum("fij,fvj->fvi", turn, head.neutral * 10 + moved) + shift
    bad = rng.random((8, 450)) < astray
    size = rng.choice([3.0, 40.0, 3000.0], (bad.sum(), 1))
    points[bad] += rng.normal(size=(bad.sum(), 3)) * size
    lost = rng.random((8, 450)) < gaps
    points[lost] = rng.choice([np.nan, np.inf, -np.inf, 1e30], lost.sum())[:, None]
    found = all_blocks(points, head)
    assert np.isnan(found[lost]).all()
    good = ~bad & ~lost
    assert np.isfinite(found[good]).all()
    np.testing.assert_allclose(found[good], moved[good], atol=0.01)


def test_outliers_that_move_together_do_not_turn_the_head(head):
    rng = np.random.default_rng(5)
    points = np.repeat(head.neutral[None] * 10, 10, axis=0)
    turn, shift = rigid(rng, 10)
    points = points @ turn.transpose(0, 2, 1) + shift
    cap = head.still[: int(0.35 * len(head.still))]  # a cap that slips by 40 degrees
    slip = Rotation.from_euler("xyz", [40, 10, 0], degrees=True).as_matrix()
    points[:, cap] = points[:, cap] @ slip.T + 15
    found = all_blocks(points, head)
    rest = np.setdiff1d(np.arange(450), cap)
    assert np.abs(found[:, rest]).max() < 0.01


def test_frames_without_enough_vertices_are_missing(head):
    points = np.repeat(head.neutral[None] * 10, 6, axis=0)
    points[1] = np.nan
    points[2, head.still[5:]] = np.nan  # five are too few
    line = np.argsort(
        np.linalg.norm(head.neutral[head.still] - head.neutral[head.still[0]], axis=1)
    )
    points[3, np.delete(head.still, line[:8])] = np.nan  # all in one corner
    points[4, ::2, 1] = np.nan
    points[4, 1] = np.inf
    found = all_blocks(points, head)
    assert np.isnan(found).all(axis=(1, 2)).tolist() == [False, True, True, True, True, False]
    points[4, 1] = head.neutral[1] * 10
    found = all_blocks(points, head)
    assert np.isfinite(found[4, 1::2]).all() and np.isnan(found[4, ::2]).all()
    assert np.abs(found[5]).max() < 1e-9


def test_a_capture_that_changes_its_topology_is_named(head, monkeypatch):
    monkeypatch.setattr(geometry, "_BUDGET", 450 * 24 * 7)

    class Growing:
        shape = (20, 450, 3)

        def __getitem__(self, frames):
            return np.zeros((frames.stop - frames.start, 450 + (frames.start > 0), 3))

    with pytest.raises(InputError, match=r"shot: frame 7 has shape \(451, 3\)"):
        list(
            geometry.displacements(
                Growing(), head.neutral, np.arange(450), None, name="shot", scale=1.0
            )
        )


def test_noise_and_a_stray_vertex_in_the_shapes_do_not_hide_what_is_still(head):
    rng = np.random.default_rng(6)
    deltas = head.deltas * 10 + rng.normal(size=head.deltas.shape) * 0.05
    deltas[20, 400] = 900.0
    found = geometry.stable_vertices(head.neutral * 10, deltas)
    moved = np.linalg.norm(head.deltas * 10, axis=2).max(axis=0)
    assert len(found) >= 0.8 * len(head.still) and moved[found].max() < 0.1 * moved.max()
    assert geometry.spans(head.neutral, found)
