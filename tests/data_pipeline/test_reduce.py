import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize

from a2fjax import channel_orders, rig
from data_pipeline.solver import reduce, solve

PLAIN = solve.SolveSettings(l2=0.0, l1=0.0, smoothness=0.0, tolerance=1e-7, passes=20)


def scan(rng, shapes=10, vertices=200, frames=40, noise=0.1):
    deltas = 3 * rng.normal(size=(shapes, vertices, 3))
    t = np.arange(frames)[:, None]
    weights = np.clip(np.sin(t / rng.uniform(4, 15, shapes) + rng.uniform(0, 6, shapes)), 0, 1)
    clean = np.einsum("fk,kvi->fvi", weights, deltas)
    return deltas, weights, clean + noise * rng.normal(size=clean.shape)


def spoil(rng, moved, outliers=0.01, missing=0.01, least=5.0, most=30.0):
    """Some vertices thrown in any direction, some dropped out."""
    moved = moved.copy()
    far = rng.random(moved.shape[:2]) < outliers
    direction = rng.normal(size=(far.sum(), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    moved[far] += direction * rng.uniform(least, most, (len(direction), 1))
    gone = rng.random(moved.shape[:2]) < missing
    moved[gone] = np.nan
    return moved, far & ~gone, gone


def solved(reducer, reduced, solver=PLAIN):
    found = solve.solve(
        reducer.gram, reduced.linear, reduced.energy, reduced.used * reducer.vertices, solver
    )
    assert found.converged
    return found


def test_trusted_frames_are_what_correlate_gives():
    deltas, _, moved = scan(np.random.default_rng(0))
    linear, energy = solve.correlate(deltas, moved)
    for limit in (0.0, 50.0):
        reducer = reduce.Reducer(deltas, outlier_mm=limit)
        np.testing.assert_allclose(reducer.gram, solve.gram(deltas), rtol=1e-12)
        for kind in (np.float64, np.float32):
            found = reducer(moved.astype(kind))
            np.testing.assert_allclose(found.linear, linear, rtol=1e-5, atol=1e-2)
            np.testing.assert_allclose(found.energy, energy, rtol=1e-5)
            assert (found.used == 1).all() and not found.outliers.any()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    cut=st.integers(0, 70),
    limit=st.sampled_from([0.0, 1.0]),
    missing=st.sampled_from([0.0, 0.1]),
)
def test_frames_do_not_depend_on_their_block(seed, cut, limit, missing):
    rng = np.random.default_rng(seed)
    deltas, _, moved = scan(rng, shapes=4, vertices=30, frames=70)
    moved, _, _ = spoil(rng, moved, missing=missing)
    moved[3] = np.nan
    reducer = reduce.Reducer(deltas, outlier_mm=limit)
    given_input = moved.copy()
    whole, parts = reducer(moved), [reducer(moved[:cut]), reducer(moved[cut:])]
    np.testing.assert_array_equal(moved, given_input)  # nothing is written into the caller's array
    order = rng.permutation(70)
    shuffled = reducer(moved[order])
    for name in ("linear", "energy", "used", "outliers"):
        one = getattr(whole, name)
        two = np.concatenate([getattr(p, name) for p in parts])
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(getattr(shuffled, name), one[order], rtol=1e-6, atol=1e-5)
        np.testing.assert_array_equal(getattr(reducer(moved), name), one)  # to the last bit


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_missing_vertices_do_not_count(share):
    """The completed frame has the weights of least squares on the vertices that are there."""
    rng = np.random.default_rng(1)
    deltas, _, moved = scan(rng, shapes=6, frames=12, noise=0.3)
    moved, _, gone = spoil(rng, moved, outliers=0.0, missing=share)
    # Half of a vertex is no vertex.
    moved[2, 7], gone[2, 7] = [1.0, np.inf, 0.0], True
    reducer = reduce.Reducer(deltas)
    reduced = reducer(moved)
    found = solved(reducer, reduced)
    np.testing.assert_allclose(reduced.used, 1 - gone.mean(axis=1))
    for w, frame, hole, residual in zip(found.weights, moved, gone, found.residual, strict=True):
        flat = deltas[:, ~hole].reshape(6, -1).T
        best = lsq_linear(flat, frame[~hole].ravel(), (0, 1), method="bvls", tol=1e-14).x
        # Where a tenth is left, the ridge of the frame's own fit shows.
        assert np.abs(w - best).max() <= (1e-4 if share < 0.5 else 5e-4)
        fit = ((flat @ best - frame[~hole].ravel()) ** 2).sum() / (~hole).sum()
        assert residual == pytest.approx(np.sqrt(fit), rel=1e-3)


def test_a_region_that_drops_out_leaves_the_rest_as_it_is():
    """Shapes seen elsewhere are not disturbed; a shape that is only in the hole rests at zero."""
    rng = np.random.default_rng(2)
    deltas, truth, _ = scan(rng, shapes=6)
    deltas[5, 50:] = 0.0
    moved = np.einsum("fk,kvi->fvi", truth, deltas) + 0.1 * rng.normal(size=(40, 200, 3))
    moved[10:20, :50] = np.nan
    reducer = reduce.Reducer(deltas, outlier_mm=2.0)
    found = solved(reducer, reducer(moved))
    assert np.abs(found.weights[:, :5] - truth[:, :5]).max() < 0.02
    assert np.abs(found.weights[10:20, 5]).max() < 1e-3


def test_outliers_count_as_their_limit():
    """The completed frame has the weights that minimise Huber's function, found by scipy."""
    rng = np.random.default_rng(3)
    deltas, _, moved = scan(rng, shapes=4, vertices=100, frames=10, noise=0.3)
    moved, far, gone = spoil(rng, moved, outliers=0.03, missing=0.05)
    reducer = reduce.Reducer(deltas, outlier_mm=1.5)
    reduced = reducer(moved)
    found = solved(reducer, reduced)

    def huber(w, frame, there):
        r = (np.einsum("k,kvi->vi", w, deltas) - frame)[there]
        length = np.linalg.norm(r, axis=1)
        inside = length <= 1.5
        value = np.where(inside, length**2, 2 * 1.5 * length - 1.5**2).sum()
        psi = r * np.where(inside, 1.0, 1.5 / np.maximum(length, 1e-9))[:, None]
        return value, 2 * np.einsum("kvi,vi->k", deltas[:, there], psi)

    for i in range(10):
        best = minimize(
            huber,
            found.weights[i],
            (moved[i], ~gone[i]),
            jac=True,
            bounds=[(0, 1)] * 4,
            options={"ftol": 1e-15, "gtol": 1e-10},
        )
        assert np.abs(found.weights[i] - best.x).max() <= 1e-4
    expected = far.sum(axis=1) / (~gone).sum(axis=1)
    np.testing.assert_allclose(reduced.outliers, expected, atol=1e-12)


def test_a_face_that_the_shapes_do_not_fit_is_still_reduced():
    """Most vertices are beyond the limit: the long way round, with the same meaning."""
    rng = np.random.default_rng(4)
    deltas, truth, moved = scan(rng, noise=1.5)
    moved[:, 0] = np.nan
    reducer = reduce.Reducer(deltas, outlier_mm=1.0)
    reduced = reducer(moved)
    assert 0.5 < reduced.outliers.min() <= reduced.outliers.max() <= 1
    found = solved(reducer, reduced)
    assert np.sqrt(((found.weights - truth) ** 2).mean()) < 0.05
    # What counts as a millimetre at most leaves a residual below that.
    assert 0.7 < found.residual.mean() <= 1.0


def test_lost_frames_are_said_to_be_lost():
    rng = np.random.default_rng(5)
    deltas, truth, moved = scan(rng)
    moved[4], moved[17:19] = np.nan, np.nan
    moved[30, 2:] = np.nan
    reducer = reduce.Reducer(deltas, outlier_mm=2.0)
    reduced = reducer(moved)
    lost = np.isin(np.arange(40), [4, 17, 18, 30])
    assert np.array_equal(np.isnan(reduced.linear).all(axis=1), lost)
    assert np.array_equal(np.isnan(reduced.energy), lost)
    assert not reduced.used[[4, 17, 18]].any() and reduced.used[30] == pytest.approx(0.01)
    found = solved(reducer, reduced)
    assert np.array_equal(np.isnan(found.residual), lost)
    straight = (truth[16] + truth[19]) / 2
    assert np.abs(found.weights[17:19].mean(axis=0) - straight).max() < 0.02


def test_empty_and_wrong_blocks():
    reducer = reduce.Reducer(np.ones((3, 5, 3)))
    empty = reducer(np.zeros((0, 5, 3)))
    assert empty.linear.shape == (0, 3) and empty.used.shape == (0,)
    for frames in (np.zeros((2, 4, 3)), np.zeros((5, 3)), np.zeros((2, 5, 2))):
        with pytest.raises(ValueError, match="expected"):
            reducer(frames)
    for deltas in (np.ones((3, 5)), np.full((3, 5, 3), np.nan)):
        with pytest.raises(ValueError, match="finite"):
            reduce.Reducer(deltas)
    with pytest.raises(ValueError, match="outlier_mm"):
        reduce.Reducer(np.ones((3, 5, 3)), outlier_mm=-1.0)


def test_shapes_that_move_nothing():
    reducer = reduce.Reducer(np.zeros((2, 5, 3)), outlier_mm=1.0)
    moved = np.full((3, 5, 3), 9.0)
    moved[0, 0] = np.nan
    reduced = reducer(moved)
    assert not reduced.linear.any() and np.isfinite(reduced.energy).all()


def ict(path):
    """The 52 channels [52, V, 3] in mm of an ICT-FaceKit file in cm."""
    with np.load(path, allow_pickle=False) as file:
        given_deltas, names = file["expression_deltas"], file["expression_names"]
    channels = {c.name: c.channel for c in channel_orders.order("ict57").columns}
    deltas = np.zeros((52, given_deltas.shape[1], 3))
    for name, delta in zip(names, given_deltas, strict=True):
        if channels[str(name)] is not None:
            deltas[rig.INDEX[channels[str(name)]]] += 10.0 * delta.astype(np.float64)
    return deltas


@pytest.mark.parametrize(
    "name, limit",
    # Noise alone leaves 0.008 on the 3,000 vertices of the small one.
    [("ict_lite", 1.0), pytest.param("ict_facekit", 2.0, marks=pytest.mark.slow)],
)
def test_recovers_ict_weights_from_spoiled_scans(shared, name, limit):
    """1 % of the vertices 5-30 mm off, 1 % dropped out, 0.1 mm of noise: RMSE at most 0.01."""
    rng, frames = np.random.default_rng(6), 120
    deltas = ict(shared / "ict" / f"{name}.npz")
    t = np.arange(frames)[:, None] / 60
    wave = np.sin(2 * np.pi * rng.uniform(0.3, 3, 52) * t + rng.uniform(0, 6, 52))
    truth = np.clip(wave * rng.uniform(0.2, 0.7, 52), 0, 1)
    truth[:, ~deltas.any(axis=(1, 2))] = 0.0
    moved = (truth @ deltas.reshape(52, -1)).reshape(frames, -1, 3)
    moved += 0.1 * rng.normal(size=moved.shape)
    reducer = reduce.Reducer(deltas, outlier_mm=limit)
    found = solved(reducer, reducer(spoil(rng, moved)[0]), solve.SolveSettings())
    assert np.sqrt(((found.weights - truth) ** 2).mean()) <= 0.01
    # Trusting every vertex would not do.
    spoiled = spoil(np.random.default_rng(7), moved)[0]
    trusting = reduce.Reducer(deltas)
    blind = solved(trusting, trusting(spoiled), solve.SolveSettings())
    assert np.sqrt(((blind.weights - truth) ** 2).mean()) > 0.015
