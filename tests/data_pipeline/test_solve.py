import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

from a2fjax import rig
from data_pipeline import solve

PLAIN = dict(l2=0.0, l1=0.0, smoothness=0.0, symmetry=0.0)


def problem(rng, shapes=12, vertices=30, frames=40, noise=0.05):
    deltas = rng.normal(size=(shapes, vertices, 3))
    deltas[1] = 0.9 * deltas[0] + 0.3 * deltas[1]  # two shapes that are hard to tell apart
    weights = np.clip(rng.normal(0.2, 0.5, (frames, shapes)), 0, 1)
    moved = np.einsum("fk,kvi->fvi", weights, deltas) + noise * rng.normal(
        size=(frames, vertices, 3)
    )
    return deltas, weights, moved


def run(deltas, moved, **settings):
    first, pairs = settings.pop("first", (0,)), settings.pop("pairs", ())
    linear, energy = solve.correlate(deltas, moved)
    return solve.solve(
        solve.gram(deltas),
        linear,
        energy,
        deltas.shape[1],
        solve.SolveSettings(**settings),
        first=first,
        pairs=pairs,
    )


def objective(w, deltas, moved, l2, l1, smoothness, symmetry, pairs, link):
    fit = ((np.einsum("fk,kvi->fvi", w, deltas) - moved) ** 2).sum()
    step = (np.diff(w, axis=0) ** 2 * link[:, None]).sum()
    both = sum(((w[:, a] - w[:, b]) ** 2).sum() for a, b in pairs)
    return fit + l2 * (w**2).sum() + l1 * w.sum() + smoothness * step + symmetry * both


@pytest.mark.parametrize("seed", range(3))
def test_parity_with_scipys_bounded_least_squares(seed):
    deltas, _, moved = problem(np.random.default_rng(seed), noise=0.5)
    found = run(deltas, moved, **PLAIN, tolerance=1e-6)
    flat = deltas.reshape(len(deltas), -1).T
    expected = np.stack(
        [lsq_linear(flat, m.ravel(), (0, 1), method="bvls", tol=1e-13).x for m in moved]
    )
    assert found.converged
    assert np.abs(found.weights - expected).max() <= 1e-4
    fit = np.einsum("fk,kvi->fvi", found.weights, deltas) - moved
    rms = np.sqrt((fit**2).sum(axis=(1, 2)) / deltas.shape[1])
    np.testing.assert_allclose(found.residual, rms, rtol=1e-6)


def test_regularised_and_coupled_problem_is_the_minimum_scipy_finds():
    rng = np.random.default_rng(3)
    deltas, _, moved = problem(rng, shapes=5, vertices=8, frames=9, noise=0.5)
    pairs, strengths = [(0, 1), (2, 4)], dict(l2=1.5, l1=2.0, smoothness=6.0, symmetry=4.0)
    link = np.ones(8)
    link[3] = 0.0  # a new take begins at frame 4
    found = run(deltas, moved, **strengths, tolerance=1e-6, first=(0, 4), pairs=pairs)
    best = minimize(
        lambda x: objective(x.reshape(9, 5), deltas, moved, **strengths, pairs=pairs, link=link),
        np.full(45, 0.3),
        bounds=[(0, 1)] * 45,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000, "maxfun": 10**6},
    )
    assert found.converged
    assert np.abs(found.weights.ravel() - best.x).max() <= 2e-4


def test_chunks_do_not_show():
    rng = np.random.default_rng(5)
    deltas, _, moved = problem(rng, frames=150)
    settings = dict(l2=0.1, l1=0.1, smoothness=30.0, tolerance=1e-6, passes=40)
    whole = run(deltas, moved, **settings, chunk=256)
    cut = run(deltas, moved, **settings, chunk=32)
    assert whole.converged and cut.converged
    np.testing.assert_allclose(cut.weights, whole.weights, atol=1e-4)


def test_residual_says_when_it_has_not_converged():
    deltas, _, moved = problem(np.random.default_rng(6))
    found = run(deltas, moved, **PLAIN, tolerance=1e-9, passes=1, iterations=25)
    assert not found.converged and found.kkt > 1e-9


def test_recovers_weights_under_scanner_noise(head):
    rng = np.random.default_rng(0)
    t = np.arange(300) / 60
    size, phase, speed = rng.uniform(0.2, 0.7, 52), rng.uniform(0, 6, 52), rng.uniform(0.3, 3, 52)
    weights = np.clip(np.sin(2 * np.pi * speed * t[:, None] + phase) * size, 0, 1)
    deltas = 10 * head.deltas
    moved = np.einsum("fk,kvi->fvi", weights, deltas) + 0.1 * rng.normal(size=(300, 450, 3))
    found = run(deltas, moved)
    error = np.sqrt(((found.weights - weights) ** 2).mean())
    assert found.converged and error <= 0.02
    # Noise of 0.1 mm a coordinate is 0.173 mm a vertex; the fit takes up little of it.
    assert 0.15 < found.residual.mean() < 0.19
    assert len(rig.ARKIT) == found.weights.shape[1]


def test_shape_that_moves_nothing_stays_zero():
    deltas, _, moved = problem(np.random.default_rng(8))
    deltas[3] = 0.0
    found = run(deltas, moved)
    assert found.converged and not found.weights[:, 3].any()
